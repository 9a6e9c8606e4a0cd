"""Precedence, contradictions, budgets and permission as pure functions: tables, then properties over all requests."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lhrm_server.control import EFFORT_LEVELS, UNLIMITED, Ask, Wish
from lhrm_server.engine import EngineError
from lhrm_server.errors import ContradictionError, InvalidRequestError, ModeNotAllowedError
from lhrm_server.policy import (
    ModePlan,
    ModePolicy,
    Source,
    TagProbabilities,
    Wanted,
    choose_mode,
    parse_force_header,
    parse_mode_header,
    plan_mode,
    tag_probabilities,
)
from lhrm_server.setting_checks import SettingsError

from lhrm_train.format import Mode, TagIds

TAGS = TagIds(think=3, think_end=4, no_think=5, no_think_end=6)
AUTO, THINK, NO_THINK = Wish.AUTO, Wish.THINK, Wish.NO_THINK
MODEL, REQUEST, POLICY = Source.MODEL, Source.REQUEST, Source.POLICY


def said(*wishes):
    return tuple(Ask(f"field{i}", wish) for i, wish in enumerate(wishes))


@pytest.mark.parametrize(
    ("wishes", "threshold", "header", "alias", "default", "expected"),
    [
        ((), None, None, None, AUTO, (AUTO, MODEL)),
        ((), None, None, None, THINK, (THINK, POLICY)),
        ((), None, None, None, NO_THINK, (NO_THINK, POLICY)),
        ((), None, None, THINK, NO_THINK, (THINK, REQUEST)),
        ((), None, None, NO_THINK, THINK, (NO_THINK, REQUEST)),
        ((), None, THINK, None, AUTO, (THINK, REQUEST)),
        ((), None, AUTO, THINK, NO_THINK, (AUTO, MODEL)),
        ((), None, NO_THINK, THINK, AUTO, (NO_THINK, REQUEST)),
        ((THINK,), None, NO_THINK, NO_THINK, NO_THINK, (THINK, REQUEST)),
        ((AUTO,), None, THINK, THINK, THINK, (AUTO, MODEL)),
        ((NO_THINK, NO_THINK), None, None, None, AUTO, (NO_THINK, REQUEST)),
        ((), 0.3, THINK, THINK, THINK, (AUTO, MODEL)),
        ((AUTO,), 0.3, None, None, AUTO, (AUTO, MODEL)),
    ],
)
def test_precedence(wishes, threshold, header, alias, default, expected):
    plan = plan_mode(Wanted(said(*wishes), threshold, header, alias), ModePolicy(default))
    assert (plan.wish, plan.source) == expected
    assert plan.threshold == (0.5 if threshold is None else threshold)


@pytest.mark.parametrize("wishes", [(THINK, NO_THINK), (AUTO, THINK), (THINK, THINK, NO_THINK)])
def test_disagreeing_body_fields_are_both_named(wishes):
    with pytest.raises(ContradictionError) as caught:
        plan_mode(Wanted(said(*wishes)), ModePolicy())
    assert (caught.value.param, caught.value.code) == (f"field0, field{len(wishes) - 1}", "contradictory_mode")


@pytest.mark.parametrize("wish", [THINK, NO_THINK])
def test_threshold_contradicts_a_forcing_body_field(wish):
    with pytest.raises(ContradictionError) as caught:
        plan_mode(Wanted(said(wish), 0.0), ModePolicy())
    assert caught.value.param == "field0, think_threshold"


@pytest.mark.parametrize(
    ("asks", "changes", "budget"),
    [
        ((), {}, None),
        ((Ask("a", THINK, budget=9),), {}, 9),
        ((Ask("a", budget=9), Ask("b", budget=9)), {}, 9),
        ((Ask("a", budget=UNLIMITED),), {}, None),
        ((Ask("a", THINK, effort="low"),), {}, None),
        ((Ask("a", THINK, effort="low"),), {"effort_budgets": {"low": 30}}, 30),
        ((Ask("a", THINK, effort="high"),), {"effort_budgets": {"low": 30}}, None),
        ((Ask("a", THINK, effort="high"), Ask("b", budget=9)), {"effort_budgets": {"low": 30}}, 9),
        ((), {"max_reasoning_tokens": 20}, 20),
        ((Ask("a", budget=UNLIMITED),), {"max_reasoning_tokens": 20}, 20),
        ((Ask("a", budget=9),), {"max_reasoning_tokens": 20}, 9),
        ((Ask("a", budget=90),), {"max_reasoning_tokens": 20}, 20),
        ((Ask("a", THINK, effort="low"),), {"effort_budgets": {"low": 30}, "max_reasoning_tokens": 20}, 20),
        ((Ask("a", NO_THINK), Ask("b", budget=9)), {"max_reasoning_tokens": 20}, None),
    ],
)
def test_budgets(asks, changes, budget):
    assert plan_mode(Wanted(asks), ModePolicy(**changes)).budget == budget


@pytest.mark.parametrize(
    ("asks", "param", "code"),
    [
        ((Ask("a", budget=9), Ask("b", budget=8)), "a, b", "contradictory_budget"),
        ((Ask("a", budget=9), Ask("b", budget=UNLIMITED)), "a, b", "contradictory_budget"),
        ((Ask("a", budget=9), Ask("b", NO_THINK, budget=0)), "a, b", "contradictory_budget"),
        ((Ask("a", THINK, effort="low"), Ask("b", budget=9)), "a, b", "contradictory_budget"),
        ((Ask("a", THINK, effort="low"), Ask("b", budget=UNLIMITED)), "a, b", "contradictory_budget"),
        ((Ask("a", THINK, effort="low"), Ask("b", THINK, effort="high")), "a, b", "contradictory_effort"),
        ((Ask("a", NO_THINK), Ask("b", THINK, budget=9)), "a, b", "contradictory_mode"),
    ],
)
def test_contradictory_budgets(asks, param, code):
    with pytest.raises(ContradictionError) as caught:
        plan_mode(Wanted(asks), ModePolicy(effort_budgets={"low": 30}))
    assert (caught.value.param, caught.value.code) == (param, code)


def test_the_plan_carries_the_operators_reserve_and_retry():
    plan = plan_mode(Wanted(), ModePolicy(answer_reserve=64, retry_unanswered=True))
    assert (plan.answer_reserve, plan.retry_unanswered) == (64, True)
    assert (plan_mode(Wanted(), ModePolicy()).answer_reserve, plan.budget) == (0, None)


@pytest.mark.parametrize(
    ("wanted", "allowed", "param"),
    [
        (Wanted(said(THINK)), (AUTO, NO_THINK), "field0"),
        (Wanted(header=THINK), (AUTO,), "X-LHRM-Mode"),
        (Wanted(alias=NO_THINK), (AUTO, THINK), "model"),
        (Wanted(header=AUTO), (THINK,), "X-LHRM-Mode"),
        (Wanted(think_threshold=0.4), (THINK,), "think_threshold"),
        # Turned far enough the dial is a mode that this server does not leave to requests.
        (Wanted(think_threshold=0.4), (AUTO,), "think_threshold"),
        (Wanted(think_threshold=0.4), (AUTO, NO_THINK), "think_threshold"),
        (Wanted((Ask("nvext.max_thinking_tokens", NO_THINK, budget=0),)), (AUTO, THINK), "nvext.max_thinking_tokens"),
    ],
)
def test_a_mode_that_requests_may_not_ask_for(wanted, allowed, param):
    with pytest.raises(ModeNotAllowedError) as caught:
        plan_mode(wanted, ModePolicy(allowed[0], allowed_modes=allowed))
    assert (caught.value.status, caught.value.code, caught.value.param) == (403, "mode_not_allowed", param)


def test_what_is_outranked_needs_no_permission():
    policy = ModePolicy(allowed_modes=(AUTO,))
    assert plan_mode(Wanted(said(AUTO), header=THINK, alias=NO_THINK), policy).wish is AUTO
    assert plan_mode(Wanted(header=THINK, forced=Mode.THINK), policy).source is POLICY


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"default_mode": THINK, "allowed_modes": (AUTO, NO_THINK)}, "default_mode='think'"),
        ({"allowed_modes": ()}, r"allowed_modes=\[\]"),
        ({"think_threshold": 1.01}, "think_threshold=1.01"),
        ({"think_threshold": float("nan")}, "think_threshold=nan"),
        ({"effort_budgets": {"none": 5}}, "effort_budgets='none'"),
        ({"effort_budgets": {"low": 0}}, "effort_budgets.low=0"),
        ({"max_reasoning_tokens": -1}, "max_reasoning_tokens=-1"),
        ({"answer_reserve": -1}, "answer_reserve=-1"),
    ],
)
def test_a_policy_that_cannot_work_is_refused_by_name(changes, named):
    with pytest.raises(SettingsError, match=named):
        ModePolicy(**changes)


@pytest.mark.parametrize("value", ["", "yes", "think, no_think", "nothink"])
def test_bad_headers(value):
    for parse, name in ((parse_mode_header, "X-LHRM-Mode"), (parse_force_header, "X-LHRM-Force")):
        with pytest.raises(InvalidRequestError) as caught:
            parse(value)
        assert caught.value.param == name


def test_headers():
    assert [parse_mode_header(value) for value in (" Auto ", "think", "NO_THINK")] == [AUTO, THINK, NO_THINK]
    assert [parse_force_header(value) for value in ("Think", " no_think")] == [Mode.THINK, Mode.NO_THINK]
    with pytest.raises(InvalidRequestError):
        parse_force_header("auto")


# Properties over requests and policies of every kind.
wishes = st.sampled_from(Wish)
maybe_wish = st.none() | wishes
budgets = st.none() | st.integers(UNLIMITED, 40)
thresholds = st.none() | st.sampled_from((0.0, 1.0)) | st.floats(0, 1)
a_ask = st.builds(
    Ask,
    param=st.sampled_from(("a", "b", "c", "d")),
    wish=maybe_wish,
    effort=st.none() | st.sampled_from(EFFORT_LEVELS),
    budget=budgets,
)
asks_lists = st.lists(a_ask, max_size=4).map(tuple)
wanteds = st.builds(
    Wanted,
    asks=asks_lists,
    think_threshold=thresholds,
    header=maybe_wish,
    alias=maybe_wish,
    forced=st.none() | st.sampled_from(Mode),
)


@st.composite
def policies(draw):
    allowed = draw(st.sets(wishes, min_size=1))
    return ModePolicy(
        default_mode=draw(st.sampled_from(sorted(allowed, key=lambda wish: wish.value))),
        think_threshold=draw(st.floats(0, 1)),
        allowed_modes=tuple(wish for wish in Wish if wish in allowed),
        effort_budgets=draw(st.dictionaries(st.sampled_from(EFFORT_LEVELS), st.integers(1, 40))),
        max_reasoning_tokens=draw(st.integers(0, 40)),
        answer_reserve=draw(st.integers(0, 40)),
        retry_unanswered=draw(st.booleans()),
    )


def outcome(wanted, policy):
    """The plan, or the code of the error."""
    try:
        return plan_mode(wanted, policy)
    except (ContradictionError, ModeNotAllowedError) as exc:
        return exc.code


def places(wanted):
    """What is asked for, from the strongest place to the weakest."""
    body = [ask.wish for ask in wanted.asks if ask.wish]
    dial = [AUTO] if wanted.think_threshold is not None else []
    return [*[*body, *dial][:1], *[wish for wish in (wanted.header, wanted.alias) if wish]]


@given(wanteds, policies())
def test_the_strongest_place_decides(wanted, policy):
    plan = outcome(wanted, policy)
    if isinstance(plan, str):
        return
    if wanted.forced is not None:
        assert (plan.wish.mode, plan.source) == (wanted.forced, POLICY)
    else:
        strongest = places(wanted)
        assert plan.wish is (strongest[0] if strongest else policy.default_mode)
        forced_by = REQUEST if strongest else POLICY
        assert plan.source is (MODEL if plan.wish is AUTO else forced_by)


@given(wanteds, policies(), st.randoms())
def test_contradiction_does_not_depend_on_the_order_of_fields(wanted, policy, random):
    mixed = list(wanted.asks)
    random.shuffle(mixed)
    found = outcome(wanted, policy)
    other = outcome(Wanted(tuple(mixed), wanted.think_threshold, wanted.header, wanted.alias, wanted.forced), policy)
    is_contradiction = [isinstance(it, str) and it.startswith("contradictory") for it in (found, other)]
    assert is_contradiction[0] == is_contradiction[1]
    if not is_contradiction[0]:
        assert found == other


@given(wanteds, policies())
def test_two_modes_in_the_body_never_pass(wanted, policy):
    body = {ask.wish for ask in wanted.asks if ask.wish} | ({AUTO} if wanted.think_threshold is not None else set())
    if len(body) > 1:
        assert outcome(wanted, policy) == "contradictory_mode"


@given(asks_lists, st.sampled_from(Mode), wanteds, policies())
def test_force_beats_all_but_a_malformed_body(asks, forced, wanted, policy):
    plan = outcome(Wanted(asks, wanted.think_threshold, wanted.header, wanted.alias, forced), policy)
    if isinstance(plan, str):
        assert plan.startswith("contradictory")
        assert outcome(Wanted(asks, wanted.think_threshold), policy) == plan
    else:
        assert choose_mode(plan, None).mode is forced


@given(wanteds, policies())
def test_no_request_gets_a_mode_that_it_may_not_ask_for(wanted, policy):
    plan = outcome(wanted, policy)
    if isinstance(plan, ModePlan) and wanted.forced is None:
        assert plan.wish in policy.allowed_modes


@given(wanteds, policies())
def test_the_operators_cap_always_holds(wanted, policy):
    plan = outcome(wanted, policy)
    if isinstance(plan, str):
        return
    if plan.wish is NO_THINK:
        assert plan.budget is None
    elif policy.max_reasoning_tokens:
        assert plan.budget is not None
        assert plan.budget <= policy.max_reasoning_tokens
    assert plan.budget is None or plan.budget >= 0


@given(st.floats(0, 1), st.sampled_from((0.0, 1.0)))
def test_threshold_0_always_thinks_and_1_never(p_think, threshold):
    plan = plan_mode(Wanted(think_threshold=threshold), ModePolicy())
    assert choose_mode(plan, TagProbabilities(p_think, 1.0)).mode is (Mode.THINK if threshold == 0 else Mode.NO_THINK)


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
