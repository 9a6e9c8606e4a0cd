"""What became of one admitted request: its UsageRecord, taken down by a Meter, and the savings estimate."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from lhrm_train.format import Mode, SavingsCalibration

from .control import Wish
from .engine import EngineDeadError, EngineError, StopReason
from .parser import AnswerParser, anomalies
from .policy import ModeDecision, Source


class Ending(Enum):
    """Why a completion ended."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"


class ReasoningEnding(Enum):
    """Why the reasoning ended: closed by the model, or by whatever ended the completion within it."""

    MODEL = "model"
    LENGTH = "length"
    EOS = "eos"
    ABORT = "abort"
    ERROR = "error"


class Failure(Enum):
    """Why a request that was admitted failed."""

    REQUEST = "request_failed"
    ENGINE_DEAD = "engine_dead"
    INTERNAL = "internal"


@dataclass(frozen=True)
class TokenCounts:
    """Ids by kind; the opening tag is among the prompt's."""

    prompt: int
    reasoning: int = 0
    answer: int = 0
    overhead: int = 0
    decide: int = 0

    @property
    def completion(self) -> int:
        """Ids that the generate call returned."""
        return self.reasoning + self.answer + self.overhead


@dataclass(frozen=True)
class Latency:
    """Milliseconds since the request arrived; `decide_ms` is a duration. None: that point was not reached."""

    queue_ms: float | None
    decide_ms: float | None
    first_token_ms: float | None
    first_answer_token_ms: float | None
    total_ms: float


@dataclass(frozen=True)
class Savings:
    """Estimated completion tokens of always-think minus those made; negative when thinking was cheaper."""

    tokens: int
    interval: tuple[int, int]
    confidence: float
    n: int
    method: str
    provenance: str
    baseline_tokens: float


@dataclass(frozen=True)
class RequestFacts:
    """What is known of a request when it is admitted; `arrived_s` is on the monotonic clock."""

    request_id: str
    completion_id: str
    model: str
    stream: bool
    wish: Wish
    prompt_tokens: int
    max_tokens: int
    arrived_s: float


@dataclass(frozen=True)
class UsageRecord:
    """The one record of an admitted request. `decision` is None when the request ended before it."""

    facts: RequestFacts
    decision: ModeDecision | None
    counts: TokenCounts
    latency: Latency
    ended_by: Ending
    reasoning_ended_by: ReasoningEnding | None
    answer_missing: str | None
    anomalies: tuple[str, ...]
    failure: Failure | None
    savings: Savings | None


