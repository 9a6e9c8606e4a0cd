"""What the body fields of a request ask about thinking: every spelling that clients use, as one kind of object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType

from lhrm_train.format import Mode

from .checks import Check, boolean, integer, one_of, only, record
from .errors import ContradictionError

UNLIMITED = -1
LARGEST_BUDGET = 2**31 - 1


class Wish(Enum):
    """Which mode a request asks for; AUTO leaves the choice to the model."""

    AUTO = "auto"
    THINK = "think"
    NO_THINK = "no_think"

    @property
    def mode(self) -> Mode | None:
        """The mode that is forced, None for AUTO."""
        return None if self is Wish.AUTO else Mode(self.value)


class Shown(Enum):
    """Where reasoning text goes: its own field, nowhere, or into the content with its tags."""

    SEPARATE = "separate"
    HIDDEN = "hidden"
    INLINE = "inline"


@dataclass(frozen=True)
class Ask:
    """What one field, named by `param`, asks for; None where it says nothing.

    `budget` is in reasoning tokens, UNLIMITED where the field says that there is no limit.
    """

    param: str
    wish: Wish | None = None
    effort: str | None = None
    budget: int | None = None
    hidden: bool | None = None
    inline: bool | None = None


Asks = tuple[Ask, ...]
EFFORT_LEVELS = ("minimal", "low", "medium", "high", "xhigh", "max")
EFFORTS: Mapping[str, Wish] = MappingProxyType(
    {"auto": Wish.AUTO, "none": Wish.NO_THINK} | dict.fromkeys(EFFORT_LEVELS, Wish.THINK)
)
THINKING_TYPES: Mapping[str, Wish] = MappingProxyType(
    {"enabled": Wish.THINK, "disabled": Wish.NO_THINK, "adaptive": Wish.AUTO, "auto": Wish.AUTO}
)


def _capped(param: str, tokens: int) -> Ask:
    """Return what a budget that only limits asks for; 0 leaves no room to think."""
    return Ask(param, wish=Wish.NO_THINK if tokens == 0 else None, budget=tokens)


def _budgeted(param: str, tokens: int) -> Ask:
    """Return what a budget that also asks to think asks for."""
    return Ask(param, wish=Wish.NO_THINK if tokens == 0 else Wish.THINK, budget=tokens)


def _alone(check: Check[Ask]) -> Check[Asks]:
    return check.then(lambda _, ask: (ask,))


def _members(checks: Mapping[str, Check[Ask]]) -> Check[Asks]:
    return record(checks).then(lambda _, members: tuple(members.values()))


def _reasoning_of(param: str, asks: Asks) -> Asks:
    named = {ask.param.removeprefix(f"{param}.") for ask in asks}
    if {"effort", "max_tokens"} <= named:
        raise ContradictionError("budget", (f"{param}.effort", f"{param}.max_tokens"))
    return asks


def _thinking_of(_: str, asks: Asks) -> Asks:
    if any(ask.wish is Wish.AUTO for ask in asks):
        # With "adaptive" a budget only limits: whether to think stays with the model.
        return tuple(replace(ask, wish=None) if ask.wish is Wish.THINK else ask for ask in asks)
    return asks


_tokens = integer(UNLIMITED, LARGEST_BUDGET)
_switch = boolean.then(lambda param, on: Ask(param, wish=Wish.THINK if on else Wish.NO_THINK))
_cap = _tokens.then(_capped)
_budget = _tokens.then(_budgeted)
_effort = one_of(tuple(EFFORTS)).then(
    lambda param, effort: Ask(param, wish=EFFORTS[effort], effort=effort if effort in EFFORT_LEVELS else None)
)
_type = one_of(tuple(THINKING_TYPES)).then(lambda param, kind: Ask(param, wish=THINKING_TYPES[kind]))
# The reasoning itself is given, which is all that "auto" asks for.
_summary = only("auto", "this server gives the reasoning as it is, not a summary; only auto is taken.").then(
    lambda param, _: Ask(param)
)
_display = only("omitted", "only omitted is taken; without it the whole reasoning is shown.").then(
    lambda param, _: Ask(param, hidden=True)
)

MODE_FIELDS: Mapping[str, Check[Asks]] = MappingProxyType(
    {
        "reasoning_effort": _alone(_effort),
        "reasoning": _members(
            {
                "effort": _effort,
                "max_tokens": _budget,
                "enabled": _switch,
                "exclude": boolean.then(lambda param, on: Ask(param, hidden=on)),
                "summary": _summary,
                "generate_summary": _summary,
            }
        ).then(_reasoning_of),
        "thinking": _members({"type": _type, "budget_tokens": _budget, "display": _display}).then(_thinking_of),
        "chat_template_kwargs": _members({"enable_thinking": _switch, "thinking": _switch}),
        "enable_thinking": _alone(_switch),
        "thinking_budget": _alone(_cap),
        "thinking_token_budget": _alone(_cap),
        "thinking_budget_tokens": _alone(_cap),
        "nvext": _members({"max_thinking_tokens": _cap}),
        "include_reasoning": _alone(boolean.then(lambda param, on: Ask(param, hidden=not on))),
        "separate_reasoning": _alone(boolean.then(lambda param, on: Ask(param, inline=not on))),
    }
)
"""Checks by field name; each returns what the field asks for."""


def agreed(asks: Sequence[Ask], attribute: str, what: str) -> Ask | None:
    """Return the first ask that says something about `attribute`; None where none does.

    Raises ContradictionError naming two fields that say different things; `what` is what the reader calls it.
    """
    saying = [ask for ask in asks if getattr(ask, attribute) is not None]
    for ask in saying[1:]:
        if getattr(ask, attribute) != getattr(saying[0], attribute):
            raise ContradictionError(what, (saying[0].param, ask.param))
    return saying[0] if saying else None


def visibility(asks: Sequence[Ask]) -> tuple[Shown, str | None]:
    """Return where the reasoning goes, and the field that says so unless it is the default.

    Raises ContradictionError.
    """
    hidden, inline = agreed(asks, "hidden", "visibility"), agreed(asks, "inline", "visibility")
    if hidden and hidden.hidden and inline and inline.inline:
        raise ContradictionError("visibility", (hidden.param, inline.param))
    if hidden and hidden.hidden:
        return Shown.HIDDEN, hidden.param
    if inline and inline.inline:
        return Shown.INLINE, inline.param
    return Shown.SEPARATE, None
