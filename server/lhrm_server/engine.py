"""The seam between gateway and engine: token ids in, token ids out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, Protocol

# An admitted request that knows its mode goes first, so that it does not queue twice under load; one that has its
# reasoning goes before those, and finds its prefix still in the cache.
ANSWER_PRIORITY, GENERATE_PRIORITY, DECIDE_PRIORITY = -1, 0, 1


class EngineError(Exception):
    """The engine failed while it served one request; other requests may still succeed."""


class EngineDeadError(EngineError):
    """The engine is gone and will not serve again in this process."""


class RequestRefusedError(EngineError):
    """The engine cannot honour what the client asked for, such as a schema it cannot compile: a 400, not a 500."""


class EngineUnreachableError(EngineError):
    """The engine does not answer now; it may serve again later in the life of this process: a 503."""


class EngineTimeoutError(EngineError):
    """The engine took longer than it was given: a 504."""


class EngineOverloadedError(EngineError):
    """The engine has no room for the request now: a 503. `retry_after_s` is the engine's own advice, if it gave one."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StopReason(Enum):
    """Why the engine ended a sequence."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


@dataclass(frozen=True)
class Grammar:
    """What the text must match. `value` is a JSON schema, a regular expression or an EBNF grammar as text; for
    choice it is a JSON list of strings.
    """

    kind: Literal["json", "regex", "choice", "grammar"]
    value: str


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters; None means the checkpoint's own default (generation_config.json).

    `logprob_token_ids` asks for the raw log-probabilities (temperature 1, before bias and masks) of
    exactly these ids at every generated position; `top_logprobs` for those of the sampled id and of the
    most likely ones, 0 of the sampled one alone. `stop_token_ids` end the sequence beside the end of
    turn, and are part of it.
    """

    max_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    allowed_token_ids: tuple[int, ...] | None = None
    logprob_token_ids: tuple[int, ...] | None = None
    top_logprobs: int | None = None
    stop_token_ids: tuple[int, ...] = ()
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    grammar: Grammar | None = None


@dataclass(frozen=True)
class GenerationRequest:
    """One sequence to generate. A lower `priority` is served first.

    The calls of one client request share a `session_id`, so that engines behind a router find the same prefix cache.
    With `keep` the next call of the session goes on behind this prompt: an engine that can holds what it computed of
    it until then, or until it is told to release the session.
    """

    request_id: str
    prompt_ids: tuple[int, ...]
    sampling: Sampling
    priority: int = 0
    session_id: str | None = None
    keep: bool = False


@dataclass(frozen=True)
class TokenDelta:
    """Newly generated ids; `logprobs` has one map (token id -> log-probability) per id when asked for.

    The last delta of a sequence carries `stop_reason`; the stop token itself is among `token_ids`.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[dict[int, float], ...] | None = None
    stop_reason: StopReason | None = None


@dataclass(frozen=True)
class EngineInfo:
    """What the gateway tells its users about the engine.

    With `recovers`, an engine that is not healthy may serve again in the life of this process: the gateway waits for
    it. Without, it never will.
    """

    kind: str
    version: str
    max_model_len: int
    details: dict[str, str] = field(default_factory=dict)
    recovers: bool = False


class Engine(Protocol):
    """What the gateway asks of an engine; one contract suite checks every implementation."""

    @property
    def info(self) -> EngineInfo:
        """Kind, version and context length in tokens; valid after start()."""
        ...

    async def start(self) -> None:
        """Load the model; returns when the engine can serve. Raises EngineError."""
        ...

    def generate(self, request: GenerationRequest) -> AsyncGenerator[TokenDelta, None]:
        """Stream one sequence. Closing the generator early aborts the request in the engine.

        Raises EngineError (this request failed) or EngineDeadError (the engine is gone).
        """
        ...

    async def release(self, session_id: str) -> None:
        """Let go of what is held for the session, if anything is; never raises. Who says `keep` calls it in the end."""
        ...

    async def healthy(self) -> bool:
        """Tell whether the engine can serve now; never raises."""
        ...

    async def close(self) -> None:
        """Stop the engine and every process it started; idempotent."""
        ...
