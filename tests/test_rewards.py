import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhrm_train.config import ConfigError, RewardConfig
from lhrm_train.format import ChatTokenizer, FormatError, Message, Mode
from lhrm_train.problems import Problem
from lhrm_train.rewards import Judge

CONFIG = RewardConfig()
EIGHT = Problem((Message("user", "4+4?"),), "8")


@pytest.fixture(scope="module")
def tokenizer(nano_dir):
    return ChatTokenizer.load(nano_dir)


def body(tokenizer, *parts):
    names = {
        "<t>": tokenizer.tags.think,
        "</t>": tokenizer.tags.think_end,
        "<n>": tokenizer.tags.no_think,
        "</n>": tokenizer.tags.no_think_end,
        "<end>": tokenizer.turn_end_id,
    }
    ids = []
    for part in parts:
        ids += [names[part]] if part in names else tokenizer.encode_text(part)
    return ids


def no_think(tokenizer, answer):
    return body(tokenizer, answer, "</n>", "<end>")


def raises(problem, answer):
    raise RuntimeError(f"cannot score {answer}")


def returns_reference(problem, answer):
    return float(problem.reference)


def returns_nothing(problem, answer):
    return None


def needs_setting(problem, answer):
    raise ConfigError("model = 'x' cannot be loaded")


@pytest.mark.parametrize(
    ("mode", "parts", "score", "leaked"),
    [
        (Mode.THINK, ("4+4=8", "</t>", "8", "<end>"), 1.0, False),
        (Mode.THINK, ("</t>", "8", "<end>"), 1.0, False),  # empty reasoning is still well formed
        (Mode.THINK, ("4+4=8", "</t>", "9", "<end>"), 0.0, False),  # wrong answer
        (Mode.THINK, ("4+4=8", "</t>", "<end>"), 0.0, False),  # empty answer
        (Mode.THINK, ("8", "</t>", "8", "</t>", "8", "<end>"), 0.0, True),  # closed twice
        (Mode.THINK, ("a", "</t>", "8", "</t>", "<end>"), 0.0, True),
        (Mode.THINK, ("a", "</t>", "8", "</n>", "<end>"), 0.0, True),  # closed by the other tag as well
        (Mode.THINK, ("a", "</n>", "8", "<end>"), 0.0, True),  # closed by the other tag only
        (Mode.THINK, ("a", "<n>", "</t>", "8", "<end>"), 0.0, True),  # other mode's tag in the reasoning
        (Mode.THINK, ("<t>", "a", "</t>", "8", "<end>"), 0.0, True),  # opened twice
        (Mode.THINK, ("8", "<end>"), 0.0, False),  # never closed
        (Mode.NO_THINK, ("8", "</n>", "<end>"), 1.0, False),
        (Mode.NO_THINK, ("8 ", "</n>", "<end>"), 1.0, False),  # outer white space
        (Mode.NO_THINK, ("9", "</n>", "<end>"), 0.0, False),
        (Mode.NO_THINK, ("</n>", "<end>"), 0.0, False),
        (Mode.NO_THINK, ("8", "<end>"), 0.0, False),  # never closed
        (Mode.NO_THINK, ("8", "</t>", "<end>"), 0.0, True),  # closed by the other tag
        (Mode.NO_THINK, ("<t>", "8", "</n>", "<end>"), 0.0, True),  # reopened a thought
        (Mode.NO_THINK, ("8", "</n>", "8", "</n>", "<end>"), 0.0, True),  # closed twice
        (Mode.NO_THINK, ("8", "</n>", "</n>", "<end>"), 0.0, True),
        (Mode.NO_THINK, ("8", "</n>", " ", "<end>"), 0.0, True),  # something after the closing tag
    ],
)
def test_a_completion_that_ended(tokenizer, mode, parts, score, leaked):
    result = Judge(tokenizer, CONFIG).judge(EIGHT, mode, body(tokenizer, *parts))
    assert (result.score, result.leaked, result.valid) == (score, leaked, True)
    assert (result.ended, result.truncated) == (True, False)


