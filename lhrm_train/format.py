"""The mode format: tags, chat encoding and span splitting, shared by trainer, engine and gateway.

A think answer is ``<think>R</think>A``, a no-think answer is ``<no_think>A</no_think>``; both end with
the end-of-turn marker. The opening tag is the *decision*: forcing a mode means appending that tag to
the prompt, so the opening tag always belongs to the prompt and never to the completion.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lhrm_train.atomic import write_json

FORMAT_VERSION = 1
MANIFEST_NAME = "lhrm.json"

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
NO_THINK_OPEN, NO_THINK_CLOSE = "<no_think>", "</no_think>"
TAGS = (THINK_OPEN, THINK_CLOSE, NO_THINK_OPEN, NO_THINK_CLOSE)
TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"
ROLES = ("system", "user", "assistant", "tool")


class FormatError(ValueError):
    """A checkpoint or a message that does not follow the mode format."""


class Mode(Enum):
    """How an answer is produced; the value is the name used on the wire."""

    THINK = "think"
    NO_THINK = "no_think"


def _byte_characters() -> dict[str, int]:
    # Byte-level BPE writes printable bytes as themselves and the others, in order, from U+0100 on.
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = [value for value in range(256) if value not in printable]
    return {chr(value): value for value in printable} | {chr(256 + i): value for i, value in enumerate(moved)}


_BYTE_OF: Mapping[str, int] = MappingProxyType(_byte_characters())
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE_MARK = "\u2581"


@dataclass(frozen=True)
class TagIds:
    """Token ids of the four tags, each a single token."""

    think: int
    think_end: int
    no_think: int
    no_think_end: int

    def opening(self, mode: Mode) -> int:
        """Return the id that opens an answer in `mode`."""
        return self.think if mode is Mode.THINK else self.no_think


@dataclass(frozen=True)
class Message:
    """One turn of the conversation, as it is rendered: plain text, no reasoning, no tags."""

    role: str
    content: str


@dataclass(frozen=True)
class SavingsBin:
    """Paired forced-think and forced-no-think completion tokens of similar validation prompts.

    Bounds are half open, ``low <= value < high``; the last p_think bin includes 1. `think_low` and
    `think_high` are quantiles of the think arm at the calibration's confidence.
    """

    p_think: tuple[float, float]
    prompt_tokens: tuple[int, int]
    n: int
    think_mean: float
    think_low: float
    think_high: float
    no_think_mean: float
    saving_mean: float
    saving_low: float
    saving_high: float

    def holds(self, p_think: float, prompt_tokens: int) -> bool:
        """Tell whether a request falls into this bin."""
        low, high = self.p_think
        in_p = low <= p_think < high or (p_think == high == 1.0)
        return in_p and self.prompt_tokens[0] <= prompt_tokens < self.prompt_tokens[1]


@dataclass(frozen=True)
class SavingsCalibration:
    """What no-think saved on validation prompts that the model itself sends to no_think."""

    confidence: float
    prompts: int
    bins: tuple[SavingsBin, ...]

    def lookup(self, p_think: float, prompt_tokens: int) -> SavingsBin | None:
        """Return the bin of a request, or None where calibration saw no such prompt."""
        return next((b for b in self.bins if b.holds(p_think, prompt_tokens)), None)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> SavingsCalibration:
        """Read the ``savings_calibration`` block of the manifest."""
        bins = []
        for row in raw["bins"]:
            low, high = row["p_think"]
            first, last = row["prompt_tokens"]
            bins.append(SavingsBin(**{**row, "p_think": (low, high), "prompt_tokens": (first, last)}))
        return cls(confidence=raw["confidence"], prompts=raw["prompts"], bins=tuple(bins))


@dataclass(frozen=True)
class Manifest:
    """The checkpoint's ``lhrm.json``: everything a server needs beside the Hugging Face files.

    `text_start` is the token in front of every prompt, for bases that were trained with one.
    """

    name: str
    tags: TagIds
    turn_start: str = TURN_START
    turn_end: str = TURN_END
    text_start: str | None = None
    format_version: int = FORMAT_VERSION
    base_model: str | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    tool_call_format: str | None = None
    evaluation: dict[str, Any] = field(default_factory=dict)
    savings_calibration: SavingsCalibration | None = None

    @classmethod
    def load(cls, directory: str | Path) -> Manifest:
        """Read ``lhrm.json``. Raises FormatError when it is absent, malformed or of another version."""
        path = Path(directory) / MANIFEST_NAME
        if not path.is_file():
            raise FormatError(f"{path} not found: not an LHRM checkpoint")
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as exc:
            raise FormatError(f"{path} is not valid JSON: {exc}") from exc
        version = raw.get("format_version") if isinstance(raw, dict) else None
        if version != FORMAT_VERSION:
            raise FormatError(f"{path}: format_version {version!r} is not {FORMAT_VERSION}, the one known here")
        try:
            calibration = raw.pop("savings_calibration", None)
            return cls(
                **{**raw, "tags": TagIds(**raw["tags"])},
                savings_calibration=SavingsCalibration.from_dict(calibration) if calibration else None,
            )
        except (KeyError, TypeError) as exc:
            raise FormatError(f"{path}: malformed manifest: {exc}") from exc

    def save(self, directory: str | Path) -> None:
        """Write ``lhrm.json`` into `directory`; one that is there is replaced in one step. Raises OSError."""
        write_json(Path(directory) / MANIFEST_NAME, asdict(self))


class ChatTokenizer:
    """A checkpoint's tokenizer in the two roles the format needs.

    The template's own pieces are encoded with special tokens on, message contents with them off, so a
    tag or turn marker that somebody typed is only text.
    """

    def __init__(self, tokenizer_json: str, manifest: Manifest) -> None:
        # The load test asks the suite's questions and scores answers without this package.
        from tokenizers import Tokenizer

        self.manifest = manifest
        self._template = Tokenizer.from_str(tokenizer_json)
        self._pieces: dict[str, list[int]] = {}
        self._content = Tokenizer.from_str(tokenizer_json)
        self._content.encode_special_tokens = True
        # SentencePiece vocabularies spell text plainly, with a mark for the space and <0x0A> for a lone byte.
        self._byte_fallback = "ByteFallback" in json.dumps(json.loads(tokenizer_json).get("decoder"))
        for tokenizer in (self._template, self._content):
            tokenizer.no_padding()
            tokenizer.no_truncation()
        self.turn_end_id = self._single_id(manifest.turn_end)
        self.prefix_ids = (self._single_id(manifest.text_start),) if manifest.text_start else ()
        self.tags = manifest.tags
        named = dict(zip(TAGS, asdict(self.tags).values(), strict=True))
        for tag, expected in named.items():
            if self._single_id(tag) != expected:
                raise FormatError(f"tokenizer gives {tag} id {self._single_id(tag)}, {MANIFEST_NAME} says {expected}")

    @classmethod
    def load(cls, directory: str | Path) -> ChatTokenizer:
        """Read ``tokenizer.json`` and ``lhrm.json``. Raises FormatError when they are missing or disagree."""
        path = Path(directory) / "tokenizer.json"
        manifest = Manifest.load(directory)
        if not path.is_file():
            raise FormatError(f"{path} not found")
        return cls(path.read_text(encoding="utf-8"), manifest)

    def _single_id(self, token: str) -> int:
        token_id = self._template.token_to_id(token)
        if token_id is None:
            raise FormatError(f"tokenizer has no single token {token}")
        return token_id

    @property
    def vocab_size(self) -> int:
        """Number of ids, added tokens included."""
        return self._template.get_vocab_size(with_added_tokens=True)

    def encode_text(self, text: str) -> list[int]:
        """Encode text in which nothing is special."""
        return self._content.encode(text, add_special_tokens=False).ids

    def encode_template(self, text: str) -> list[int]:
        """Encode a piece of the template, tags and turn markers included; of these there are few."""
        if (ids := self._pieces.get(text)) is None:
            ids = self._template.encode(text, add_special_tokens=False).ids
            self._pieces[text] = ids
        return list(ids)

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that one id stands for; an id without a token stands for none.

        Joining the bytes of many ids and decoding them gives what `decode` gives; only malformed UTF-8 may
        become a different number of U+FFFD where the vocabulary has byte fallback.
        """
        token = self._template.id_to_token(token_id)
        if token is None:
            return b""
        if self._byte_fallback:
            byte = _BYTE_TOKEN.fullmatch(token)
            return bytes([int(byte[1], 16)]) if byte else token.replace(_SPACE_MARK, " ").encode("utf-8")
        if all(character in _BYTE_OF for character in token):
            return bytes(_BYTE_OF[character] for character in token)
        return token.encode("utf-8")

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids with every token visible; incomplete UTF-8 becomes U+FFFD."""
        return self._template.decode(list(ids), skip_special_tokens=False)


def encode_turns(tokenizer: ChatTokenizer, messages: Sequence[Message]) -> list[int]:
    """Encode the turns of a conversation. Raises FormatError on an unknown role."""
    marks = tokenizer.manifest
    ids = list(tokenizer.prefix_ids)
    for message in messages:
        if message.role not in ROLES:
            raise FormatError(f"unknown role {message.role!r}; known: {', '.join(ROLES)}")
        ids += tokenizer.encode_template(f"{marks.turn_start}{message.role}\n")
        ids += tokenizer.encode_text(message.content)
        ids += tokenizer.encode_template(f"{marks.turn_end}\n")
    return ids


def encode_chat(tokenizer: ChatTokenizer, messages: Sequence[Message], mode: Mode | None) -> list[int]:
    """Encode a conversation up to and including the generation prompt, plus the opening tag of `mode`.

    With `mode` None the ids end where the model decides. Raises FormatError on an unknown role.
    """
    ids = encode_turns(tokenizer, messages)
    ids += tokenizer.encode_template(f"{tokenizer.manifest.turn_start}assistant\n")
    if mode is not None:
        ids.append(tokenizer.tags.opening(mode))
    return ids


def encode_answer(tokenizer: ChatTokenizer, mode: Mode, reasoning: str, answer: str) -> list[int]:
    """Encode a completion in `mode`, opening tag first, end of turn last; `reasoning` is unused in no-think."""
    tags, text = tokenizer.tags, tokenizer.encode_text
    if mode is Mode.THINK:
        return [tags.think, *text(reasoning), tags.think_end, *text(answer), tokenizer.turn_end_id]
    return [tags.no_think, *text(answer), tags.no_think_end, tokenizer.turn_end_id]


def chat_template(turn_start: str = TURN_START, turn_end: str = TURN_END, text_start: str | None = None) -> str:
    """Return the Jinja template other tools use; ``lhrm_mode`` = think | no_think | absent."""
    opening = (
        f"{{%- if lhrm_mode == 'think' %}}{THINK_OPEN}"
        f"{{%- elif lhrm_mode == 'no_think' %}}{NO_THINK_OPEN}{{%- endif %}}"
    )
    return (
        f"{text_start or ''}"
        "{%- for message in messages %}"
        f"{{{{- '{turn_start}' + message['role'] + '\\n' + message['content'] + '{turn_end}\\n' }}}}"
        "{%- endfor %}"
        f"{{%- if add_generation_prompt %}}{{{{- '{turn_start}assistant\\n' }}}}"
        f"{{%- if lhrm_mode is defined %}}{opening}{{%- endif %}}{{%- endif %}}"
    )


class Span(Enum):
    """What a generated token belongs to."""

    REASONING = "reasoning"
    ANSWER = "answer"
    OVERHEAD = "overhead"


@dataclass(frozen=True)
class SpanDelta:
    """A run of consecutive generated ids that belong to one span."""

    span: Span
    ids: tuple[int, ...]


class SpanSplitter:
    """Assign every generated id to reasoning, answer or overhead, whatever the chunking.

    The mode is known from the prompt, never guessed. In think mode the first ``</think>`` ends the
    reasoning; afterwards tags are plain answer text. In no-think mode ``</no_think>`` closes the answer
    only when nothing but the end of turn follows, so it is held until the next id is seen.
    """

    def __init__(self, tags: TagIds, turn_end_id: int, mode: Mode) -> None:
        self._tags = tags
        self._turn_end_id = turn_end_id
        self._in_reasoning = mode is Mode.THINK
        self._mode = mode
        self._held_close = False
        self.reasoning_closed = False
        self.answer_closed = False
        self.ended = False

    def feed(self, ids: Iterable[int]) -> list[SpanDelta]:
        """Return the spans of `ids`, in order; a trailing ``</no_think>`` stays held."""
        runs: list[tuple[Span, list[int]]] = []
        for token in ids:
            for span, value in self._step(token):
                if runs and runs[-1][0] is span:
                    runs[-1][1].append(value)
                else:
                    runs.append((span, [value]))
        return [SpanDelta(span, tuple(values)) for span, values in runs]

    def finish(self) -> list[SpanDelta]:
        """Release a held ``</no_think>`` as overhead: generation ended right after it."""
        if not self._held_close:
            return []
        self._held_close, self.answer_closed = False, True
        return [SpanDelta(Span.OVERHEAD, (self._tags.no_think_end,))]

    def _step(self, token: int) -> list[tuple[Span, int]]:
        if self.ended:
            raise FormatError(f"token {token} after the end of turn")
        out: list[tuple[Span, int]] = []
        if self._held_close:
            self._held_close = False
            self.answer_closed = token == self._turn_end_id
            out.append((Span.OVERHEAD if self.answer_closed else Span.ANSWER, self._tags.no_think_end))
        if token == self._turn_end_id:
            self.ended = True
            out.append((Span.OVERHEAD, token))
        elif self._in_reasoning:
            closes = token == self._tags.think_end
            self._in_reasoning, self.reasoning_closed = not closes, closes
            out.append((Span.OVERHEAD if closes else Span.REASONING, token))
        elif self._mode is Mode.NO_THINK and token == self._tags.no_think_end:
            self._held_close = True
        else:
            out.append((Span.ANSWER, token))
        return out
