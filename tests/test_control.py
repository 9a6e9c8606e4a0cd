"""Every spelling of thinking control comes to the same kind of ask, and contradictions name both fields."""

import pytest
from lhrm_server.control import EFFORT_LEVELS, MODE_FIELDS, UNLIMITED, Ask, Shown, Wish, agreed, visibility
from lhrm_server.errors import InvalidRequestError

AUTO, THINK, NO_THINK = Wish.AUTO, Wish.THINK, Wish.NO_THINK


def asks(**fields):
    return tuple(ask for name, value in fields.items() for ask in MODE_FIELDS[name](name, value))


def refused(**fields):
    with pytest.raises(InvalidRequestError) as caught:
        asks(**fields)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        *(({"reasoning_effort": level}, Ask("reasoning_effort", THINK, effort=level)) for level in EFFORT_LEVELS),
        ({"reasoning_effort": "none"}, Ask("reasoning_effort", NO_THINK)),
        ({"reasoning_effort": "auto"}, Ask("reasoning_effort", AUTO)),
        ({"reasoning": {"effort": "low"}}, Ask("reasoning.effort", THINK, effort="low")),
        ({"reasoning": {"effort": "none"}}, Ask("reasoning.effort", NO_THINK)),
        ({"reasoning": {"max_tokens": 50}}, Ask("reasoning.max_tokens", THINK, budget=50)),
        ({"reasoning": {"max_tokens": 0}}, Ask("reasoning.max_tokens", NO_THINK, budget=0)),
        ({"reasoning": {"enabled": True}}, Ask("reasoning.enabled", THINK)),
        ({"reasoning": {"enabled": False}}, Ask("reasoning.enabled", NO_THINK)),
        ({"reasoning": {"exclude": True}}, Ask("reasoning.exclude", hidden=True)),
        ({"reasoning": {"summary": "auto"}}, Ask("reasoning.summary")),
        ({"thinking": {"type": "enabled"}}, Ask("thinking.type", THINK)),
        ({"thinking": {"type": "disabled"}}, Ask("thinking.type", NO_THINK)),
        ({"thinking": {"type": "adaptive"}}, Ask("thinking.type", AUTO)),
        ({"thinking": {"type": "auto"}}, Ask("thinking.type", AUTO)),
        ({"thinking": {"budget_tokens": 9}}, Ask("thinking.budget_tokens", THINK, budget=9)),
        ({"thinking": {"display": "omitted"}}, Ask("thinking.display", hidden=True)),
        (
            {"chat_template_kwargs": {"enable_thinking": True}},
            Ask("chat_template_kwargs.enable_thinking", THINK),
        ),
        ({"chat_template_kwargs": {"thinking": False}}, Ask("chat_template_kwargs.thinking", NO_THINK)),
        ({"enable_thinking": True}, Ask("enable_thinking", THINK)),
        ({"enable_thinking": False}, Ask("enable_thinking", NO_THINK)),
        ({"thinking_budget": 7}, Ask("thinking_budget", budget=7)),
        ({"thinking_token_budget": 7}, Ask("thinking_token_budget", budget=7)),
        ({"thinking_token_budget": 0}, Ask("thinking_token_budget", NO_THINK, budget=0)),
        ({"thinking_token_budget": -1}, Ask("thinking_token_budget", budget=UNLIMITED)),
        ({"thinking_budget_tokens": 7}, Ask("thinking_budget_tokens", budget=7)),
        ({"nvext": {"max_thinking_tokens": 0}}, Ask("nvext.max_thinking_tokens", NO_THINK, budget=0)),
        ({"include_reasoning": False}, Ask("include_reasoning", hidden=True)),
        ({"include_reasoning": True}, Ask("include_reasoning", hidden=False)),
        ({"separate_reasoning": False}, Ask("separate_reasoning", inline=True)),
    ],
)
def test_what_one_field_asks_for(fields, expected):
    assert asks(**fields) == (expected,)


def test_a_budget_beside_adaptive_only_limits():
    adaptive = asks(thinking={"type": "adaptive", "budget_tokens": 9})
    assert adaptive == (Ask("thinking.type", AUTO), Ask("thinking.budget_tokens", budget=9))
    enabled = asks(thinking={"budget_tokens": 9, "type": "enabled"})
    assert enabled == (Ask("thinking.budget_tokens", THINK, budget=9), Ask("thinking.type", THINK))


@pytest.mark.parametrize("nothing", [{}, {"other": None}, {"other": []}, {"other": {}}])
@pytest.mark.parametrize("name", ["reasoning", "thinking", "chat_template_kwargs", "nvext"])
def test_objects_that_ask_for_nothing(name, nothing):
    assert asks(**{name: nothing}) == ()