@pytest.mark.parametrize(
    ("mode", "parts"),
    [
        (Mode.THINK, ("4+4=8", "</t>", "8")),
        (Mode.THINK, ("4+4=8",)),
        (Mode.THINK, ()),
        (Mode.NO_THINK, ("8", "</n>")),
        (Mode.NO_THINK, ("8",)),
        (Mode.NO_THINK, ()),
    ],
)
def test_a_truncated_completion_scores_nothing(tokenizer, mode, parts):
    result = Judge(tokenizer, CONFIG).judge(EIGHT, mode, body(tokenizer, *parts))
    assert (result.score, result.valid, result.ended, result.truncated) == (0.0, True, False, True)


def test_token_counts_add_up(tokenizer):
    ids = body(tokenizer, "4+4=8", "</t>", "8", "<end>")
    result = Judge(tokenizer, CONFIG).judge(EIGHT, Mode.THINK, ids)
    assert (result.reasoning_tokens, result.answer_tokens, result.completion_tokens) == (5, 1, 8)
    assert result.answer == "8"


def test_ids_after_the_end_are_a_mistake_of_the_caller(tokenizer):
    with pytest.raises(FormatError, match="after the end of turn"):
        Judge(tokenizer, CONFIG).judge(EIGHT, Mode.THINK, body(tokenizer, "8", "<end>", "8"))


def test_a_problem_may_name_its_own_scorer(tokenizer):
    judge = Judge(tokenizer, CONFIG)
    ids = no_think(tokenizer, "It is 8.0")
    assert judge.judge(EIGHT, Mode.NO_THINK, ids).score == 0
    assert judge.judge(replace(EIGHT, scorer="numeric"), Mode.NO_THINK, ids).score == 1
    assert Judge(tokenizer, RewardConfig(scorer="numeric")).judge(EIGHT, Mode.NO_THINK, ids).score == 1


def test_unknown_scorers_are_refused(tokenizer):
    unknown = replace(EIGHT, scorer="exakt")
    judge = Judge(tokenizer, CONFIG)
    judge.check([EIGHT, replace(EIGHT, scorer="numeric")])
    with pytest.raises(ConfigError, match="unknown scorer 'exakt'"):
        judge.check([EIGHT, unknown])
    with pytest.raises(ConfigError, match="unknown scorer 'exakt'"):
        judge.judge(unknown, Mode.NO_THINK, no_think(tokenizer, "8"))
    with pytest.raises(ConfigError, match="unknown scorer 'exakt'"):
        Judge(tokenizer, RewardConfig(scorer="exakt"))
    assert judge.failures == {}


@pytest.mark.parametrize(
    ("function", "reference", "kind"),
    [
        ("raises", "", "RuntimeError"),
        ("returns_reference", "nan", "ScoreError"),
        ("returns_reference", "inf", "ScoreError"),
        ("returns_reference", "1.01", "ScoreError"),
        ("returns_reference", "-0.01", "ScoreError"),
        ("returns_nothing", "", "TypeError"),
    ],
)
def test_a_scorer_that_fails_makes_the_result_invalid(tokenizer, function, reference, kind):
    judge = Judge(tokenizer, RewardConfig(scorer=f"tests.test_rewards:{function}"))
    problem = replace(EIGHT, reference=reference)
    result = judge.judge(problem, Mode.NO_THINK, no_think(tokenizer, "8"))
    assert math.isnan(result.score)
    assert not result.valid
    assert judge.failures == {kind: 1}


@pytest.mark.parametrize("score", ["0", "0.25", "1"])
def test_scores_from_0_to_1_are_kept(tokenizer, score):
    judge = Judge(tokenizer, RewardConfig(scorer="tests.test_rewards:returns_reference"))
    result = judge.judge(replace(EIGHT, reference=score), Mode.NO_THINK, no_think(tokenizer, "8"))
    assert (result.score, result.valid) == (float(score), True)


def test_failures_are_counted_and_the_first_is_kept(tokenizer):
    judge = Judge(tokenizer, RewardConfig(scorer="tests.test_rewards:raises"))
    assert (judge.failures, judge.first_failure) == ({}, "")
    judge.judge(EIGHT, Mode.NO_THINK, no_think(tokenizer, "first"))
    judge.judge(EIGHT, Mode.NO_THINK, no_think(tokenizer, "second"))
    other = replace(EIGHT, scorer="numeric", reference="no number")
    judge.judge(other, Mode.NO_THINK, no_think(tokenizer, "third"))
    assert judge.failures == {"RuntimeError": 2, "ScoreError": 1}
    assert judge.first_failure.startswith("scorer 'tests.test_rewards:raises':\nTraceback")
    assert "RuntimeError: cannot score first" in judge.first_failure
    assert "second" not in judge.first_failure


