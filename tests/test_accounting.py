import pytest
from gateway_fixtures import CALIBRATION
from lhrm_server.accounting import RequestFacts, Savings, TokenCounts, estimate_savings
from lhrm_server.control import Wish
from lhrm_server.policy import ModeDecision, Source

from lhrm_train.format import Mode

CHOSE_NO_THINK = ModeDecision(Mode.NO_THINK, Source.MODEL, 0.1, 0.5, 0.99)
CHOSE_THINK = ModeDecision(Mode.THINK, Source.MODEL, 0.8, 0.5, 0.99)
FORCED_THINK = ModeDecision(Mode.THINK, Source.REQUEST)


def facts(max_tokens=200, n=1):
    return RequestFacts("r", "c", "m", False, Wish.AUTO, 20, max_tokens, 5.0, n)


def made(tokens, prompt=20):
    return TokenCounts(prompt, answer=tokens)


def test_savings_against_hand_computed_numbers():
    # The bin: always-think 60.4 tokens, 40.2 to 90.0.
    assert estimate_savings(CHOSE_NO_THINK, made(10), facts(200), None, CALIBRATION) == Savings(
        50, (30, 80), 0.9, 120, "calibration", "modelled", 60.4
    )


def test_the_opening_tag_does_not_move_a_prompt_into_the_next_bin():
    assert estimate_savings(CHOSE_NO_THINK, made(10, 200), facts(200), None, CALIBRATION) is not None


def test_savings_may_be_negative():
    found = estimate_savings(CHOSE_NO_THINK, made(100), facts(200), None, CALIBRATION)
    assert (found.tokens, found.interval) == (-40, (-60, -10))


def test_always_think_would_have_been_capped_too():
    found = estimate_savings(CHOSE_NO_THINK, made(10), facts(50), None, CALIBRATION)
    assert (found.tokens, found.interval, found.baseline_tokens) == (40, (30, 40), 50)


@pytest.mark.parametrize("calibration", [CALIBRATION, None])
def test_choosing_to_think_saves_exactly_nothing(calibration):
    found = estimate_savings(CHOSE_THINK, made(70), facts(200), None, calibration)
    assert (found.tokens, found.interval, found.baseline_tokens) == (0, (0, 0), 70)


@pytest.mark.parametrize(
    ("decision", "prompt", "calibration"),
    [
        (FORCED_THINK, 20, CALIBRATION),
        (ModeDecision(Mode.NO_THINK, Source.REQUEST), 20, CALIBRATION),
        (ModeDecision(Mode.NO_THINK, Source.POLICY), 20, CALIBRATION),
        (ModeDecision(Mode.NO_THINK, Source.MODEL, 0.4, 0.5, 1.0), 20, CALIBRATION),
        (CHOSE_NO_THINK, 201, CALIBRATION),
        (CHOSE_NO_THINK, 20, None),
    ],
)
def test_nothing_is_claimed_where_nothing_is_known(decision, prompt, calibration):
    assert estimate_savings(decision, made(10, prompt), facts(200), None, calibration) is None


def test_a_budget_caps_what_always_think_would_have_reasoned():
    # 30 tokens of reasoning in front of an answer of 10: no more than 40 of the bin's 60.4 (40.2 to 90.0).
    found = estimate_savings(CHOSE_NO_THINK, made(10), facts(200), 30, CALIBRATION)
    assert (found.tokens, found.interval, found.baseline_tokens) == (30, (30, 30), 40)


def test_of_several_choices_only_the_definition_is_claimed():
    assert estimate_savings(CHOSE_NO_THINK, made(10), facts(n=3), None, CALIBRATION) is None
    assert estimate_savings(CHOSE_THINK, made(70), facts(n=3), None, CALIBRATION).tokens == 0
