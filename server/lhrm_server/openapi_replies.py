"""JSON schemas of what the gateway answers, for its OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from lhrm_train.format import Mode

from .checks import Schema
from .policy import Source

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
COUNT: Schema = {"type": "integer", "minimum": 0}
SHARE: Schema = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
MILLISECONDS: Schema = {"type": ["number", "null"], "minimum": 0}
TEXT_OR_NULL: Schema = {"type": ["string", "null"]}


def shape(properties: Mapping[str, Schema], optional: Sequence[str] = ()) -> Schema:
    """Return the schema of an object whose members are all there, but for the optional ones."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required}


def ref(name: str) -> Schema:
    """Return the reference to one of the named schemas."""
    return {"$ref": f"#/components/schemas/{name}"}


_COUNTS: Mapping[str, Schema] = MappingProxyType(
    {
        "reasoning_tokens": COUNT,
        "answer_tokens": COUNT,
        "overhead_tokens": COUNT,
        "ended_by": {"enum": ["stop", "length", "tool_calls"]},
        "reasoning_ended_by": {"enum": ["model", "budget", "length", "eos", None]},
    }
)
_SAVINGS = shape(
    {
        "tokens": WHOLE,
        "interval": {"type": ["array", "null"], "items": WHOLE},
        "confidence": SHARE,
        "n": {"type": ["integer", "null"]},
        "method": TEXT_OR_NULL,
        "provenance": TEXT_OR_NULL,
    }
)
_LATENCY = shape(
    dict.fromkeys(("queue_ms", "decide_ms", "first_token_ms", "first_answer_token_ms", "total_ms"), MILLISECONDS)
)
_TOOL_CALL = shape({"id": TEXT, "type": {"const": "function"}, "function": shape({"name": TEXT, "arguments": TEXT})})
_CHOICE = shape(
    {
        "index": COUNT,
        "message": shape(
            {
                "role": {"const": "assistant"},
                "content": TEXT_OR_NULL,
                "reasoning": TEXT_OR_NULL,
                "reasoning_content": TEXT_OR_NULL,
                "tool_calls": {"type": "array", "items": _TOOL_CALL},
                "refusal": {"type": "null"},
            },
            optional=("reasoning", "reasoning_content", "tool_calls"),
        ),
        "logprobs": {"type": ["object", "null"]},
        "finish_reason": {"enum": ["stop", "length", "tool_calls"]},
        "stop_reason": TEXT_OR_NULL,
        "lhrm": shape({**_COUNTS, "answer_missing": TEXT_OR_NULL, "answer_retried": {"type": "boolean"}}),
    }
)

REPLIES: Mapping[str, Schema] = MappingProxyType(
    {
        "Error": shape({"error": shape({"message": TEXT, "type": TEXT, "param": TEXT_OR_NULL, "code": TEXT_OR_NULL})}),
        "Lhrm": shape(
            {
                "mode": {"enum": [mode.value for mode in Mode]},
                "source": {"enum": [source.value for source in Source]},
                "p_think": SHARE,
                "threshold": SHARE,
                "decide_tokens": {"enum": [0, 1]},
                **_COUNTS,
                "latency": _LATENCY,
                "savings": {"anyOf": [_SAVINGS, {"type": "null"}]},
            }
        ),
        "Usage": shape(
            {
                "prompt_tokens": COUNT,
                "completion_tokens": COUNT,
                "total_tokens": COUNT,
                "completion_tokens_details": shape({"reasoning_tokens": COUNT}),
            }
        ),
        "ChatCompletion": shape(
            {
                "id": TEXT,
                "object": {"const": "chat.completion"},
                "created": WHOLE,
                "model": TEXT,
                "choices": {"type": "array", "items": _CHOICE, "minItems": 1},
                "usage": ref("Usage"),
                "lhrm": ref("Lhrm"),
            }
        ),
        "Model": shape(
            {
                "id": TEXT,
                "object": {"const": "model"},
                "created": WHOLE,
                "owned_by": TEXT,
                "root": TEXT,
                "max_model_len": {"type": ["integer", "null"]},
                "lhrm": {"type": "object"},
            }
        ),
        "ModelList": shape({"object": {"const": "list"}, "data": {"type": "array", "items": ref("Model")}}),
        "Tokenized": shape(
            {
                "count": COUNT,
                "max_model_len": {"type": ["integer", "null"]},
                "tokens": {"type": "array", "items": COUNT},
                "token_strs": {"type": ["array", "null"], "items": TEXT},
            }
        ),
        "Detokenized": shape({"prompt": TEXT}),
        "Status": shape({"status": TEXT}),
        "Version": shape({"version": TEXT, "format_version": WHOLE, "engine": {"type": ["object", "null"]}}),
    }
)
"""Named schemas of replies."""
