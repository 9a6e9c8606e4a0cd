import math

import pytest
from lhrm_server.engine import EngineError
from lhrm_server.errors import ContradictoryModeError, InvalidRequestError, ModelNotFoundError
from lhrm_server.policy import (
    BodyWish,
    ModePlan,
    Source,
    TagProbabilities,
    Wish,
    choose_mode,
    plan_mode,
    tag_probabilities,
)
from lhrm_server.settings import Settings

from lhrm_train.format import Mode, TagIds

TAGS = TagIds(think=3, think_end=4, no_think=5, no_think_end=6)
AUTO, THINK, NO_THINK = Wish.AUTO, Wish.THINK, Wish.NO_THINK
MODEL, REQUEST, POLICY = Source.MODEL, Source.REQUEST, Source.POLICY


def body(*wishes):
    return tuple(BodyWish(f"field{i}", wish) for i, wish in enumerate(wishes))


@pytest.mark.parametrize(
    ("wishes", "threshold", "header", "model", "default", "expected"),
    [
        ((), None, None, "m", "auto", (AUTO, MODEL)),
        ((), None, None, "m", "think", (THINK, POLICY)),
        ((), None, None, "m", "no_think", (NO_THINK, POLICY)),
        ((), None, None, "m-think", "no_think", (THINK, REQUEST)),
        ((), None, None, "m-no-think", "think", (NO_THINK, REQUEST)),
        ((), None, "think", "m", "auto", (THINK, REQUEST)),
        ((), None, " Auto ", "m-think", "no_think", (AUTO, MODEL)),
        ((), None, "no_think", "m-think", "auto", (NO_THINK, REQUEST)),
        ((THINK,), None, "no_think", "m-no-think", "no_think", (THINK, REQUEST)),
        ((AUTO,), None, "think", "m-think", "think", (AUTO, MODEL)),
        ((NO_THINK, NO_THINK), None, None, "m", "auto", (NO_THINK, REQUEST)),
        ((), 0.3, "think", "m-think", "think", (AUTO, MODEL)),
        ((AUTO,), 0.3, None, "m", "auto", (AUTO, MODEL)),
    ],
)
def test_precedence(wishes, threshold, header, model, default, expected):
    plan = plan_mode(body(*wishes), threshold, header, model, Settings("m", default_mode=default))
    assert (plan.wish, plan.source) == expected
    assert plan.threshold == (0.5 if threshold is None else threshold)


@pytest.mark.parametrize("wishes", [(THINK, NO_THINK), (AUTO, THINK), (THINK, THINK, NO_THINK)])
def test_disagreeing_body_fields_are_both_named(wishes):
    with pytest.raises(ContradictoryModeError) as caught:
        plan_mode(body(*wishes), None, None, "m", Settings("m"))
    assert caught.value.param == f"field0, field{len(wishes) - 1}"


@pytest.mark.parametrize("wish", [THINK, NO_THINK])
def test_threshold_contradicts_a_forcing_body_field(wish):
    with pytest.raises(ContradictoryModeError) as caught:
        plan_mode(body(wish), 0.0, None, "m", Settings("m"))
    assert caught.value.param == "field0, think_threshold"


@pytest.mark.parametrize("value", ["", "yes", "think, no_think", "nothink"])
def test_bad_header_is_an_error_even_when_the_body_decides(value):
    with pytest.raises(InvalidRequestError) as caught:
        plan_mode(body(THINK), None, value, "m", Settings("m"))
    assert caught.value.param == "X-LHRM-Mode"


@pytest.mark.parametrize("name", ["", "M", "m-Think", "m-think-think", "gpt-4"])
def test_unknown_model(name):
    with pytest.raises(ModelNotFoundError) as caught:
        plan_mode((), None, None, name, Settings("m"))
    assert (caught.value.status, caught.value.param, caught.value.code) == (404, "model", "model_not_found")


@pytest.mark.parametrize(
    ("threshold", "p_think", "mode"),
    [
        (0.5, 0.5, Mode.THINK),
        (0.5, math.nextafter(0.5, 0), Mode.NO_THINK),
        (0.0, 0.0, Mode.THINK),
        (1.0, 1.0, Mode.NO_THINK),
        (0.999, 1.0, Mode.THINK),
    ],
)
def test_the_model_thinks_from_the_threshold_on(threshold, p_think, mode):
    decision = choose_mode(ModePlan(AUTO, MODEL, threshold), TagProbabilities(p_think, 0.9))
    assert (decision.mode, decision.source) == (mode, MODEL)
    assert (decision.p_think, decision.threshold, decision.tag_mass) == (p_think, threshold, 0.9)


@pytest.mark.parametrize(("wish", "mode"), [(THINK, Mode.THINK), (NO_THINK, Mode.NO_THINK)])
def test_a_forced_mode_claims_no_probability(wish, mode):
    decision = choose_mode(ModePlan(wish, POLICY, 0.5), None)
    assert (decision.mode, decision.source) == (mode, POLICY)
    assert decision.p_think is decision.threshold is decision.tag_mass is None


def test_probabilities_are_renormalised_over_the_two_tags():
    found = tag_probabilities({3: math.log(0.3), 5: math.log(0.1)}, TAGS)
    assert found.p_think == pytest.approx(0.75)
    assert found.tag_mass == pytest.approx(0.4)


def test_probabilities_survive_extremes():
    assert tag_probabilities({3: -2000.0, 5: -2001.0}, TAGS).p_think == pytest.approx(1 / (1 + math.exp(-1)))
    assert tag_probabilities({3: 0.0, 5: -math.inf}, TAGS).p_think == 1.0
    assert tag_probabilities({3: -math.inf, 5: 0.0}, TAGS).p_think == 0.0
    assert tag_probabilities({3: 1e-9, 5: -1e-9}, TAGS).tag_mass == 1.0


@pytest.mark.parametrize("row", [{}, {3: -0.1}, {3: -math.inf, 5: -math.inf}, {3: math.nan, 5: -0.1}])
def test_log_probabilities_that_say_nothing_are_an_engine_error(row):
    with pytest.raises(EngineError, match="log-probabilities"):
        tag_probabilities(row, TAGS)
