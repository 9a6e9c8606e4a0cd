"""Takes down one request while it runs: a Meter with one ChoiceMeter per choice."""

from __future__ import annotations

import time
from collections.abc import Callable

from lhrm_train.format import Mode, SavingsCalibration

from .accounting import (
    ChoiceRecord,
    Ending,
    Failure,
    Latency,
    ReasoningEnding,
    RequestFacts,
    Savings,
    TokenCounts,
    UsageRecord,
    estimate_savings,
)
from .answer_filter import AnswerFilter
from .answer_plan import AnswerPlan
from .engine import (
    EngineDeadError,
    EngineError,
    EngineOverloadedError,
    EngineTimeoutError,
    EngineUnreachableError,
    RequestRefusedError,
    StopReason,
)
from .parser import AnswerParser, anomalies
from .policy import ModeDecision


class ChoiceMeter:
    """Takes down one choice; its record is made once and for all."""

    def __init__(
        self, index: int, mode: Mode, parser: AnswerParser, answer_filter: AnswerFilter | None, plan: AnswerPlan
    ) -> None:
        self._index = index
        self._mode = mode
        self._parsers = [parser]
        self._filter = answer_filter
        self._plan = plan
        self._record: ChoiceRecord | None = None
        self._forced = False

    def closed_by_force(self) -> None:
        """Note that the gateway closed the reasoning, at its budget."""
        self._forced = True

    def retried(self, parser: AnswerParser) -> None:
        """Note that the answer is asked for again in no-think mode; `parser` takes it."""
        self._parsers.append(parser)

    def finish(self, reason: StopReason) -> ChoiceRecord:
        """Make the record of a choice that the engine, or a stop string, ended."""
        return self.close(self._ending(reason))

    def close(self, ended_by: Ending) -> ChoiceRecord:
        """Return the record, made now unless it was."""
        if self._record is None:
            for parser in self._parsers:
                parser.finish()
            complete = ended_by not in (Ending.ABORT, Ending.ERROR)
            self._record = ChoiceRecord(
                index=self._index,
                reasoning=sum(parser.reasoning_tokens for parser in self._parsers),
                answer=sum(parser.answer_tokens for parser in self._parsers),
                overhead=sum(parser.overhead_tokens for parser in self._parsers),
                ended_by=ended_by,
                reasoning_ended_by=self._reasoning_ending(ended_by),
                answer_missing=self._answer_missing(ended_by) if complete else None,
                answer_retried=self._was_retried,
                stop_string=self._stopped,
                anomalies=self._anomalies(ended_by) if complete else (),
            )
        return self._record

    @property
    def _was_retried(self) -> bool:
        return len(self._parsers) > 1

    @property
    def _stopped(self) -> str | None:
        return None if self._filter is None else self._filter.stopped

    def _ending(self, reason: StopReason) -> Ending:
        if self._stopped is not None:
            return Ending.STOP
        if reason is StopReason.LENGTH:
            return Ending.LENGTH
        reader = None if self._filter is None else self._filter.reader
        # A call that the client itself asked for by name ends like an answer, as OpenAI has it.
        asked = self._plan.tools is not None and self._plan.tools.kind == "named"
        return Ending.TOOL_CALLS if reader is not None and reader.calls and not asked else Ending.STOP

    def _reasoning_ending(self, ended_by: Ending) -> ReasoningEnding | None:
        if self._mode is Mode.NO_THINK:
            return None
        if self._parsers[0].reasoning_closed:
            return ReasoningEnding.BUDGET if self._forced else ReasoningEnding.MODEL
        if self._was_retried or ended_by is Ending.STOP:
            return ReasoningEnding.EOS
        return ReasoningEnding(ended_by.value)

    def _answer_missing(self, ended_by: Ending) -> str | None:
        if any(parser.has_answer for parser in self._parsers):
            return None
        if ended_by is Ending.LENGTH:
            return "length"
        if self._stopped is not None:
            return "stop"
        in_reasoning = self._reasoning_ending(ended_by) is ReasoningEnding.EOS and not self._was_retried
        return "eos" if in_reasoning else "empty"

    def _anomalies(self, ended_by: Ending) -> tuple[str, ...]:
        natural = ended_by is not Ending.LENGTH and self._stopped is None
        found: list[str] = []
        for place, parser in enumerate(self._parsers):
            # A grammar leaves no room for the closing tag of a no-think answer.
            free = self._plan.grammar is None or (self._mode is Mode.THINK and place == 0)
            # What was asked again had stopped, however the second try ended.
            stopped = natural or place < len(self._parsers) - 1
            found += anomalies(parser, stopped=stopped and free)
        reader = None if self._filter is None else self._filter.reader
        if reader is not None and (reader.malformed or (reader.unfinished and natural)):
            found.append("malformed_tool_call")
        return tuple(dict.fromkeys(found))


