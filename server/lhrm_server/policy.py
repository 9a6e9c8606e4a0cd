"""Who asked for which mode, and which mode runs: pure functions from asks and P(think) to a decision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from lhrm_train.format import Mode, TagIds

from .control import EFFORT_LEVELS, LARGEST_BUDGET, UNLIMITED, Ask, Wish, agreed
from .engine import EngineError
from .errors import ContradictionError, InvalidRequestError, ModeNotAllowedError
from .setting_checks import require

MODE_HEADER = "X-LHRM-Mode"
FORCE_HEADER = "X-LHRM-Force"


class Source(Enum):
    """Who decided: the model, the request, or the operator."""

    MODEL = "model"
    REQUEST = "request"
    POLICY = "policy"


@dataclass(frozen=True)
class ModePolicy:
    """What the operator lays down about modes; all sizes are in tokens.

    `allowed_modes` are those that requests may ask for. `effort_budgets` gives effort levels a reasoning budget.
    `max_reasoning_tokens` caps every budget, 0 not at all. `answer_reserve` is kept of a request's max_tokens for
    the answer. With `retry_unanswered` reasoning that ends the turn is followed by an answer without reasoning.
    Raises SettingsError.
    """

    default_mode: Wish = Wish.AUTO
    think_threshold: float = 0.5
    allowed_modes: tuple[Wish, ...] = tuple(Wish)
    effort_budgets: Mapping[str, int] = field(default_factory=dict)
    max_reasoning_tokens: int = 0
    answer_reserve: int = 0
    retry_unanswered: bool = False

    def __post_init__(self) -> None:
        allowed = [wish.value for wish in self.allowed_modes]
        require(bool(allowed), "allowed_modes", allowed, "at least one mode")
        default = self.default_mode
        require(default in self.allowed_modes, "default_mode", default.value, f"one of allowed_modes={allowed}")
        require(0 <= self.think_threshold <= 1, "think_threshold", self.think_threshold, "0 to 1")
        for level, tokens in self.effort_budgets.items():
            require(level in EFFORT_LEVELS, "effort_budgets", level, f"levels out of {', '.join(EFFORT_LEVELS)}")
            require(1 <= tokens <= LARGEST_BUDGET, f"effort_budgets.{level}", tokens, "1 or more tokens")
        for name in ("max_reasoning_tokens", "answer_reserve"):
            require(0 <= getattr(self, name) <= LARGEST_BUDGET, name, getattr(self, name), "0 or more tokens")
        object.__setattr__(self, "effort_budgets", MappingProxyType(dict(self.effort_budgets)))

    def capped(self, budget: int | None) -> int | None:
        """Return a budget (None: no limit) under the operator's cap."""
        if self.max_reasoning_tokens == 0:
            return budget
        return self.max_reasoning_tokens if budget is None else min(budget, self.max_reasoning_tokens)


@dataclass(frozen=True)
class Wanted:
    """What one request says about its mode, by place; `forced` is the operator's word, `alias` the model name's."""

    asks: Sequence[Ask] = ()
    think_threshold: float | None = None
    header: Wish | None = None
    alias: Wish | None = None
    forced: Mode | None = None


@dataclass(frozen=True)
class ModePlan:
    """How the mode of one request comes about; `threshold` counts when the wish is AUTO.

    `budget` limits the reasoning tokens, None does not; `answer_reserve` tokens of max_tokens are for the answer.
    """

    wish: Wish
    source: Source
    threshold: float
    budget: int | None = None
    answer_reserve: int = 0
    retry_unanswered: bool = False


@dataclass(frozen=True)
class TagProbabilities:
    """P(think) among the two opening tags, and the probability of both together."""

    p_think: float
    tag_mass: float


@dataclass(frozen=True)
class ModeDecision:
    """The mode that runs, who decided it and on what grounds; no decide call, no grounds."""

    mode: Mode
    source: Source
    p_think: float | None = None
    threshold: float | None = None
    tag_mass: float | None = None


