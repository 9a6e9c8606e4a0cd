"""Read mode, reasoning and savings from what the official ``openai`` package returns, without importing it.

Example::

    from openai import OpenAI
    from lhrm_client.openai import extra_body, mode_of, savings_of

    api = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
    question = [{"role": "user", "content": "What is 48371 + 92615?"}]
    reply = api.chat.completions.create(model="lhrm-nano", messages=question, extra_body=extra_body(mode="auto"))
    print(mode_of(reply), savings_of(reply))

Each function takes a completion, a chunk of a stream, or either as a mapping. It returns None where the
server said nothing of the kind, as one that is no lhrm gateway does, and raises ResponseFormatError where
what it said is malformed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from ._request import thinking_fields
from ._response import format_error
from ._types import Accounting, Decision, Mode, RunMode, Savings

__all__ = ["accounting_of", "decision_of", "extra_body", "mode_of", "reasoning_of", "savings_of"]

_T = TypeVar("_T", bound=BaseModel)


def extra_body(
    *, mode: Mode | None = None, think_threshold: float | None = None, thinking_budget: int | None = None
) -> dict[str, JsonValue]:
    """Return the ``extra_body`` that steers the thinking, as the options of LHRM.chat do. Raises ArgumentError."""
    return thinking_fields(mode, think_threshold, thinking_budget)


def decision_of(response: object) -> Decision | None:
    """Return which mode runs and who chose it; of a stream, the first chunk and the last have it."""
    return _read(Decision, response)


def mode_of(response: object) -> RunMode | None:
    """Return which mode runs; of a stream, the first chunk and the last have it."""
    decision = decision_of(response)
    return None if decision is None else decision.mode


def accounting_of(response: object) -> Accounting | None:
    """Return the whole accounting; of a stream, only the last chunk with a choice and the one behind it have it."""
    found = _field(response, "lhrm")
    return _read(Accounting, response) if isinstance(found, Mapping) and "latency" in found else None


def savings_of(response: object) -> Savings | None:
    """Return the estimated saving; None too where the server has no estimate."""
    accounting = accounting_of(response)
    return None if accounting is None else accounting.savings


def reasoning_of(response: object, choice: int = 0) -> str | None:
    """Return the reasoning in the choice with that index: all of it, or of a chunk what it adds."""
    for found in _field(response, "choices") or []:
        if _field(found, "index") == choice:
            part = _field(found, "message") or _field(found, "delta")
            reasoning = _field(part, "reasoning")
            text = _field(part, "reasoning_content") if reasoning is None else reasoning
            return text if isinstance(text, str) else None
    return None


def _read(kind: type[_T], response: object) -> _T | None:
    found = _field(response, "lhrm")
    if not isinstance(found, Mapping):
        return None
    try:
        return kind.model_validate(dict(found))
    except ValidationError as exc:
        raise format_error(exc, _field(response, "id"), {"lhrm": dict(found)}) from exc


def _field(value: object, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
