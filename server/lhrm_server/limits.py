"""What a request may ask of this server: the facts of its model and settings that the fields are checked against."""

from __future__ import annotations

from dataclasses import astuple, dataclass

from lhrm_train.format import ChatTokenizer
from lhrm_train.tool_format import TOOL_CALL_FORMAT

from .settings import Settings


@dataclass(frozen=True)
class RequestLimits:
    """`reserved_ids` are the tokens of the format itself; `calls_tools` tells whether the model learned to."""

    max_choices: int
    vocab_size: int
    reserved_ids: frozenset[int]
    calls_tools: bool

    @classmethod
    def of(cls, settings: Settings, tokenizer: ChatTokenizer) -> RequestLimits:
        """Return the limits of one server."""
        manifest = tokenizer.manifest
        start = tokenizer.encode_template(manifest.turn_start)
        reserved = {*astuple(tokenizer.tags), tokenizer.turn_end_id, *start, *tokenizer.prefix_ids}
        calls_tools = manifest.tool_call_format == TOOL_CALL_FORMAT
        return cls(settings.max_choices, tokenizer.vocab_size, frozenset(reserved), calls_tools)
