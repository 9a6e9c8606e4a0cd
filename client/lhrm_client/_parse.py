"""Read the JSON text a model wrote into the pydantic model that was asked for."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from ._errors import ParseError

T = TypeVar("T", bound=BaseModel)


def parse_as(model: type[T], text: str, what: str, request_id: str | None) -> T:
    """Return `text` as `model`; `what` names the text in the ParseError raised where it does not fit."""
    try:
        return model.model_validate_json(text)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        reason = f"{place}: {first['msg']}" if place else first["msg"]
        raise ParseError(f"{what} does not fit {model.__name__}: {reason}", request_id=request_id, body=text) from exc
