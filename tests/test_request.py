"""Every field of a chat request is honoured, asks for nothing, or is refused by name."""

import pytest
from lhrm_server.answer_plan import AnswerPlan, ToolPlan
from lhrm_server.control import Ask, Shown, Wish
from lhrm_server.errors import InvalidRequestError
from lhrm_server.limits import RequestLimits
from lhrm_server.request import SamplingFields, parse_chat
from lhrm_server.request_fields import ANNOTATIONS, HONOURED, NEUTRAL, FieldKind, field_rows
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

from lhrm_train.format import Message

USER = [{"role": "user", "content": "hi"}]
HUGE = 10**400
LIMITS = RequestLimits(max_choices=4, vocab_size=100, reserved_ids=frozenset({1}), calls_tools=True)
TOOL = {"type": "function", "function": {"name": "f"}}


def parse(**fields):
    return parse_chat({"model": "m", "messages": USER, **fields}, LIMITS)


def refused(**fields):
    with pytest.raises(InvalidRequestError) as caught:
        parse(**fields)
    assert caught.value.status == 400
    return caught.value


def test_the_least_request():
    request = parse()
    assert request.messages == (Message("user", "hi"),)
    assert (request.model, request.stream, request.include_usage, request.max_tokens) == ("m", False, False, None)
    assert (request.sampling, request.asks, request.think_threshold) == (SamplingFields(), (), None)
    assert (request.n, request.answer, request.shown, request.continuous_usage) == (
        1,
        AnswerPlan(),
        Shown.SEPARATE,
        False,
    )


def test_no_field_is_in_two_tables():
    assert len({*HONOURED, *ANNOTATIONS, *NEUTRAL}) == len(HONOURED) + len(ANNOTATIONS) + len(NEUTRAL)


@pytest.mark.parametrize("name", sorted({*CompletionCreateParamsBase.__annotations__, "stream", *NEUTRAL}))
def test_every_openai_field_is_known_and_none_takes_just_anything(name):
    assert name in {*HONOURED, *ANNOTATIONS, *NEUTRAL}, "unknown to the tables"
    error = refused(**{name: [[3]] if name == "stop" else ["nonsense"]})
    assert error.param is not None
    assert error.param.startswith(name)


@pytest.mark.parametrize("name", sorted({*HONOURED, *ANNOTATIONS, *NEUTRAL, "unknown"} - {"model", "messages"}))
def test_null_asks_for_nothing(name):
    assert parse(**{name: None}) == parse()


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in NEUTRAL for value in (*NEUTRAL[name], [], {})])
def test_values_that_ask_for_nothing_are_accepted(name, value):
    assert parse(**{name: value}) == parse()


@pytest.mark.parametrize("name", sorted(NEUTRAL))
@pytest.mark.parametrize("value", ["x", 7, 2.5, ["x"], {"x": 1}])
def test_values_that_ask_for_something_are_refused_by_name(name, value):
    error = refused(**{name: value})
    assert (error.param, error.code) == (name, "unsupported_parameter")


@pytest.mark.parametrize(
    ("name", "value"),
    [("n", True), ("n", 0), ("store", 0), ("store", True), ("best_of", True), ("priority", False), ("audio", 0)],
)
def test_lookalikes_of_neutral_values_are_refused(name, value):
    assert refused(**{name: value}).param == name


@pytest.mark.parametrize("name", ["foo", "Temperature", "x" * 5000])
def test_unknown_fields_are_refused_by_name(name):
    error = refused(**{name: 1})
    assert (error.param, error.code) == (name[:100], "unknown_parameter")
    assert len(error.message) < 200


@pytest.mark.parametrize(
    ("name", "value"),
    [("user", "u"), ("metadata", {"a": "b"}), ("safety_identifier", "s"), ("prompt_cache_key", "k")],
)
def test_annotations_change_nothing(name, value):
    assert parse(**{name: value}) == parse()
    assert refused(**{name: 3}).param == name


NUMBERS = {
    "temperature": ((0, 0.0, 2, 1.5), (-0.1, 2.1, HUGE, -HUGE)),
    "top_p": ((1, 0.1, 1e-9), (0, 0.0, 1.1, -1)),
    "min_p": ((0, 1, 0.5), (-0.1, 1.1)),
    "presence_penalty": ((-2, 2, 0), (-2.1, 2.1, HUGE)),
    "frequency_penalty": ((-2, 2, 0), (-2.1, 2.1, float("inf"))),
    "repetition_penalty": ((0.01, 1, 1.3, 100), (0, -1, 1e-300, 1e300, float("inf"))),
    "think_threshold": ((0, 0.25, 1), (-0.1, 1.1, float("inf"))),
    "top_k": ((-1, 0, 1, 2**31 - 1), (-2, 2**31)),
    "seed": ((0, -(2**63), 2**63 - 1), (2**63, -(2**63) - 1)),
    "max_tokens": ((1, 10**9), (0, -1, 2**63)),
    "max_completion_tokens": ((1, 10**9), (0, -1, 2**63)),
}
INTEGERS = ("top_k", "seed", "max_tokens", "max_completion_tokens")


def field_value(request, name):
    if name.startswith("max_"):
        return request.max_tokens
    return request.think_threshold if name == "think_threshold" else getattr(request.sampling, name)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, (good, _) in NUMBERS.items() for value in good])