def test_a_malformed_completion_never_reaches_the_scorer(tokenizer):
    judge = Judge(tokenizer, RewardConfig(scorer="tests.test_rewards:raises"))
    assert judge.judge(EIGHT, Mode.NO_THINK, body(tokenizer, "8")).valid
    assert judge.failures == {}


def test_a_setting_that_a_scorer_cannot_use_ends_the_run(tokenizer):
    judge = Judge(tokenizer, RewardConfig(scorer="tests.test_rewards:needs_setting"))
    with pytest.raises(ConfigError, match="cannot be loaded"):
        judge.judge(EIGHT, Mode.NO_THINK, no_think(tokenizer, "8"))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("8", 0),
        ("Wait, 8", 1),
        ("wait WAIT wait", 1),  # different words, not occurrences
        ("hmm, wait", 2),
        ("waiter", 0),
        ("await", 0),
        ("let me\n think", 1),
        ("let me not think", 0),
        ("Hmm! Alternatively: step by step, wait, let me think", 5),
    ],
)
def test_leak_words_are_measured(tokenizer, answer, words):
    result = Judge(tokenizer, CONFIG).judge(EIGHT, Mode.NO_THINK, no_think(tokenizer, answer))
    assert result.leak_words == words
    thought = body(tokenizer, answer, "</t>", answer, "<end>")
    assert Judge(tokenizer, CONFIG).judge(EIGHT, Mode.THINK, thought).leak_words == 0


def test_leak_words_fail_only_where_they_are_told_to(tokenizer):
    wait = replace(EIGHT, reference="Wait 8")
    results = []
    for fail in (False, True):
        judge = Judge(tokenizer, RewardConfig(leak_words_fail=fail))
        result = judge.judge(wait, Mode.NO_THINK, no_think(tokenizer, "Wait 8"))
        results.append((result.score, result.leak_words, result.valid))
        assert judge.judge(EIGHT, Mode.NO_THINK, no_think(tokenizer, "8")).score == 1
        assert judge.judge(wait, Mode.THINK, body(tokenizer, "</t>", "Wait 8", "<end>")).score == 1
    assert results == [(1.0, 1, True), (0.0, 1, True)]


def test_the_same_leak_word_counts_once_and_an_empty_one_is_refused(tokenizer):
    judge = Judge(tokenizer, RewardConfig(leak_words=("wait", "Wait", "wait ")))
    assert judge.judge(EIGHT, Mode.NO_THINK, no_think(tokenizer, "wait")).leak_words == 1
    with pytest.raises(ConfigError, match="an empty word"):
        Judge(tokenizer, RewardConfig(leak_words=("wait", " ")))


@pytest.mark.parametrize(("limit", "overlong"), [(0, False), (2, True), (3, False)])
def test_the_no_think_limit(tokenizer, limit, overlong):
    # The closing tag and the end of turn count: three tokens.
    judge = Judge(tokenizer, RewardConfig(no_think_max_tokens=limit))
    result = judge.judge(EIGHT, Mode.NO_THINK, no_think(tokenizer, "8"))
    assert (result.completion_tokens, result.overlong, result.score) == (3, overlong, float(not overlong))
    thought = judge.judge(EIGHT, Mode.THINK, body(tokenizer, "4+4=8", "</t>", "8", "<end>"))
    assert (thought.overlong, thought.score) == (False, 1.0)


@given(data=st.data(), mode=st.sampled_from(Mode), ended=st.booleans())
def test_any_completion_is_judged(nano_tokenizer, data, mode, ended):
    tags = nano_tokenizer.tags
    special = st.sampled_from([tags.think, tags.think_end, tags.no_think, tags.no_think_end])
    token = special | st.integers(0, nano_tokenizer.vocab_size - 1).filter(lambda i: i != nano_tokenizer.turn_end_id)
    ids = data.draw(st.lists(token, max_size=20)) + [nano_tokenizer.turn_end_id] * ended
    result = Judge(nano_tokenizer, CONFIG).judge(EIGHT, mode, ids)
    assert result.valid
    assert result.completion_tokens == len(ids)
    assert result.truncated is not ended
    assert result.reasoning_tokens + result.answer_tokens <= len(ids)
    assert result.score == 0 or (ended and not result.leaked and result.answer.strip() == "8")
