"""Ids and texts are graded alike."""

from dataclasses import replace

import pytest

from lhrm_train.config import ConfigError, RewardConfig
from lhrm_train.format import Mode, encode_answer
from lhrm_train.grading import Graded, Grader
from lhrm_train.samplers import Answered, Failed, Generated
from tests.graded import problem


def ids(tokenizer, mode, answer, reasoning="because"):
    return Generated(tuple(encode_answer(tokenizer, mode, reasoning, answer)[1:]))


GUARDS = RewardConfig(no_think_max_tokens=12, leak_words=("wait", "Let  me think"), leak_words_fail=True)


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("config", [RewardConfig(), GUARDS])
@pytest.mark.parametrize(
    "answer", ["7", " 7\n", "8", "", "wait, 7", "WAIT let me\nthink 7", "waiting 7", "7 7 7 7 7 7 7 7 7 7 7 7 7"]
)
@pytest.mark.parametrize("scorer", ["exact", "numeric", "tests.graded:moody"])
def test_a_text_is_graded_as_its_ids_are(nano_tokenizer, mode, config, answer, scorer):
    one = problem(7, scorer=scorer)
    completion = ids(nano_tokenizer, mode, answer)
    local = Grader(config, nano_tokenizer).grade(one, mode, completion)
    told = Answered(answer, len(completion.ids), truncated=False, well_formed=True)
    remote = Grader(config, None).grade(one, mode, told)
    assert (remote.score, remote.tokens, remote.truncated) == (local.score, local.tokens, local.truncated)
    assert remote.leak_words == local.leak_words
    assert (local.leaked, remote.leaked) == (False, None)


@pytest.mark.parametrize(
    ("answer", "mode", "score", "leak_words", "overlong"),
    [
        ("7", Mode.NO_THINK, 1.0, 0, False),
        ("wait, no, let me  think: 7", Mode.NO_THINK, 0.0, 2, True),
        ("hmm 7", Mode.NO_THINK, 1.0, 0, False),  # not one of these leak words
        ("wait 7", Mode.THINK, 1.0, 0, False),  # thinking aloud is what think mode is for
    ],
)
def test_guards_by_hand(answer, mode, score, leak_words, overlong):
    config = replace(GUARDS, scorer="numeric")
    told = Answered(answer, 13 if overlong else 12, truncated=False, well_formed=True)
    graded = Grader(config, None).grade(problem(7), mode, told)
    assert (graded.score, graded.leak_words, graded.overlong) == (score, leak_words, overlong)


@pytest.mark.parametrize(("answer", "overlong"), [("7", False), ("7 7 7", False), ("7 7 7 7 7 7 7 7", True)])
def test_only_an_exact_reference_says_how_long_an_answer_needs_to_be(nano_tokenizer, answer, overlong):
    for scorer, expected in (("exact", overlong), ("numeric", False)):
        grader = Grader(RewardConfig(scorer=scorer), nano_tokenizer)
        completion = ids(nano_tokenizer, Mode.NO_THINK, answer)
        assert grader.grade(problem(7), Mode.NO_THINK, completion).overlong is expected


def test_malformed_cut_and_missing_answers():
    grader = Grader(RewardConfig(), None)
    cut = grader.grade(problem(7), Mode.THINK, Answered("7", 40, truncated=True, well_formed=False))
    assert (cut.score, cut.truncated, cut.error) == (0.0, True, "")
    unclosed = grader.grade(problem(7), Mode.NO_THINK, Answered("7", 4, truncated=False, well_formed=False))
    assert (unclosed.score, unclosed.truncated) == (0.0, False)
    assert grader.grade(problem(7), Mode.THINK, Failed("gone")) == Graded(error="gone")
    with pytest.raises(ValueError, match="without a tokenizer"):
        grader.grade(problem(7), Mode.THINK, Generated((1,)))


def test_every_sample_has_an_error_of_its_own(nano_tokenizer):
    # The second failure once carried the text of the first.
    grader = Grader(RewardConfig(scorer="tests.graded:moody"), nano_tokenizer)
    errors = [
        grader.grade(problem(index), Mode.NO_THINK, ids(nano_tokenizer, Mode.NO_THINK, "x")).error
        for index in (4, 5, 6)
    ]
    assert errors[0] == "the scorer failed with RuntimeError: in a mood"
    assert errors[1] == "the scorer failed with ScoreError: score 7.0 is not in [0, 1]"
    assert errors[2] == ""


@pytest.mark.parametrize("tokenizer", [False, True])
def test_an_empty_leak_word_is_refused_for_texts_too(nano_tokenizer, tokenizer):
    with pytest.raises(ConfigError, match="an empty word is in every answer"):
        Grader(RewardConfig(leak_words=("wait", " ")), nano_tokenizer if tokenizer else None)
