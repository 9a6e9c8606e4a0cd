"""What became of one admitted request: its UsageRecord, with one ChoiceRecord per choice, and the savings estimate."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from lhrm_train.format import Mode, SavingsCalibration

from .control import Wish
from .policy import ModeDecision, Source


class Ending(Enum):
    """Why a completion ended."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    ABORT = "abort"
    ERROR = "error"


class ReasoningEnding(Enum):
    """Why the reasoning ended: closed by the model or at its budget, or by whatever ended the completion within it."""

    MODEL = "model"
    BUDGET = "budget"
    LENGTH = "length"
    EOS = "eos"
    ABORT = "abort"
    ERROR = "error"


class Failure(Enum):
    """Why a request that was admitted failed."""

    REFUSED = "refused"
    REQUEST = "request_failed"
    ENGINE_DEAD = "engine_dead"
    ENGINE_UNREACHABLE = "engine_unreachable"
    ENGINE_TIMEOUT = "engine_timeout"
    ENGINE_OVERLOADED = "engine_overloaded"
    INTERNAL = "internal"


@dataclass(frozen=True)
class TokenCounts:
    """Ids by kind, summed over the choices; the prompt counts once, and the opening tag is among its ids."""

    prompt: int
    reasoning: int = 0
    answer: int = 0
    overhead: int = 0
    decide: int = 0

    @property
    def completion(self) -> int:
        """Ids that the generate calls returned, and closing tags that the gateway put in."""
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
    n: int = 1


@dataclass(frozen=True)
class ChoiceRecord:
    """What became of one choice; its counts are ids.

    `answer_missing` says why there is no answer, None where there is one or the choice was not completed.
    `answer_retried` tells that the model ended its turn within the reasoning, and was asked again in no-think mode.
    """

    index: int
    reasoning: int
    answer: int
    overhead: int
    ended_by: Ending
    reasoning_ended_by: ReasoningEnding | None = None
    answer_missing: str | None = None
    answer_retried: bool = False
    stop_string: str | None = None
    anomalies: tuple[str, ...] = ()

    @property
    def completion(self) -> int:
        """All ids of the choice."""
        return self.reasoning + self.answer + self.overhead


@dataclass(frozen=True)
class UsageRecord:
    """The one record of an admitted request.

    `decision` is None, and there are no choices, when the request ended before it. A request that finished ended as
    its first choice did. `anomalies` are those of the decision and of all choices.
    """

    facts: RequestFacts
    decision: ModeDecision | None
    counts: TokenCounts
    latency: Latency
    ended_by: Ending
    choices: tuple[ChoiceRecord, ...]
    anomalies: tuple[str, ...]
    failure: Failure | None
    savings: Savings | None

    @property
    def reasoning_ended_by(self) -> ReasoningEnding | None:
        """How the reasoning of the first choice ended."""
        return self.choices[0].reasoning_ended_by if self.choices else None

    @property
    def answer_missing(self) -> str | None:
        """Why the first choice has no answer."""
        return self.choices[0].answer_missing if self.choices else None


def estimate_savings(
    decision: ModeDecision,
    counts: TokenCounts,
    facts: RequestFacts,
    budget: int | None,
    calibration: SavingsCalibration | None,
) -> Savings | None:
    """Estimate what always-think would have cost more. None when the model did not choose, or nothing is known.

    The always-think answer would have had the same `max_tokens`, and at most `budget` tokens of reasoning in front
    of an answer as long as this one, so that no baseline goes beyond either. Calibration measured single
    completions: of several choices without thinking nothing is claimed.
    """
    if decision.source is not Source.MODEL or decision.p_think is None:
        return None
    made = counts.completion
    if decision.mode is Mode.THINK:
        # The model ran what always-think runs: the saving is 0 by definition, not by estimate.
        return Savings(0, (0, 0), 1.0, 0, "definition", "observed", float(made))
    if facts.n > 1:
        return None
    limit = facts.max_tokens if budget is None else min(facts.max_tokens, budget + made)
    # Calibration measures prompts up to where the model decides; here the opening tag is among the prompt's ids.
    found = None if calibration is None else calibration.lookup(decision.p_think, counts.prompt - 1)
    if calibration is None or found is None:
        return None
    mean, low, high = (min(value, limit) for value in (found.think_mean, found.think_low, found.think_high))
    interval = (round(low) - made, round(high) - made)
    return Savings(round(mean) - made, interval, calibration.confidence, found.n, "calibration", "modelled", mean)
