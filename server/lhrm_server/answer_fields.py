"""The fields that concern the answer alone, never the reasoning, and the AnswerPlan that they come to."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from lhrm_train.tool_format import Tool

from .answer_plan import AnswerPlan
from .checks import Check, boolean, filled_text, integer, list_of, number, wrong_type, wrong_value
from .errors import InvalidRequestError, UnsupportedParameterError
from .grammar_fields import answer_grammar, response_format, structured_outputs
from .limits import RequestLimits
from .tool_fields import plan_tools, tool_choice, tools

MOST_STOPS = 16
MOST_LOGPROBS = 20


_strings = list_of(filled_text, high=MOST_STOPS, what="strings")


def _stops(param: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (filled_text(param, value),)
    if not isinstance(value, list):
        raise wrong_type(param, f"a string or a list of at most {MOST_STOPS} strings", value)
    return _strings(param, value)


_bias = number(-100, 100)


def _biases(param: str, value: object) -> dict[int, float]:
    if not isinstance(value, dict):
        raise wrong_type(param, "an object of numbers by token id", value)
    biases = {}
    for key, bias in value.items():
        place = f"{param}.{key[:100]}"
        if not (key.isascii() and key.isdigit() and str(int(key[:20])) == key):
            raise wrong_value(place, "a token id as the key", key)
        biases[int(key)] = _bias(place, bias)
    return biases


ANSWER_FIELDS: Mapping[str, Check[Any]] = MappingProxyType(
    {
        "stop": Check(_stops, {"anyOf": [filled_text.schema, _strings.schema]}),
        "logprobs": boolean,
        "top_logprobs": integer(0, MOST_LOGPROBS),
        "logit_bias": Check(
            _biases,
            {
                "type": "object",
                "propertyNames": {"pattern": "^(0|[1-9][0-9]*)$"},
                "additionalProperties": _bias.schema,
            },
        ),
        "tools": tools,
        "tool_choice": tool_choice,
        "parallel_tool_calls": boolean,
        "response_format": response_format,
        "structured_outputs": structured_outputs,
    }
)
"""Checks by field name."""


def plan_answer(values: Mapping[str, Any], limits: RequestLimits) -> tuple[AnswerPlan, tuple[Tool, ...]]:
    """Return the plan of the answer and the tools that the prompt tells of. Raises InvalidRequestError."""
    use = plan_tools(values, trained=limits.calls_tools)
    grammar, field = answer_grammar(values)
    if grammar is not None and use.plan is not None:
        both = f"tools, {field}"
        raise InvalidRequestError(f"{both}: tool calls and a form of the answer exclude each other.", param=both)
    plan = AnswerPlan(
        stop=values.get("stop", ()),
        top_logprobs=_top_logprobs(values),
        logit_bias=_allowed_biases(values.get("logit_bias", {}), limits),
        grammar=grammar or use.grammar,
        tools=use.plan,
        grammar_param=field or ("tools" if use.grammar else None),
    )
    return plan, use.told


def _top_logprobs(values: Mapping[str, Any]) -> int | None:
    wanted = values.get("top_logprobs", 0)
    if values.get("logprobs", False):
        return int(wanted)
    if wanted:
        raise InvalidRequestError("top_logprobs: only together with logprobs: true.", param="top_logprobs")
    return None


def _allowed_biases(biases: Mapping[int, float], limits: RequestLimits) -> dict[int, float]:
    for token in biases:
        place = f"logit_bias.{token}"
        if token >= limits.vocab_size:
            raise InvalidRequestError(
                f"{place}: the vocabulary has {limits.vocab_size} tokens, ids from 0.", param=place
            )
        if token in limits.reserved_ids:
            raise UnsupportedParameterError(place, "this token belongs to the format of the conversation.")
    return dict(biases)