class Meter:
    """Takes down one request while it runs; `close` gives the record, once and for all."""

    def __init__(
        self, facts: RequestFacts, calibration: SavingsCalibration | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._facts = facts
        self._calibration = calibration
        self._clock = clock
        self._queue_ms: float | None = None
        self._decide_ms: float | None = None
        self._first_token_ms: float | None = None
        self._first_answer_ms: float | None = None
        self._decision: ModeDecision | None = None
        self._decide_tokens = 0
        self._parser: AnswerParser | None = None
        self._record: UsageRecord | None = None

    def engine_called(self) -> None:
        """Note that the request's first engine call begins."""
        if self._queue_ms is None:
            self._queue_ms = self._elapsed_ms()

    def decide_ended(self, tokens: int) -> None:
        """Note that the decide call is over and gave `tokens` ids."""
        self._decide_ms = self._elapsed_ms() - (self._queue_ms or 0.0)
        self._decide_tokens = tokens

    def decided(self, decision: ModeDecision, parser: AnswerParser) -> None:
        """Note the mode, and the parser whose counts are the record's."""
        self._decision, self._parser = decision, parser

    def tokens_came(self) -> None:
        """Note that ids came from generate and that the parser has taken them."""
        if self._first_token_ms is None:
            self._first_token_ms = self._elapsed_ms()
        if self._first_answer_ms is None and self._parser is not None and self._parser.answer_tokens:
            self._first_answer_ms = self._elapsed_ms()

    def latency(self) -> Latency:
        """Return the timings as far as they are known now."""
        return Latency(self._queue_ms, self._decide_ms, self._first_token_ms, self._first_answer_ms, self._elapsed_ms())

    def finish(self, reason: StopReason) -> UsageRecord:
        """Close the record of a completion that the engine ended."""
        return self._close(Ending.LENGTH if reason is StopReason.LENGTH else Ending.STOP, None)

    def close(self, exc: BaseException | None = None) -> UsageRecord:
        """Return the record; `exc` is why the request ended, if it did not finish."""
        if self._record is not None:
            return self._record
        # Cancellation and a closed generator are no Exception: somebody stopped waiting for the answer.
        if not isinstance(exc, Exception):
            return self._close(Ending.ABORT, None)
        if isinstance(exc, EngineError):
            dead = isinstance(exc, EngineDeadError)
            return self._close(Ending.ERROR, Failure.ENGINE_DEAD if dead else Failure.REQUEST)
        return self._close(Ending.ERROR, Failure.INTERNAL)

    def _elapsed_ms(self) -> float:
        return (self._clock() - self._facts.arrived_s) * 1000

    def _close(self, ended_by: Ending, failure: Failure | None) -> UsageRecord:
        if self._parser is not None:
            self._parser.finish()
        complete = ended_by in (Ending.STOP, Ending.LENGTH)
        counts = self._counts()
        self._record = UsageRecord(
            facts=self._facts,
            decision=self._decision,
            counts=counts,
            latency=self.latency(),
            ended_by=ended_by,
            reasoning_ended_by=self._reasoning_ending(ended_by),
            answer_missing=self._answer_missing(ended_by) if complete else None,
            anomalies=self._anomalies(ended_by) if complete else (),
            failure=failure,
            savings=self._savings(counts) if complete else None,
        )
        return self._record

    def _counts(self) -> TokenCounts:
        parser = self._parser
        if parser is None:
            return TokenCounts(self._facts.prompt_tokens, decide=self._decide_tokens)
        return TokenCounts(
            prompt=self._facts.prompt_tokens,
            reasoning=parser.reasoning_tokens,
            answer=parser.answer_tokens,
            overhead=parser.overhead_tokens,
            decide=self._decide_tokens,
        )

    def _reasoning_ending(self, ended_by: Ending) -> ReasoningEnding | None:
        if self._decision is None or self._parser is None or self._decision.mode is Mode.NO_THINK:
            return None
        if self._parser.reasoning_closed:
            return ReasoningEnding.MODEL
        return ReasoningEnding.EOS if ended_by is Ending.STOP else ReasoningEnding(ended_by.value)

    def _answer_missing(self, ended_by: Ending) -> str | None:
        if self._parser is None or self._parser.has_answer:
            return None
        ending = self._reasoning_ending(ended_by)
        if ended_by is Ending.LENGTH:
            return "length"
        return "eos" if ending is ReasoningEnding.EOS else "empty"

    def _anomalies(self, ended_by: Ending) -> tuple[str, ...]:
        mass = None if self._decision is None else self._decision.tag_mass
        missed = ("no_mode_token",) if mass is not None and mass < 0.5 else ()
        found = () if self._parser is None else anomalies(self._parser, stopped=ended_by is Ending.STOP)
        return missed + found

    def _savings(self, counts: TokenCounts) -> Savings | None:
        if self._decision is None:
            return None
        return estimate_savings(self._decision, counts, self._facts.max_tokens, self._calibration)


def estimate_savings(
    decision: ModeDecision, counts: TokenCounts, max_tokens: int, calibration: SavingsCalibration | None
) -> Savings | None:
    """Estimate what always-think would have cost more. None when the model did not choose, or nothing is known.

    The always-think answer would have had the same `max_tokens`, so that no baseline goes beyond it.
    """
    if decision.source is not Source.MODEL or decision.p_think is None:
        return None
    made = counts.completion
    if decision.mode is Mode.THINK:
        # The model ran what always-think runs: the saving is 0 by definition, not by estimate.
        return Savings(0, (0, 0), 1.0, 0, "definition", "observed", float(made))
    # Calibration measures prompts up to where the model decides; here the opening tag is among the prompt's ids.
    found = None if calibration is None else calibration.lookup(decision.p_think, counts.prompt - 1)
    if calibration is None or found is None:
        return None
    mean, low, high = (min(value, max_tokens) for value in (found.think_mean, found.think_low, found.think_high))
    interval = (round(low) - made, round(high) - made)
    return Savings(round(mean) - made, interval, calibration.confidence, found.n, "calibration", "modelled", mean)
