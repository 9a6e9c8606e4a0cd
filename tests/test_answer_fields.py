"""What a request asks of the answer alone: stops, log-probabilities, bias, and what excludes what."""

import pytest
from lhrm_server.answer_fields import ANSWER_FIELDS, MOST_STOPS, plan_answer
from lhrm_server.answer_plan import AnswerPlan, ToolPlan
from lhrm_server.engine import Grammar
from lhrm_server.errors import InvalidRequestError
from lhrm_server.limits import RequestLimits

LIMITS = RequestLimits(max_choices=16, vocab_size=100, reserved_ids=frozenset({1, 2, 3, 4, 5}), calls_tools=True)
TOOL = {"type": "function", "function": {"name": "f"}}


def plan(**fields):
    return plan_answer({name: ANSWER_FIELDS[name](name, value) for name, value in fields.items()}, LIMITS)[0]


def refused(**fields):
    with pytest.raises(InvalidRequestError) as caught:
        plan(**fields)
    assert caught.value.status == 400
    return caught.value.param


def test_nothing_asked():
    assert plan() == AnswerPlan()
    assert not plan().needs_own_call


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"stop": "\n"}, AnswerPlan(stop=("\n",))),
        ({"stop": ["a", "b c"]}, AnswerPlan(stop=("a", "b c"))),
        ({"stop": []}, AnswerPlan()),
        ({"stop": ["x"] * MOST_STOPS}, AnswerPlan(stop=("x",) * MOST_STOPS)),
        ({"logprobs": False, "top_logprobs": 0}, AnswerPlan()),
        ({"logprobs": True}, AnswerPlan(top_logprobs=0)),
        ({"logprobs": True, "top_logprobs": 20}, AnswerPlan(top_logprobs=20)),
        ({"logit_bias": {}}, AnswerPlan()),
        ({"logit_bias": {"0": -100, "99": 1.5}}, AnswerPlan(logit_bias={0: -100.0, 99: 1.5})),
        (
            {"response_format": {"type": "json_object"}},
            AnswerPlan(grammar=Grammar("json", '{"type":"object"}'), grammar_param="response_format"),
        ),
        (
            {"structured_outputs": {"regex": "a+"}},
            AnswerPlan(grammar=Grammar("regex", "a+"), grammar_param="structured_outputs"),
        ),
        ({"tools": [TOOL]}, AnswerPlan(tools=ToolPlan("auto"))),
        ({"tools": [TOOL], "response_format": {"type": "text"}}, AnswerPlan(tools=ToolPlan("auto"))),
        ({"tool_choice": "auto", "parallel_tool_calls": False}, AnswerPlan()),
    ],
)
def test_plans(fields, expected):
    assert plan(**fields) == expected


def test_a_grammar_of_calls_comes_from_the_tools():
    found = plan(tools=[TOOL], tool_choice="required")
    assert (found.tools, found.grammar.kind, found.grammar_param) == (ToolPlan("required"), "json", "tools")
    assert plan(tools=[TOOL]).grammar_param is None


def test_tools_that_may_not_be_called_leave_room_for_a_format():
    found = plan(tools=[TOOL], tool_choice="none", response_format={"type": "json_object"})
    assert (found.tools, found.grammar.kind) == (None, "json")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"stop": ""}, "stop"),
        ({"stop": 3}, "stop"),
        ({"stop": {"a": 1}}, "stop"),
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"stop": ["a", None]}, "stop[1]"),
        ({"stop": ["x"] * (MOST_STOPS + 1)}, "stop"),
        ({"logprobs": 1}, "logprobs"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"logprobs": False, "top_logprobs": 1}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
        ({"logit_bias": [1]}, "logit_bias"),
        ({"logit_bias": {"a": 1}}, "logit_bias.a"),
        ({"logit_bias": {"-1": 1}}, "logit_bias.-1"),
        ({"logit_bias": {"07": 1}}, "logit_bias.07"),
        ({"logit_bias": {"": 1}}, "logit_bias."),
        ({"logit_bias": {"²": 1}}, "logit_bias.²"),
        ({"logit_bias": {"9" * 30: 1}}, "logit_bias." + "9" * 30),
        ({"logit_bias": {"7": 100.1}}, "logit_bias.7"),
        ({"logit_bias": {"7": "1"}}, "logit_bias.7"),
        ({"logit_bias": {"100": 1}}, "logit_bias.100"),
        ({"logit_bias": {"7": 1, "3": 1}}, "logit_bias.3"),
        ({"tools": [TOOL], "response_format": {"type": "json_object"}}, "tools, response_format"),
        (
            {"tools": [TOOL], "tool_choice": "required", "structured_outputs": {"choice": ["a"]}},
            "tools, structured_outputs",
        ),
        (
            {"response_format": {"type": "json_object"}, "structured_outputs": {"choice": ["a"]}},
            "response_format, structured_outputs",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(fields, param):
    assert refused(**fields) == param


def test_whatever_the_engine_must_do_only_to_the_answer_needs_its_own_call():
    for fields in (
        {"logprobs": True},
        {"logit_bias": {"7": 1}},
        {"response_format": {"type": "json_object"}},
        {"tools": [TOOL], "tool_choice": "required"},
    ):
        assert plan(**fields).needs_own_call
    assert not plan(stop="a", tools=[TOOL]).needs_own_call
