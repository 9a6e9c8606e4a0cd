"""The table of scorers, and what holds for all of them."""

import subprocess
import sys

import pytest

from lhrm_train.config import ConfigError
from lhrm_train.problems import Problem
from lhrm_train.rewards import ScoreError, scorer
from tests.scoring import CONFIG, problem, score


def custom(problem: Problem, answer: str) -> float:
    return len(answer) / 10


NOT_A_FUNCTION = 3


@pytest.mark.parametrize("path", ["tests.test_scorers:custom", "tests.test_scorers.custom"])
def test_a_scorer_of_ones_own_is_named_by_its_import_path(path):
    assert score(path, "", "abc") == 0.3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("exakt", r"unknown scorer 'exakt'; known: exact, numeric, math, choice, json, regex, gym, reward_model"),
        ("", r"unknown scorer ''"),
        ("no_such_module:f", r"'no_such_module:f' cannot be imported"),
        ("tests.test_scorers:missing", r"cannot be imported.*missing"),
        ("tests.test_scorers:NOT_A_FUNCTION", r"is not a function"),
        (".relative", r"cannot be imported"),
        ("..relative", r"cannot be imported"),
        ("json:", r"cannot be imported"),
        ("reward_model", r"model = ''"),
    ],
)
def test_the_table_refuses(name, message):
    with pytest.raises(ConfigError, match=message):
        scorer(name, CONFIG)


def test_a_missing_package_is_named_before_training(monkeypatch):
    monkeypatch.setattr("lhrm_train.rewards.base.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"'math' needs the package math_verify: pip install 'lhrm\[train\]'"):
        scorer("math", CONFIG)
    assert scorer("exact", CONFIG)(problem("8"), "8") == 1


def test_the_scorers_load_their_packages_when_they_score():
    code = (
        "import sys, lhrm_train.rewards as r, lhrm_train.config as c\n"
        "for name in ('math', 'regex', 'gym', 'json'): r.scorer(name, c.RewardConfig())\n"
        "heavy = 'torch transformers math_verify sympy regex jsonschema reasoning_gym'.split()\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("answer", "expected"), [("8 cats", 1), (" 8 cats\n", 1), ("8 Cats", 0), ("8  cats", 0), ("", 0), ("\ufffd", 0)]
)
def test_exact(answer, expected):
    assert score("exact", "8 cats ", answer) == expected


@pytest.mark.parametrize(
    ("pattern", "answer", "expected"),
    [
        (r"\d{2,3}", "123", 1),
        (r"\d{2,3}", " 123\n", 1),
        (r"\d{2,3}", "1234", 0),
        (r"\d{2,3}", "a 123", 0),
        ("(?i)yes|no", "No", 1),
        ("yes|no", "", 0),
        ("a.b", "a\nb", 0),
        ("", "", 1),
    ],
)
def test_regex(pattern, answer, expected):
    assert score("regex", pattern, answer) == expected


def test_regex_refuses_what_does_not_compile():
    with pytest.raises(ScoreError, match=r"reference '\(' is no regular expression"):
        score("regex", "(", "x")


def test_regex_gives_up_on_an_endless_match(monkeypatch):
    monkeypatch.setattr("lhrm_train.rewards.pattern.MATCH_SECONDS", 0.05)
    with pytest.raises(ScoreError, match=r"took over 0\.05 s"):
        score("regex", r"(a|aa)+\1(?<=b)$", "a" * 200)


LOOPS = (
    "1",
    "1,",
    "1 ",
    "1,234,",
    "-",
    " ",
    "\n",
    "B ",
    "(B) ",
    "answer ",
    "answer: ",
    "\\frac{",
    "\\boxed{",
    "```\n",
    "``` ",
    "{",
)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["exact", "numeric", "choice", "json"])
@pytest.mark.parametrize("loop", LOOPS)
def test_long_repetitions_are_scored_in_time(name, loop):
    reference = "B" if name == "choice" else "8"
    assert score(name, reference, f"answer {loop * 100_000}") in (0, 1)
    assert score(name, reference, f"```{' ' * 100_000}{loop} answer{' ' * 100_000}{loop}") in (0, 1)


@pytest.mark.parametrize("task", ["chain_sum", "leg_counting"])
def test_gym(reasoning_gym, task):
    entry = reasoning_gym.create_dataset(task, size=1, seed=3)[0]
    asked = problem(entry["answer"], dataset=task, entry=entry)
    gym = scorer("gym", CONFIG)
    assert gym(asked, entry["answer"]) == 1
    assert gym(asked, "") == 0
    assert gym(asked, "no idea") == 0


def test_gym_may_give_a_part_of_the_score(reasoning_gym):
    entry = {"question": "1 + 1 =", "answer": "2", "metadata": {}}
    assert scorer("gym", CONFIG)(problem(dataset="chain_sum", entry=entry), "x2xx") == 0.25


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"entry": {}}, r"fields\['dataset'\] = None is not a string"),
        ({"dataset": "chain_sum"}, r"fields\['entry'\] = None is not a mapping"),
        ({"dataset": "chain_sum", "entry": "{}"}, r"fields\['entry'\] = '\{\}' is not a mapping"),
        ({"dataset": "no_such_task", "entry": {}}, r"fields\['dataset'\] = 'no_such_task'"),
    ],
)
def test_gym_refuses(reasoning_gym, fields, message):
    with pytest.raises(ScoreError, match=message):
        score("gym", "", "1", **fields)