class Meter:
    """Takes down one request; `close` gives the record, once and for all. `budget` is in reasoning tokens."""

    def __init__(
        self,
        facts: RequestFacts,
        calibration: SavingsCalibration | None,
        budget: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._facts = facts
        self._calibration = calibration
        self._budget = budget
        self._clock = clock
        self._queue_ms: float | None = None
        self._decide_ms: float | None = None
        self._first_token_ms: float | None = None
        self._first_answer_ms: float | None = None
        self._decision: ModeDecision | None = None
        self._decide_tokens = 0
        self._choices: list[ChoiceMeter] = []
        self._record: UsageRecord | None = None

    def engine_called(self) -> None:
        """Note that the request's first engine call begins."""
        if self._queue_ms is None:
            self._queue_ms = self._elapsed_ms()

    def decide_ended(self, tokens: int) -> None:
        """Note that the decide call is over and gave `tokens` ids."""
        self._decide_ms = self._elapsed_ms() - (self._queue_ms or 0.0)
        self._decide_tokens = tokens

    def decided(self, decision: ModeDecision) -> None:
        """Note the mode."""
        self._decision = decision

    def choice(self, meter: ChoiceMeter) -> None:
        """Note a choice that begins; choices come in the order of their index."""
        self._choices.append(meter)

    def tokens_came(self, *, answering: bool) -> None:
        """Note that ids came from generate and were parsed, and whether ids of an answer have come by now."""
        if self._first_token_ms is None:
            self._first_token_ms = self._elapsed_ms()
        if answering and self._first_answer_ms is None:
            self._first_answer_ms = self._elapsed_ms()

    def latency(self) -> Latency:
        """Return the timings as far as they are known now."""
        return Latency(self._queue_ms, self._decide_ms, self._first_token_ms, self._first_answer_ms, self._elapsed_ms())

    def finish(self) -> UsageRecord:
        """Close the record of a request whose choices have all finished."""
        choices = tuple(choice.close(Ending.ERROR) for choice in self._choices)
        return self._close(choices[0].ended_by, None, choices)

    def close(self, exc: BaseException | None = None) -> UsageRecord:
        """Return the record; `exc` is why the request ended, if it did not finish."""
        if self._record is not None:
            return self._record
        # Cancellation and a closed generator are no Exception: somebody stopped waiting for the answer.
        ended_by = Ending.ERROR if isinstance(exc, Exception) else Ending.ABORT
        choices = tuple(choice.close(ended_by) for choice in self._choices)
        return self._close(ended_by, _failure(exc), choices)

    def _elapsed_ms(self) -> float:
        return (self._clock() - self._facts.arrived_s) * 1000

    def _close(self, ended_by: Ending, failure: Failure | None, choices: tuple[ChoiceRecord, ...]) -> UsageRecord:
        complete = ended_by not in (Ending.ABORT, Ending.ERROR)
        counts = TokenCounts(
            prompt=self._facts.prompt_tokens,
            reasoning=sum(choice.reasoning for choice in choices),
            answer=sum(choice.answer for choice in choices),
            overhead=sum(choice.overhead for choice in choices),
            decide=self._decide_tokens,
        )
        mass = None if self._decision is None else self._decision.tag_mass
        missed = ("no_mode_token",) if complete and mass is not None and mass < 0.5 else ()
        self._record = UsageRecord(
            facts=self._facts,
            decision=self._decision,
            counts=counts,
            latency=self.latency(),
            ended_by=ended_by,
            choices=choices,
            anomalies=missed + tuple(kind for choice in choices for kind in choice.anomalies),
            failure=failure,
            savings=self._savings(counts) if complete else None,
        )
        return self._record

    def _savings(self, counts: TokenCounts) -> Savings | None:
        if self._decision is None:
            return None
        return estimate_savings(self._decision, counts, self._facts, self._budget, self._calibration)


FAILURES = (
    (RequestRefusedError, Failure.REFUSED),
    (EngineDeadError, Failure.ENGINE_DEAD),
    (EngineUnreachableError, Failure.ENGINE_UNREACHABLE),
    (EngineTimeoutError, Failure.ENGINE_TIMEOUT),
    (EngineOverloadedError, Failure.ENGINE_OVERLOADED),
    (EngineError, Failure.REQUEST),
)
"""Why a request failed, by the first kind of error that fits."""


def _failure(exc: BaseException | None) -> Failure | None:
    if not isinstance(exc, Exception):
        return None
    return next((failure for kind, failure in FAILURES if isinstance(exc, kind)), Failure.INTERNAL)