def test_null_members_ask_for_nothing():
    assert asks(thinking={"type": None, "budget_tokens": None}, reasoning={"effort": None, "max_tokens": None}) == ()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"reasoning_effort": "extreme"}, "reasoning_effort"),
        ({"reasoning_effort": 0.5}, "reasoning_effort"),
        ({"reasoning": {"effort": "low", "max_tokens": 9}}, "reasoning.effort, reasoning.max_tokens"),
        ({"reasoning": {"effort": "none", "max_tokens": -1}}, "reasoning.effort, reasoning.max_tokens"),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
        ({"reasoning": {"generate_summary": "concise"}}, "reasoning.generate_summary"),
        ({"reasoning": {"max_tokens": -2}}, "reasoning.max_tokens"),
        ({"reasoning": {"enabled": 1}}, "reasoning.enabled"),
        ({"reasoning": {"tags": ["a"]}}, "reasoning.tags"),
        ({"reasoning": True}, "reasoning"),
        ({"thinking": {"type": "between_tools"}}, "thinking.type"),
        ({"thinking": {"type": ["enabled"]}}, "thinking.type"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2**31}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1.5}}, "thinking.budget_tokens"),
        ({"thinking": {"display": "summarized"}}, "thinking.display"),
        ({"thinking": True}, "thinking"),
        ({"chat_template_kwargs": {"enable_thinking": "yes"}}, "chat_template_kwargs.enable_thinking"),
        ({"chat_template_kwargs": {"preserve": True}}, "chat_template_kwargs.preserve"),
        ({"chat_template_kwargs": [1]}, "chat_template_kwargs"),
        ({"enable_thinking": "true"}, "enable_thinking"),
        ({"thinking_budget": True}, "thinking_budget"),
        ({"thinking_token_budget": 10**400}, "thinking_token_budget"),
        ({"nvext": {"max_thinking_tokens": "5"}}, "nvext.max_thinking_tokens"),
        ({"nvext": {"other": 1}}, "nvext.other"),
        ({"include_reasoning": 0}, "include_reasoning"),
        ({"separate_reasoning": "no"}, "separate_reasoning"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(fields, param):
    error = refused(**fields)
    assert error.param == param
    assert len(error.message) < 250


def test_a_refusal_tells_the_value():
    assert "'extreme'" in refused(reasoning_effort="extreme").message
    assert "-2" in refused(thinking_token_budget=-2).message


def test_agreement_takes_the_first_who_says_something():
    said = (Ask("a"), Ask("b", THINK), Ask("c", THINK, budget=3))
    assert agreed(said, "wish", "mode") == said[1]
    assert agreed(said, "budget", "budget") == said[2]
    assert agreed(said, "effort", "effort") is None


def test_disagreement_names_both():
    with pytest.raises(InvalidRequestError) as caught:
        agreed((Ask("a", budget=0), Ask("b"), Ask("c", budget=3)), "budget", "budget")
    assert (caught.value.param, caught.value.code) == ("a, c", "contradictory_budget")


@pytest.mark.parametrize(
    ("fields", "shown", "param"),
    [
        ({}, Shown.SEPARATE, None),
        ({"include_reasoning": True, "separate_reasoning": True}, Shown.SEPARATE, None),
        ({"include_reasoning": False}, Shown.HIDDEN, "include_reasoning"),
        ({"include_reasoning": False, "separate_reasoning": True}, Shown.HIDDEN, "include_reasoning"),
        ({"reasoning": {"exclude": True}, "thinking": {"display": "omitted"}}, Shown.HIDDEN, "reasoning.exclude"),
        ({"separate_reasoning": False}, Shown.INLINE, "separate_reasoning"),
        ({"separate_reasoning": False, "include_reasoning": True}, Shown.INLINE, "separate_reasoning"),
        ({"separate_reasoning": False, "reasoning": {"exclude": False}}, Shown.INLINE, "separate_reasoning"),
    ],
)
def test_visibility(fields, shown, param):
    assert visibility(asks(**fields)) == (shown, param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"include_reasoning": False, "separate_reasoning": False}, "include_reasoning, separate_reasoning"),
        ({"include_reasoning": True, "reasoning": {"exclude": True}}, "include_reasoning, reasoning.exclude"),
        ({"thinking": {"display": "omitted"}, "separate_reasoning": False}, "thinking.display, separate_reasoning"),
    ],
)
def test_contradictory_visibility(fields, param):
    with pytest.raises(InvalidRequestError) as caught:
        visibility(asks(**fields))
    assert (caught.value.param, caught.value.code) == (param, "contradictory_visibility")
