"""From the bytes of a request body to one JSON object, with every way to fail named."""

from __future__ import annotations

import json
from collections.abc import Iterable

from starlette.types import Receive

from .errors import BodyTooLargeError, InvalidRequestError

JsonObject = dict[str, object]


class ClientGoneError(Exception):
    """The client went away before its request was complete."""


async def read_body(receive: Receive, declared_length: str | None, limit: int) -> bytes:
    """Return the body. Raises BodyTooLargeError above `limit` bytes, ClientGoneError on a disconnect."""
    if declared_length is not None and declared_length.isdecimal() and int(declared_length) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks)


def parse_object(body: bytes) -> JsonObject:
    """Return the JSON object in `body`. Raises InvalidRequestError on anything else."""
    try:
        text = body.decode("utf-8")
        value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
        if "\\u" in text:
            # An escaped lone surrogate is valid JSON and no text; neither tokenizer nor reply could encode it.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as exc:
        raise _bad_json(f"it is not valid UTF-8 (byte {exc.start})") from exc
    except UnicodeEncodeError as exc:
        raise _bad_json("it has an escaped lone surrogate, which is no character") from exc
    except RecursionError as exc:
        raise _bad_json("it is nested too deeply") from exc
    except ValueError as exc:
        raise _bad_json(str(exc)) from exc
    if not isinstance(value, dict):
        raise _bad_json("it is not an object")
    return value


def _too_large(limit: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"The request body is larger than {limit} bytes.")


def _bad_json(why: str) -> InvalidRequestError:
    return InvalidRequestError(f"The request body cannot be read as JSON: {why}.", code="invalid_json")


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")


def _unique(pairs: Iterable[tuple[str, object]]) -> JsonObject:
    result: JsonObject = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key[:100]!r} occurs twice in one object")
        result[key] = value
    return result
