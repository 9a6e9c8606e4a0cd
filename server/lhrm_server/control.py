"""What the body fields of a request ask about thinking: every spelling that clients use, as one kind of object."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from .checks import Check, boolean, integer, text, wrong_type
from .errors import InvalidRequestError, UnsupportedParameterError

UNLIMITED = -1
LARGEST_BUDGET = 2**31 - 1


class Wish(Enum):
    """Which mode a request asks for; AUTO leaves the choice to the model."""

    AUTO = "auto"
    THINK = "think"
    NO_THINK = "no_think"


class Shown(Enum):
    """Where reasoning text goes: its own field, nowhere, or into the content with its tags."""

    SEPARATE = "separate"
    HIDDEN = "hidden"
    INLINE = "inline"


@dataclass(frozen=True)
class Ask:
    """What one field, named by `param`, asks for; None where it says nothing. `budget` is in reasoning tokens."""

    param: str
    wish: Wish | None = None
    effort: str | None = None
    budget: int | None = None
    shown: Shown | None = None


EFFORT_LEVELS = ("minimal", "low", "medium", "high", "xhigh", "max")
EFFORTS: Mapping[str, Wish] = MappingProxyType(
    {"auto": Wish.AUTO, "none": Wish.NO_THINK} | dict.fromkeys(EFFORT_LEVELS, Wish.THINK)
)
THINKING_TYPES: Mapping[str, Wish] = MappingProxyType(
    {"enabled": Wish.THINK, "disabled": Wish.NO_THINK, "adaptive": Wish.AUTO, "auto": Wish.AUTO}
)
Asks = tuple[Ask, ...]
Parse = Callable[[str, object], Asks]


def _switch(param: str, value: object) -> Asks:
    return (Ask(param, wish=Wish.THINK if boolean(param, value) else Wish.NO_THINK),)


def _effort(param: str, value: object) -> Asks:
    effort = text(param, value)
    if effort not in EFFORTS:
        raise InvalidRequestError(f"{param}: expected one of {', '.join(EFFORTS)}.", param=param)
    return (Ask(param, wish=EFFORTS[effort], effort=effort if effort in EFFORT_LEVELS else None),)


def _cap(param: str, value: object) -> Asks:
    """Read a budget that only limits; 0 leaves no room to think, and -1 is no limit."""
    tokens = integer(UNLIMITED, LARGEST_BUDGET)(param, value)
    if tokens == UNLIMITED:
        return ()
    return (Ask(param, wish=Wish.NO_THINK),) if tokens == 0 else (Ask(param, budget=tokens),)


def _thinking_cap(param: str, value: object) -> Asks:
    """Read a budget that also asks to think."""
    return tuple(Ask(ask.param, wish=ask.wish or Wish.THINK, budget=ask.budget) for ask in _cap(param, value))


def _shown(hidden: Shown) -> Parse:
    def parse(param: str, value: object) -> Asks:
        return () if boolean(param, value) else (Ask(param, shown=hidden),)

    return parse


def _exclude(param: str, value: object) -> Asks:
    return (Ask(param, shown=Shown.HIDDEN),) if boolean(param, value) else ()


def _summary(param: str, value: object) -> Asks:
    # The reasoning itself is given, which is all that "auto" asks for.
    if text(param, value) != "auto":
        raise UnsupportedParameterError(param, "this server gives the reasoning as it is, not a summary.")
    return ()


def _thinking_type(param: str, value: object) -> Asks:
    kind = text(param, value)
    if kind not in THINKING_TYPES:
        raise InvalidRequestError(f"{param}: expected one of {', '.join(THINKING_TYPES)}.", param=param)
    return (Ask(param, wish=THINKING_TYPES[kind]),)


def _display(param: str, value: object) -> Asks:
    display = text(param, value)
    if display == "omitted":
        return (Ask(param, shown=Shown.HIDDEN),)
    raise UnsupportedParameterError(param, "only omitted is supported; without it the whole reasoning is shown.")


def _members(parsers: Mapping[str, Parse]) -> Parse:
    """Return the parser of an object whose members are parsed one by one; others are refused by name."""

    def parse(param: str, value: object) -> Asks:
        if not isinstance(value, dict):
            raise wrong_type(param, "an object")
        asks: list[Ask] = []
        for name, member in value.items():
            place = f"{param}.{name[:100]}"
            if member is None or member in ([], {}):
                continue
            if name not in parsers:
                raise UnsupportedParameterError(place, f"only {', '.join(parsers)} are supported.")
            asks += parsers[name](place, member)
        return tuple(asks)

    return parse


def _thinking(param: str, value: object) -> Asks:
    asks = _members({"type": _thinking_type, "budget_tokens": _thinking_cap, "display": _display})(param, value)
    if any(ask.wish is Wish.AUTO for ask in asks):
        # With "adaptive" the budget only limits: whether to think stays with the model.
        return tuple(Ask(a.param, budget=a.budget) if a.budget is not None else a for a in asks)
    return asks


MODE_FIELDS: Mapping[str, Check] = MappingProxyType(
    {
        "reasoning_effort": _effort,
        "reasoning": _members(
            {
                "effort": _effort,
                "max_tokens": _thinking_cap,
                "enabled": _switch,
                "exclude": _exclude,
                "summary": _summary,
                "generate_summary": _summary,
            }
        ),
        "thinking": _thinking,
        "chat_template_kwargs": _members({"enable_thinking": _switch, "thinking": _switch}),
        "enable_thinking": _switch,
        "thinking_budget": _cap,
        "thinking_token_budget": _cap,
        "thinking_budget_tokens": _cap,
        "nvext": _members({"max_thinking_tokens": _cap}),
        "include_reasoning": _shown(Shown.HIDDEN),
        "separate_reasoning": _shown(Shown.INLINE),
    }
)
"""Parsers by field name; each returns what the field asks for."""


def agreed(asks: Sequence[Ask], what: str, name: str) -> Ask | None:
    """Return the first ask that says something about `what`, an attribute; None where none does.

    Raises InvalidRequestError naming two fields that say different things; `name` is what the reader calls it.
    """
    saying = [ask for ask in asks if getattr(ask, what) is not None]
    for ask in saying[1:]:
        if getattr(ask, what) != getattr(saying[0], what):
            both = f"{saying[0].param}, {ask.param}"
            raise InvalidRequestError(
                f"These fields ask for a different {name}: {both}.", param=both, code=f"contradictory_{name}"
            )
    return saying[0] if saying else None
