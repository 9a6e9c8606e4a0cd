"""What a request may ask of this server: the facts of its model and settings that the fields are checked against."""

from __future__ import annotations

from dataclasses import astuple, dataclass

from lhrm_train.format import ChatTokenizer

from .settings import Settings


@dataclass(frozen=True)
class RequestLimits:
    """`reserved_ids` are the tokens of the format itself; `tool_call_format` None: never trained to call tools."""

    max_choices: int
    vocab_size: int
    reserved_ids: frozenset[int]
    tool_call_format: str | None

    @classmethod
    def of(cls, settings: Settings, tokenizer: ChatTokenizer) -> RequestLimits:
        """Return the limits of one server."""
        manifest = tokenizer.manifest
        start = tokenizer.encode_template(manifest.turn_start)
        reserved = {*astuple(tokenizer.tags), tokenizer.turn_end_id, *start, *tokenizer.prefix_ids}
        return cls(settings.max_choices, tokenizer.vocab_size, frozenset(reserved), manifest.tool_call_format)
