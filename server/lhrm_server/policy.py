"""Who asked for which mode, and which mode runs: pure functions from wishes and P(think) to a decision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from lhrm_train.format import Mode, TagIds

from .engine import EngineError
from .errors import ContradictoryModeError, InvalidRequestError, ModelNotFoundError
from .settings import Settings

MODE_HEADER = "X-LHRM-Mode"


class Wish(Enum):
    """What a request asks for; AUTO leaves the choice to the model."""

    AUTO = "auto"
    THINK = "think"
    NO_THINK = "no_think"

    @property
    def mode(self) -> Mode | None:
        """The mode that is forced, None for AUTO."""
        return None if self is Wish.AUTO else Mode(self.value)


class Source(Enum):
    """Who decided: the model, the request, or the operator."""

    MODEL = "model"
    REQUEST = "request"
    POLICY = "policy"


@dataclass(frozen=True)
class BodyWish:
    """One body field that asks for a mode."""

    param: str
    wish: Wish


@dataclass(frozen=True)
class ModePlan:
    """How the mode of one request comes about; `threshold` counts when the wish is AUTO."""

    wish: Wish
    source: Source
    threshold: float


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


def plan_mode(
    body: Sequence[BodyWish], think_threshold: float | None, header: str | None, model: str, settings: Settings
) -> ModePlan:
    """Apply the precedence body field > header > model alias > server default.

    Raises ContradictoryModeError, ModelNotFoundError, and InvalidRequestError on an unknown header value.
    """
    alias = _alias_wish(model, settings)
    from_header = None if header is None else _header_wish(header)
    threshold = settings.think_threshold if think_threshold is None else think_threshold
    from_body = _body_wish(body, think_threshold)
    for wish in (from_body, from_header, alias):
        if wish is not None:
            return ModePlan(wish, Source.MODEL if wish is Wish.AUTO else Source.REQUEST, threshold)
    default = Wish(settings.default_mode)
    return ModePlan(default, Source.MODEL if default is Wish.AUTO else Source.POLICY, threshold)


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


def _alias_wish(model: str, settings: Settings) -> Wish | None:
    aliases = {
        settings.model_name: None,
        settings.think_alias: Wish.THINK,
        settings.no_think_alias: Wish.NO_THINK,
    }
    if model not in aliases:
        raise ModelNotFoundError(model, aliases)
    return aliases[model]


def _header_wish(value: str) -> Wish:
    try:
        return Wish(value.strip().lower())
    except ValueError:
        raise InvalidRequestError(
            f"Header {MODE_HEADER}={value[:100]!r}: expected auto, think or no_think.", param=MODE_HEADER
        ) from None


def _body_wish(body: Sequence[BodyWish], think_threshold: float | None) -> Wish | None:
    wishes = list(body)
    if think_threshold is not None:
        wishes.append(BodyWish("think_threshold", Wish.AUTO))
    if not wishes:
        return None
    other = next((wish for wish in wishes if wish.wish is not wishes[0].wish), None)
    if other is not None:
        raise ContradictoryModeError((wishes[0].param, other.param))
    return wishes[0].wish
