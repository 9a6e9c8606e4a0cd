"""Every field of a chat request is honoured, asks for nothing, or is refused by name."""

import pytest
from lhrm_server.errors import InvalidRequestError
from lhrm_server.policy import BodyWish, Wish
from lhrm_server.request import ANNOTATIONS, HONOURED, NEUTRAL, SamplingFields, parse_chat
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

from lhrm_train.format import Message

USER = [{"role": "user", "content": "hi"}]
HUGE = 10**400


def parse(**fields):
    return parse_chat({"model": "m", "messages": USER, **fields})


def refused(**fields):
    with pytest.raises(InvalidRequestError) as caught:
        parse(**fields)
    assert caught.value.status == 400
    return caught.value


def test_the_least_request():
    request = parse()
    assert request.messages == (Message("user", "hi"),)
    assert (request.model, request.stream, request.include_usage, request.max_tokens) == ("m", False, False, None)
    assert (request.sampling, request.wishes, request.think_threshold) == (SamplingFields(), (), None)


def test_no_field_is_in_two_tables():
    assert len({*HONOURED, *ANNOTATIONS, *NEUTRAL}) == len(HONOURED) + len(ANNOTATIONS) + len(NEUTRAL)


@pytest.mark.parametrize("name", sorted({*CompletionCreateParamsBase.__annotations__, "stream", *NEUTRAL}))
def test_every_openai_field_is_known_and_none_takes_just_anything(name):
    assert name in {*HONOURED, *ANNOTATIONS, *NEUTRAL}, "unknown to the tables"
    error = refused(**{name: ["nonsense"]}) if name != "user" else refused(user=["nonsense"])
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
    [("n", True), ("n", 0), ("n", 2), ("store", 0), ("store", True), ("logprobs", True), ("stop", ""), ("stop", "x")],
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
def test_fractions_are_no_integers(name):
    assert refused(**{name: 1.0}).param == name


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
    usage_stats = {"include_usage": True, "continuous_usage_stats": True}
    assert refused(stream=True, stream_options=usage_stats).param == "stream_options.continuous_usage_stats"
    assert refused(stream=True, stream_options={"other": 1}).param == "stream_options.other"
    assert refused(stream="yes").param == "stream"


@pytest.mark.parametrize(
    ("fields", "param", "wish"),
    [
        *(({"reasoning_effort": e}, "reasoning_effort", Wish.THINK) for e in ("minimal", "low", "high", "xhigh")),
        ({"reasoning_effort": "none"}, "reasoning_effort", Wish.NO_THINK),
        ({"reasoning_effort": "auto"}, "reasoning_effort", Wish.AUTO),
        ({"thinking": {"type": "enabled"}}, "thinking.type", Wish.THINK),
        ({"thinking": {"type": "disabled"}}, "thinking.type", Wish.NO_THINK),
        ({"thinking": {"type": "adaptive", "budget_tokens": None}}, "thinking.type", Wish.AUTO),
        ({"thinking": {"type": "auto"}}, "thinking.type", Wish.AUTO),
        (
            {"chat_template_kwargs": {"enable_thinking": True}},
            "chat_template_kwargs.enable_thinking",
            Wish.THINK,
        ),
        ({"chat_template_kwargs": {"thinking": False}}, "chat_template_kwargs.thinking", Wish.NO_THINK),
    ],
)
def test_mode_spellings(fields, param, wish):
    assert parse(**fields).wishes == (BodyWish(param, wish),)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"reasoning_effort": "extreme"}, "reasoning_effort"),
        ({"reasoning_effort": 3}, "reasoning_effort"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "display": "omitted"}}, "thinking.display"),
        ({"thinking": {"type": "between_tools"}}, "thinking.type"),
        ({"thinking": {"type": ["enabled"]}}, "thinking.type"),
        ({"thinking": True}, "thinking"),
        ({"chat_template_kwargs": {"enable_thinking": "yes"}}, "chat_template_kwargs.enable_thinking"),
        ({"chat_template_kwargs": {"preserve": True}}, "chat_template_kwargs.preserve"),
        ({"chat_template_kwargs": [1]}, "chat_template_kwargs"),
        ({"enable_thinking": True}, "enable_thinking"),
        ({"thinking_token_budget": 10}, "thinking_token_budget"),
        ({"reasoning": {"effort": "high"}}, "reasoning"),
    ],
)
def test_modes_that_cannot_be_honoured_are_refused_by_name(fields, param):
    assert refused(**fields).param == param


def test_empty_mode_fields_ask_for_nothing():
    fields = {"thinking": {"type": None}, "chat_template_kwargs": {"enable_thinking": None, "other": {}}}
    assert parse(**fields).wishes == ()
    assert parse(thinking={}, chat_template_kwargs={}).wishes == ()


def test_required_fields():
    for name in ("model", "messages"):
        fields = {"model": "m", "messages": USER}
        for absent in ({k: v for k, v in fields.items() if k != name}, {**fields, name: None}):
            with pytest.raises(InvalidRequestError) as caught:
                parse_chat(absent)
            assert (caught.value.param, caught.value.code) == (name, "missing_required_parameter")
    assert refused(model=3).param == "model"
