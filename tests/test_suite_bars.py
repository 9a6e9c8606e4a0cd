import math

import pytest

from lhrm_train.bars import bar_table
from lhrm_train.rows import ContextRow, ModeSamples, Row
from lhrm_train.suite_bars import context_loss, suite_bars


def samples(score, tokens, bad=False):
    return ModeSamples((float(score),) * 2, (tokens,) * 2, (bad,) * 2, (False,) * 2)


def row(think, no_think, p, level=2, tokens=(40, 4), bad=False):
    return Row(
        "add", level, False, "bare", "k", 20, p, 1.0, samples(think, tokens[0]), samples(no_think, tokens[1], bad)
    )


def asked(variant, scores):
    return [ContextRow(variant, "add", 1, f"k{i}", 0.5, (score,), i) for i, score in enumerate(scores)]


HARD, EASY = row(1, 0, 0.9), row(1, 1, 0.1)
EASY_BUT_THOUGHT = row(1, 1, 0.9, level=1)
CONTEXTS = [
    *asked("bare", [1.0] * 100),
    *asked("system", [1.0] * 99 + [0.0]),
    *asked("two turns", [1.0] * 97 + [0.0] * 3),
    *asked("eight turns", [0.5] * 100),
]


def met(test, before=(), contexts=CONTEXTS):
    return {(bar.what, bar.measured_on): bar.met for bar in suite_bars(test, before, contexts, 0.2)}


def test_a_model_that_meets_all_but_the_turns():
    found = suite_bars([HARD] * 40 + [EASY] * 60, [HARD] * 100, CONTEXTS, 0.2)
    assert [bar.met for bar in found] == [True] * 8 + [False, None]
    text = bar_table(found)
    assert "| free choice minus always-think | all | at least -1.0 points | +0.00 points | yes |" in text
    assert "at most 50%, or 3 points over the oracle's | 46.0% (oracle 46.0%) | yes |" in text
    assert "| free choice in a conversation minus bare | system | at least -2 points | -1.00 points [" in text
    assert "| two turns | at least -2 points | -3.00 points [-" in text
    assert text.count("**no**") == 1
    assert "| eight turns | - | -50.00 points [-50.0, -50.0] | - |" in text
    assert text.endswith("8 of 9 bars are met.")


@pytest.mark.parametrize(
    ("test", "before", "missed"),
    [
        ([HARD] * 40 + [EASY] * 59 + [row(1, 0, 0.1)], (), set()),
        ([HARD] * 40 + [EASY] * 58 + [row(1, 0, 0.1)] * 2, (), {"free choice minus always-think"}),
        ([HARD] * 40 + [EASY] * 59 + [row(0, 0, 0.1)], [HARD], set()),
        ([HARD] * 40 + [EASY] * 58 + [row(0, 0, 0.1)] * 2, [HARD], {"free choice minus always-think before HGPO"}),
        # The oracle spends 58 %, so that up to 61 % are well.
        ([HARD] * 55 + [EASY] * 45, (), set()),
        ([HARD] * 55 + [EASY] * 42 + [EASY_BUT_THOUGHT] * 3, (), set()),
        ([HARD] * 55 + [EASY] * 41 + [EASY_BUT_THOUGHT] * 4,
         (), {"completion tokens, share of always-think's", "Hybrid Accuracy"}),
        ([HARD] * 30 + [EASY] * 70, (), set()),
        ([HARD] * 29 + [EASY] * 71, (), {"prompts failing in no-think"}),
        ([HARD] * 40 + [EASY] * 59 + [row(1, 1, 0.1, bad=True)], (), {"no-think outputs with a tag or too long"}),
    ],
)  # fmt: skip
def test_what_is_missed(test, before, missed):
    found = met(test, before)
    assert {what for (what, on), value in found.items() if value is False and on != "two turns"} == missed


def test_hybrid_accuracy_of_the_upper_levels_has_a_bar_of_its_own():
    found = met([HARD] * 40 + [EASY] * 56 + [row(1, 1, 0.9)] * 4)
    assert (found["Hybrid Accuracy", "all"], found["Hybrid Accuracy", "levels 2 and up"]) == (False, True)
    assert ("Hybrid Accuracy", "levels 2 and up") not in met([EASY_BUT_THOUGHT])


def test_the_loss_in_a_conversation_is_paired_by_question():
    unanswered = ContextRow("system", "add", 1, "k1", None, (), 1, "no room")
    rows = [*asked("bare", [0.0, 1.0, 0.5]), *asked("system", [1.0]), unanswered, *asked("system", [0, 0, 0.0])[2:]]
    assert context_loss("system", rows).value == pytest.approx((1.0 - 0.5) / 2)
    assert math.isnan(context_loss("two turns", rows).value)
    assert met([HARD], (), rows)["free choice in a conversation minus bare", "two turns"] is False
