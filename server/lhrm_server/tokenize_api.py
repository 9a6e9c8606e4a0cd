"""POST /tokenize and /detokenize: the ids of a conversation as chat encodes it, or of plain text, and back."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from lhrm_train.format import ChatTokenizer, encode_chat, encode_turns
from lhrm_train.tool_format import with_tools

from .body import ClientGoneError, JsonObject, parse_object, read_body
from .checks import NOTHING, Check, Schema, asks_for_nothing, boolean, integer, list_of, missing, nullable, only, text
from .errors import InvalidRequestError
from .gateway import Gateway
from .messages import parse_messages
from .tool_fields import tools

_SPECIAL = only(False, "the format itself places the special tokens; only false is taken.")
CHAT_FIELDS: Mapping[str, Check[Any]] = MappingProxyType(
    {
        "model": text,
        "messages": parse_messages,
        "tools": tools,
        "add_generation_prompt": boolean,
        "continue_final_message": only(False, "only false is taken."),
        "add_special_tokens": _SPECIAL,
        "return_token_strs": boolean,
    }
)
TEXT_FIELDS: Mapping[str, Check[Any]] = MappingProxyType(
    {"model": text, "prompt": text, "add_special_tokens": _SPECIAL, "return_token_strs": boolean}
)


def detokenize_fields(vocab_size: int) -> dict[str, Check[Any]]:
    """Return the fields of /detokenize for a vocabulary."""
    return {"model": text, "tokens": list_of(integer(0, vocab_size - 1), what="token ids")}


def fields_schema(fields: Mapping[str, Check[Any]], required: str) -> Schema:
    """Return the schema of a body with these fields."""
    properties = {name: check.schema if name == required else nullable(check.schema) for name, check in fields.items()}
    return {
        "type": "object",
        "required": [required],
        "properties": properties,
        "additionalProperties": NOTHING,
    }


class TokenizeEndpoint:
    """Serves /tokenize, and /detokenize with `back`."""

    def __init__(self, gateway: Gateway, *, back: bool = False) -> None:
        self._gateway = gateway
        self._back = back

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises GatewayError."""
        gateway = self._gateway
        try:
            length = Headers(scope=scope).get("content-length")
            body = parse_object(await read_body(receive, length, gateway.settings.max_body_bytes))
        except ClientGoneError:
            return
        gateway.serving()
        # Long texts take a while, in which other requests go on: encoding runs without the interpreter's lock.
        answer = await run_in_threadpool(self._detokenized if self._back else self._tokenized, body)
        await JSONResponse(answer)(scope, receive, send)

    def _tokenized(self, body: JsonObject) -> JsonObject:
        if body.get("messages") is not None and body.get("prompt") is not None:
            both = "messages, prompt"
            raise InvalidRequestError(f"Only one of these can be given: {both}.", param=both)
        tokenizer = self._gateway.tokenizer
        if body.get("prompt") is not None:
            values = self._taken(body, TEXT_FIELDS, "prompt")
            ids = tokenizer.encode_text(values["prompt"])
        else:
            values = self._taken(body, CHAT_FIELDS, "messages")
            ids = _chat_ids(tokenizer, values)
        strings = [tokenizer.decode([token]) for token in ids] if values.get("return_token_strs") else None
        return {
            "count": len(ids),
            "max_model_len": self._gateway.max_model_len,
            "tokens": ids,
            "token_strs": strings,
        }

    def _detokenized(self, body: JsonObject) -> JsonObject:
        tokenizer = self._gateway.tokenizer
        values = self._taken(body, detokenize_fields(tokenizer.vocab_size), "tokens")
        return {"prompt": tokenizer.decode(values["tokens"])}

    def _taken(self, body: JsonObject, fields: Mapping[str, Check[Any]], required: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, value in body.items():
            if name in fields and value is not None:
                values[name] = fields[name](name, value)
            elif not asks_for_nothing(value):
                known = f"known here: {', '.join(fields)}"
                raise InvalidRequestError(
                    f"Unknown parameter: {name[:100]!r}; {known}.", param=name[:100], code="unknown_parameter"
                )
        if required not in values:
            raise missing(required)
        if "model" in values:
            self._gateway.settings.alias_wish(values["model"])
        return values


def _chat_ids(tokenizer: ChatTokenizer, values: Mapping[str, Any]) -> list[int]:
    """Return the ids that chat sends to the engine, without the opening tag, which the mode decides."""
    messages = with_tools(values["messages"], [definition.tool for definition in values.get("tools", ())])
    if values.get("add_generation_prompt", True):
        return encode_chat(tokenizer, messages, None)
    return encode_turns(tokenizer, messages)
