"""Prompts from files, the suite and reasoning-gym, and how answers to them are scored."""

import json

import pytest
from lhrm_loadtest.errors import LoadTestError
from lhrm_loadtest.grade import ScoringError, check_scorers, score
from lhrm_loadtest.prompts import DEFAULT_PROMPTS, Prompt, digest, load_prompts, prompt_lines
from lhrm_loadtest.sources import read_source, tasks


def asked(**fields) -> Prompt:
    return Prompt(id="1", messages=[{"role": "user", "content": "q"}], **fields)


def test_shipped_prompts_are_usable():
    prompts = load_prompts(DEFAULT_PROMPTS)
    assert all(prompt.answer and prompt.task and prompt.level is not None for prompt in prompts)
    assert any(len(prompt.messages) > 1 for prompt in prompts)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "no prompts"),
        ("nonsense", ":1: not JSON"),
        ("[]", ":1: line"),
        ('{"answer": "1"}', ":1: messages"),
        ('{"messages": []}', ":1: .*empty"),
        ('{"prompt": "a", "messages": []}', ":1: .*both"),
        ('{"prompt": 5}', ":1: messages.0.content = 5"),
        ('{"prompt": "a", "level": 1, "lvl": 2}', ":1: lvl = 2"),
        ('{"prompt": "a"}\n{"prompt": "a", "arrival_s": -1}', ":2: arrival_s = -1"),
        ('{"prompt": "a"}\n\n{"prompt": "b", "id": "1"}', "id '1' occurs twice"),
    ],
)
def test_unusable_prompt_files(tmp_path, text, named):
    path = tmp_path / "prompts.jsonl"
    path.write_text(text)
    with pytest.raises(LoadTestError, match=named):
        load_prompts(path)


def test_prompts_are_kept_as_they_were_read(tmp_path):
    full = asked(answer=("4", "four"), scorer="exact", fields={"a": [1]}, task="t", level=2, closed=True, arrival_s=0.5)
    line_separator = asked(answer="a\u2028b").model_copy(update={"id": "2"})
    path = tmp_path / "kept.jsonl"
    path.write_text(prompt_lines([full, line_separator]))
    assert load_prompts(path) == [full, line_separator]
    assert digest(load_prompts(path)) == digest([full, line_separator]) != digest([full])


def test_a_file_is_drawn_from_in_its_order(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"q{i}"}) + "\n" for i in range(20)))
    assert [prompt.id for prompt in read_source(str(path), None, 0)] == [str(i) for i in range(1, 21)]
    drawn = [int(prompt.id) for prompt in read_source(str(path), 5, 0)]
    assert (len(set(drawn)), drawn) == (5, sorted(drawn))
    assert drawn != [int(prompt.id) for prompt in read_source(str(path), 5, 1)]
    for n, named in ((21, "n = 21: .* has 20 prompts"), (0, "n = 0")):
        with pytest.raises(LoadTestError, match=named):
            read_source(str(path), n, 0)


def test_the_suite_by_name():
    prompts = read_source("nano", 30, 7)
    assert len({prompt.id for prompt in prompts}) == 30
    assert prompts == read_source("nano", 30, 7) != read_source("nano", 30, 8)
    assert len({prompt.task for prompt in prompts}) > 5
    for prompt in prompts:
        assert prompt.scorer == "exact"
        assert (score(prompt, f" {prompt.answer} "), score(prompt, f"{prompt.answer}x")) == (1, 0)


def test_reasoning_gym_by_name(reasoning_gym):
    prompts = read_source("gym:chain_sum,leg_counting", 5, 3)
    assert [prompt.task for prompt in prompts] == ["chain_sum"] * 3 + ["leg_counting"] * 2
    assert len({prompt.id for prompt in prompts}) == 5
    for prompt in prompts:
        assert score(prompt, prompt.answer) == 1
        assert score(prompt, "no idea") < 1


@pytest.mark.parametrize(
    ("source", "n", "named"),
    [
        ("gym:", 3, "name at least one data set"),
        ("gym:chain_sum,leg_counting", 1, "2 data sets are named"),
        ("gym:no_such_thing", 1, "gym:no_such_thing"),
        ("/nowhere.jsonl", None, "cannot read prompts /nowhere.jsonl"),
    ],
)
def test_unknown_sources(reasoning_gym, source, n, named):
    with pytest.raises(LoadTestError, match=named):
        read_source(source, n, 0)


@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    [
        ("42", "42", 1),
        ("42", " 42.\n", 1),
        ("Paris", "paris", 1),
        ("a b", "a  b", 1),
        ("42", "420", 0),
        ("42", "The answer is 42", 0),
        ("42", "", 0),
        (("odd", "uneven"), "Uneven", 1),
        (None, "42", None),
    ],
)
def test_plain_scoring(reference, answer, expected):
    assert score(asked(answer=reference), answer) == expected


def test_scorers_by_name():
    assert score(asked(answer="0.5", scorer="numeric"), "It is 1/2") in (0, 1)
    assert score(asked(answer="Yes", scorer="exact"), "yes") == 0
    with pytest.raises(LoadTestError, match="scorer = 'nope'"):
        check_scorers([asked(scorer="exact"), asked(scorer="nope")])
    with pytest.raises(ScoringError, match="gym: ScoreError"):
        score(asked(answer="1", scorer="gym"), "1")


def failing(problem, answer):
    return {"nan": float("nan"), "2": 2.0}[answer]


@pytest.mark.parametrize("answer", ["nan", "2", "other"])
def test_a_scorer_that_fails_says_nothing_about_the_answer(answer):
    with pytest.raises(ScoringError, match="test_loadtest_prompts:failing"):
        score(asked(answer="1", scorer="test_loadtest_prompts:failing"), answer)


def test_the_mix_is_told():
    prompts = [asked(task=name) for name in ("a", "b", "b", None)]
    assert tasks(prompts) == "b 50 %, a 25 %, other 25 %"