def plan_mode(wanted: Wanted, policy: ModePolicy) -> ModePlan:
    """Apply the precedence operator's force > body field > header > model alias > server default.

    Raises ContradictionError on body fields that disagree, whatever decides in the end, and ModeNotAllowedError.
    """
    asks = list(wanted.asks)
    if wanted.think_threshold is not None:
        asks.append(Ask("think_threshold", wish=Wish.AUTO))
    by_body, budget = agreed(asks, "wish", "mode"), _budget(asks, policy)
    if wanted.forced is not None:
        wish, source = Wish(wanted.forced.value), Source.POLICY
    else:
        wish, source = _asked(wanted, by_body, policy) or (policy.default_mode, Source.POLICY)
    return ModePlan(
        wish=wish,
        source=Source.MODEL if wish is Wish.AUTO else source,
        threshold=policy.think_threshold if wanted.think_threshold is None else wanted.think_threshold,
        budget=None if wish is Wish.NO_THINK else policy.capped(budget),
        answer_reserve=policy.answer_reserve,
        retry_unanswered=policy.retry_unanswered,
    )


def _asked(wanted: Wanted, by_body: Ask | None, policy: ModePolicy) -> tuple[Wish, Source] | None:
    """Return the mode that the request asks for, None where it asks for none."""
    places = (
        (by_body.param if by_body else "", by_body.wish if by_body else None),
        (MODE_HEADER, wanted.header),
        ("model", wanted.alias),
    )
    param, wish = next(((param, wish) for param, wish in places if wish is not None), ("", None))
    if wish is None:
        return None
    needed = [wish]
    if wanted.think_threshold is not None:
        # The dial goes all the way to always and never, so whoever may not ask for these may not turn it.
        needed += [Wish.THINK, Wish.NO_THINK]
    for each in needed:
        if each not in policy.allowed_modes:
            place = param if each is wish else "think_threshold"
            raise ModeNotAllowedError(place, each.value, [mode.value for mode in policy.allowed_modes])
    return wish, Source.REQUEST


def _budget(asks: Sequence[Ask], policy: ModePolicy) -> int | None:
    """Return the reasoning budget that the request asks for, by tokens or by effort."""
    effort, explicit = agreed(asks, "effort", "effort"), agreed(asks, "budget", "budget")
    by_effort = policy.effort_budgets.get(effort.effort) if effort and effort.effort else None
    if effort and explicit and by_effort is not None:
        raise ContradictionError("budget", (effort.param, explicit.param))
    budget = explicit.budget if explicit else by_effort
    return None if budget == UNLIMITED else budget


def parse_mode_header(value: str) -> Wish:
    """Return what the header asks for. Raises InvalidRequestError naming it."""
    try:
        return Wish(value.strip().lower())
    except ValueError:
        raise _bad_header(MODE_HEADER, value, "auto, think or no_think") from None


def parse_force_header(value: str) -> Mode:
    """Return the mode that an operator forces. Raises InvalidRequestError naming the header."""
    try:
        return Mode(value.strip().lower())
    except ValueError:
        raise _bad_header(FORCE_HEADER, value, "think or no_think") from None


def _bad_header(name: str, value: str, expected: str) -> InvalidRequestError:
    return InvalidRequestError(f"Header {name}={value[:100]!r}: expected {expected}.", param=name)


def choose_mode(plan: ModePlan, tags: TagProbabilities | None) -> ModeDecision:
    """Return the decision: the forced mode, else think iff P(think) reaches the threshold (0 always, 1 never)."""
    forced = plan.wish.mode
    if forced is not None:
        return ModeDecision(forced, plan.source)
    if tags is None:
        raise ValueError("plan.wish=AUTO needs the probabilities of the tags")
    thinks = plan.threshold < 1 and tags.p_think >= plan.threshold
    mode = Mode.THINK if thinks else Mode.NO_THINK
    return ModeDecision(mode, plan.source, tags.p_think, plan.threshold, tags.tag_mass)


def tag_probabilities(logprobs: Mapping[int, float], tags: TagIds) -> TagProbabilities:
    """Renormalise the raw log-probabilities of the two opening tags. Raises EngineError when they say nothing."""
    think, no_think = logprobs.get(tags.think, math.nan), logprobs.get(tags.no_think, math.nan)
    top = max(think, no_think)
    if math.isnan(think) or math.isnan(no_think) or not math.isfinite(top):
        raise EngineError(f"decide call gave log-probabilities think={think}, no_think={no_think}")
    think_part, no_think_part = math.exp(think - top), math.exp(no_think - top)
    mass = min(1.0, math.exp(think) + math.exp(no_think))
    return TagProbabilities(think_part / (think_part + no_think_part), mass)
