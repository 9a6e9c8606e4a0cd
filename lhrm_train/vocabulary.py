"""Extend a base's tokenizer to the mode format, and prove that it can follow it.

The ids, merges and markers of the base stay. Three things are taken out, because contents are encoded piece by piece
and decoded token by token: the space that some tokenizers put in front of a text, the one that their decoders drop
there, and tokens put around a text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from lhrm_train.format import (
    TAGS,
    TURN_END,
    TURN_START,
    ChatTokenizer,
    Manifest,
    Message,
    TagIds,
    chat_template,
    encode_chat,
)
from lhrm_train.nano import PAD

TURN_MARKERS = ((TURN_START, TURN_END), ("<start_of_turn>", "<end_of_turn>"))  # ChatML; the same shape in Gemma

HARMLESS = (
    Message("system", "You are a helpful assistant."),
    Message("user", "What is 12 + 7?"),
    Message("assistant", "19"),
    Message("user", "Reverse ABC."),
)
PROBES = (
    "Hello",
    " two  spaces, then a line\n\n\tand a tab ",
    "x = 12 + 345;  # caf\u00e9 \u2713 \u65e5\u672c \U0001f600",
)


class InitError(ValueError):
    """A base model that cannot be turned into a base in the mode format, or a target that must not be written."""


@dataclass(frozen=True)
class Vocabulary:
    """The extended tokenizer with all its ids; `old_ids` is what the base had."""

    fast: PreTrainedTokenizerFast
    chat: ChatTokenizer
    ids: Mapping[str, int]
    old_ids: Mapping[str, int]
    bos: str | None
    eos: str | None

    @property
    def size(self) -> int:
        """Rows that a matrix with one row per id needs; ids may have gaps."""
        return max(self.ids.values()) + 1

    def old_id(self, token: str | None) -> int | None:
        """Id of a token that the base had, else None."""
        return None if token is None else self.old_ids.get(token)


def _without_edge_spaces(part: Any) -> Any:
    """Return a serialised normaliser, pre-tokenizer or decoder that neither adds nor drops a space at the edge."""
    if not isinstance(part, dict):
        return part
    part = dict(part)
    for key in ("normalizers", "pretokenizers", "decoders"):
        if key in part:
            part[key] = [kept for item in part[key] if (kept := _without_edge_spaces(item)) is not None]
    if part["type"] in ("Prepend", "Strip"):
        return None
    if part["type"] == "Metaspace":
        part["prepend_scheme"] = "never"
    elif part["type"] == "ByteLevel":
        part["add_prefix_space"] = False
    return part


def _turn_markers(ids: Mapping[str, int]) -> tuple[str, str]:
    return next((pair for pair in TURN_MARKERS if ids.keys() >= set(pair)), TURN_MARKERS[0])


def _add_tokens(backend: Tokenizer, wanted: Sequence[str]) -> Tokenizer:
    """Return `backend` with `wanted` as special tokens, no edge spaces and no tokens added around a text."""
    spec = json.loads(backend.to_str())
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        spec[part] = _without_edge_spaces(spec[part])
    spec["post_processor"] = spec["truncation"] = spec["padding"] = None
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in wanted])
    ids = tokenizer.get_vocab(with_added_tokens=True)
    old_ids = backend.get_vocab(with_added_tokens=True)
    if len(set(ids.values())) != len(ids) or any(ids.get(token) != index for token, index in old_ids.items()):
        raise InitError("tokenizer: its ids cannot be extended; adding tokens would move old ones")
    return tokenizer


def _text_start(base: PreTrainedTokenizerFast, turn_start: str) -> str | None:
    """Return the token that the base puts in front of every text or chat, None where it has none."""
    bos = base.bos_token
    if bos in (None, turn_start):
        return None
    template = str(base.chat_template or "")
    before_texts = base.backend_tokenizer.encode("a").ids[:1] == [base.bos_token_id]
    return bos if before_texts or "bos_token" in template or template.startswith(bos) else None


def extend_tokenizer(base: PreTrainedTokenizerFast, name: str, base_name: str, seed: int) -> Vocabulary:
    """Add what the format needs to the tokenizer of `base_name`, for a checkpoint called `name`.

    Turn markers, tags and padding that the base has keep their ids and become special. Raises InitError where text
    does not survive, a typed marker is more than text, a token does not stand for fixed bytes (only byte-level BPE
    and BPE with byte fallback do), or the chat template cannot give the ids of `encode_chat`.
    """
    backend = base.backend_tokenizer
    old_ids = backend.get_vocab(with_added_tokens=True)
    turn_start, turn_end = _turn_markers(old_ids)
    text_start = _text_start(base, turn_start)
    # Whoever masks padding out of the loss must not mask the end of turn with it.
    pad = base.pad_token if base.pad_token not in (None, turn_end) else PAD
    starts = (text_start,) if text_start else ()
    tokenizer = _add_tokens(backend, (*starts, turn_start, turn_end, *TAGS, pad))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=turn_end,
        pad_token=pad,
        bos_token=base.bos_token,
        unk_token=base.unk_token,
        additional_special_tokens=[turn_start, *TAGS],
        model_max_length=base.model_max_length,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = chat_template(turn_start, turn_end, text_start)
    ids = fast.get_vocab()
    manifest = Manifest(
        name=name,
        tags=TagIds(*(ids[tag] for tag in TAGS)),
        turn_start=turn_start,
        turn_end=turn_end,
        text_start=text_start,
        base_model=base_name,
        recipe={"base": base_name, "seed": seed},
    )
    chat = ChatTokenizer(fast.backend_tokenizer.to_str(), manifest)
    vocabulary = Vocabulary(fast, chat, ids, old_ids, bos=base.bos_token, eos=base.eos_token)
    _check(vocabulary)
    return vocabulary


def _check(vocabulary: Vocabulary) -> None:
    chat, manifest = vocabulary.chat, vocabulary.chat.manifest
    starts = (manifest.text_start,) if manifest.text_start else ()
    markers = (*starts, manifest.turn_start, manifest.turn_end, *TAGS)
    marker_ids = {vocabulary.ids[marker] for marker in markers}
    for text in (*PROBES, *(f"a {marker} b" for marker in markers)):
        ids = chat.encode_text(text)
        if chat.decode(ids) != text:
            raise InitError(f"tokenizer: {text!r} becomes {chat.decode(ids)!r} when encoded and decoded")
        if marker_ids & set(ids):
            raise InitError(f"tokenizer: typing {text!r} gives a special token")
    for index in vocabulary.ids.values():
        # Behind another token, so that a decoder that treats the first one differently is found out.
        spelled = b"".join(map(chat.token_bytes, (manifest.tags.think, index))).decode("utf-8", "replace")
        if chat.decode([manifest.tags.think, index]) != spelled:
            token = vocabulary.fast.convert_ids_to_tokens(index)
            raise InitError(
                f"tokenizer: token {token!r} does not stand for fixed bytes; byte-level BPE or BPE with byte fallback "
                "is needed"
            )
    messages = [{"role": message.role, "content": message.content} for message in HARMLESS]
    rendered = vocabulary.fast.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    if list(rendered) != encode_chat(chat, HARMLESS, None):
        raise InitError("tokenizer: merges across the end of a template piece, so the chat template gives other ids")