def test_numbers_in_range_are_honoured(name, value):
    assert field_value(parse(**{name: value}), name) == value


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, (_, bad) in NUMBERS.items() for value in bad])
def test_numbers_out_of_range_are_refused(name, value):
    error = refused(**{name: value})
    assert (error.param, error.code) == (name, "invalid_value")


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [True, "1", [1], {"a": 1}])
def test_other_types_than_numbers_are_refused(name, value):
    error = refused(**{name: value})
    assert (error.param, error.code) == (name, "invalid_type")


@pytest.mark.parametrize("name", INTEGERS)
def test_fractions_are_no_integers_but_whole_numbers_are(name):
    assert refused(**{name: 1.5}).param == name
    assert parse(**{name: 4.0}) == parse(**{name: 4})
    assert isinstance(field_value(parse(**{name: 4.0}), name), int)


def test_sampling_goes_to_the_engine_unchanged():
    sampling = parse(temperature=0.5, top_p=0.9, top_k=4, min_p=0.1, seed=7, repetition_penalty=1.1).sampling
    sent = sampling.with_limit(9)
    assert (sent.max_tokens, sent.temperature, sent.top_p, sent.top_k, sent.min_p) == (9, 0.5, 0.9, 4, 0.1)
    assert (sent.seed, sent.repetition_penalty, sent.presence_penalty) == (7, 1.1, None)
    assert sent.allowed_token_ids is sent.logprob_token_ids is None


def test_both_names_of_the_limit():
    assert parse(max_tokens=5, max_completion_tokens=5).max_tokens == 5
    assert refused(max_tokens=5, max_completion_tokens=6).param == "max_tokens, max_completion_tokens"


def test_stream_options():
    assert parse(stream=True, stream_options={"include_usage": True}).include_usage is True
    assert parse(stream=True, stream_options={"include_usage": False}).include_usage is False
    assert parse(stream_options={}).include_usage is False
    assert refused(stream_options={"include_usage": True}).param == "stream_options"
    assert refused(stream=True, stream_options={"include_usage": 1}).param == "stream_options.include_usage"
    both = {"include_usage": True, "continuous_usage_stats": True}
    assert parse(stream=True, stream_options=both).continuous_usage is True
    for options, named in (
        ({"continuous_usage_stats": True}, "continuous_usage_stats"),
        ({"include_obfuscation": True}, "include_obfuscation"),
        ({"include_obfuscation": 0}, "include_obfuscation"),
    ):
        assert refused(stream=True, stream_options=options).param == f"stream_options.{named}"
    assert refused(stream=True, stream_options={"other": 1}).param == "stream_options.other"
    assert refused(stream="yes").param == "stream"


def test_values_that_change_nothing_are_accepted_of_honoured_fields():
    for fields in (
        {"n": 1},
        {"stop": []},
        {"logprobs": False, "top_logprobs": 0},
        {"logit_bias": {}},
        {"tools": [], "tool_choice": "auto", "parallel_tool_calls": False},
        {"response_format": {"type": "text"}},
        {"structured_outputs": {}},
        {"reasoning": {}, "thinking": {}, "chat_template_kwargs": {}, "nvext": {}},
        {"stream_options": {"include_obfuscation": False}},
    ):
        assert parse(**fields) == parse()


def test_asks_come_from_every_field_in_one_order():
    expected = (Ask("reasoning_effort", Wish.THINK, effort="low"), Ask("thinking_budget", budget=5))
    assert parse(reasoning_effort="low", thinking_budget=5).asks == expected
    assert parse(thinking_budget=5, reasoning_effort="low").asks == expected


def test_choices_up_to_the_servers_limit():
    assert parse(n=4).n == 4
    error = refused(n=5)
    assert (error.param, error.code) == ("n", "invalid_value")
    assert "between 1 and 4, not 5" in error.message


def test_the_answers_plan():
    assert parse(stop="x", logprobs=True).answer == AnswerPlan(stop=("x",), top_logprobs=0)
    assert refused(logit_bias={"1": 5}).param == "logit_bias.1"


def test_tools_are_told_in_the_messages():
    request = parse(tools=[TOOL])
    assert request.answer.tools == ToolPlan("auto")
    assert [message.role for message in request.messages] == ["system", "user"]
    assert '"name": "f"' in request.messages[0].content
    assert parse(tools=[TOOL], tool_choice="none").messages == parse().messages


def test_visibility():
    assert parse(include_reasoning=False).shown is Shown.HIDDEN
    assert parse(separate_reasoning=False).shown is Shown.INLINE
    assert refused(separate_reasoning=False, logprobs=True).param == "separate_reasoning, logprobs"
    assert parse(include_reasoning=False, logprobs=True).shown is Shown.HIDDEN


def test_every_field_has_a_row_for_the_documents():
    rows = {row.name: row for row in field_rows()}
    assert set(rows) == {*HONOURED, *ANNOTATIONS, *NEUTRAL}
    assert rows["temperature"].schema == {"anyOf": [{"type": "number", "minimum": 0, "maximum": 2}, {"type": "null"}]}
    assert (rows["user"].kind, rows["store"].kind) == (FieldKind.ANNOTATION, FieldKind.NEUTRAL)
    assert rows["store"].schema == {"anyOf": [{"enum": [False]}, {"enum": [None, [], {}]}]}


def test_required_fields():
    for name in ("model", "messages"):
        fields = {"model": "m", "messages": USER}
        for absent in ({k: v for k, v in fields.items() if k != name}, {**fields, name: None}):
            with pytest.raises(InvalidRequestError) as caught:
                parse_chat(absent, LIMITS)
            assert (caught.value.param, caught.value.code) == (name, "missing_required_parameter")
    assert refused(model=3).param == "model"
