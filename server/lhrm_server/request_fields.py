"""Every field that a chat request may have: honoured, a label, or one that may only ask for nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any

from .answer_fields import ANSWER_FIELDS
from .checks import (
    INT32,
    INT64,
    NOTHING,
    Check,
    Schema,
    boolean,
    integer,
    json_object,
    nullable,
    number,
    only,
    record,
    text,
)
from .control import MODE_FIELDS
from .messages import parse_messages
from .settings import MOST_CHOICES

STREAM_OPTIONS: Check[dict[str, Any]] = record(
    {
        "include_usage": boolean,
        "continuous_usage_stats": boolean,
        "include_obfuscation": only(False, "this server adds no obfuscation to its chunks; only false is taken."),
    }
)
SAMPLING_FIELDS: Mapping[str, Check[Any]] = MappingProxyType(
    {
        "temperature": number(0, 2),
        "top_p": number(0, 1, above=True),
        "top_k": integer(-1, INT32 - 1),
        "min_p": number(0, 1),
        "presence_penalty": number(-2, 2),
        "frequency_penalty": number(-2, 2),
        # Beyond these, 32-bit logits overflow inside the engine and the batch has NaNs.
        "repetition_penalty": number(0.01, 100),
        "seed": integer(-INT64, INT64 - 1),
    }
)
HONOURED: Mapping[str, Check[Any]] = MappingProxyType(
    {
        "model": text,
        "messages": parse_messages,
        "stream": boolean,
        "stream_options": STREAM_OPTIONS,
        "n": integer(1, MOST_CHOICES),
        "max_tokens": integer(1, INT64 - 1),
        "max_completion_tokens": integer(1, INT64 - 1),
        **SAMPLING_FIELDS,
        **ANSWER_FIELDS,
        **MODE_FIELDS,
        "think_threshold": number(0, 1),
    }
)
# Labels for the caller's own books; nothing about the answer depends on them.
ANNOTATIONS: Mapping[str, Check[Any]] = MappingProxyType(
    {"user": text, "safety_identifier": text, "prompt_cache_key": text, "metadata": json_object}
)
# Fields that are not supported, each with the values that ask for nothing (null, [] and {} always do).
NEUTRAL: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "best_of": (1,),
        "functions": (),
        "function_call": ("none", "auto"),
        "modalities": (["text"],),
        "audio": (),
        "prediction": (),
        "web_search_options": (),
        "verbosity": ("medium",),
        "store": (False,),
        "service_tier": ("auto", "default"),
        "prompt_cache_retention": ("in_memory", "in-memory"),
        "prompt_cache_options": (),
        "moderation": (),
        "min_tokens": (0,),
        "ignore_eos": (False,),
        "use_beam_search": (False,),
        "length_penalty": (1,),
        "stop_token_ids": (),
        "bad_words": (),
        "allowed_token_ids": (),
        "logits_processors": (),
        "prompt_logprobs": (),
        "skip_special_tokens": (True,),
        "spaces_between_special_tokens": (True,),
        "detokenize": (True,),
        "include_stop_str_in_output": (False,),
        "echo": (False,),
        "add_generation_prompt": (True,),
        "continue_final_message": (False,),
        "add_special_tokens": (False,),
        "documents": (),
        "chat_template": (),
        "priority": (0,),
        "request_id": (),
        "return_token_ids": (False,),
        "return_tokens_as_token_ids": (False,),
        "truncate_prompt_tokens": (-1,),
        "cache_salt": (),
        "kv_transfer_params": (),
        "vllm_xargs": (),
    }
)


class FieldKind(Enum):
    """What this server does with a field."""

    HONOURED = "honoured"
    ANNOTATION = "annotation"
    NEUTRAL = "neutral"


@dataclass(frozen=True)
class FieldRow:
    """One field for the documents; `schema` describes every value that is taken."""

    name: str
    kind: FieldKind
    schema: Schema


def field_rows() -> Iterator[FieldRow]:
    """Yield every field that is known here."""
    for table, kind in ((HONOURED, FieldKind.HONOURED), (ANNOTATIONS, FieldKind.ANNOTATION)):
        for name, check in table.items():
            yield FieldRow(name, kind, check.schema if name in ("model", "messages") else nullable(check.schema))
    for name, values in NEUTRAL.items():
        schema: Schema = {"anyOf": [{"enum": list(values)}, NOTHING]} if values else NOTHING
        yield FieldRow(name, FieldKind.NEUTRAL, schema)
