"""Prompts from files, the suite and reasoning-gym, and how answers to them are scored."""

import json
import re
import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT
from lhrm_loadtest.errors import LoadTestError
from lhrm_loadtest.grade import ScoringError, _require_jsonschema, _scorer, check_scorers, score
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
        ('{"prompt": 5}', ":1: prompt = 5: "),
        ('{"prompt": null}', ":1: prompt = None: "),
        ('{"messages": [{"role": "user", "content": 5}]}', ":1: messages.0.content = 5"),
        ('{"promt": "a", "id": "1"}', ":1: promt = 'a': unknown key"),
        ('{"prompt": "a", "answer": []}', ":1: .*answer is an empty list"),
        ('{"prompt": "a"}\n{"prompt": "b \\ud83d"}', r":2: 'prompt' has half of a UTF-16 surrogate pair"),
        ('{"prompt": "a", "fields": {"x": ["\\ude00"]}}', r":1: 'fields' has half"),
        ('{"prompt": "a"}\n{"a": ' + "[" * 100_000, ":2: not JSON"),
        ('{"prompt": "a", "level": 1, "lvl": 2}', ":1: lvl = 2"),
        ('{"prompt": "a"}\n{"prompt": "a", "arrival_s": -1}', ":2: arrival_s = -1"),
        ('{"prompt": "a"}\n\n{"prompt": "b", "id": "1"}', ":3: id = '1': line 1 has it too"),
    ],
)
def test_unusable_prompt_files(tmp_path, text, named):
    path = tmp_path / "prompts.jsonl"
    path.write_text(text)
    with pytest.raises(LoadTestError, match=named):
        load_prompts(path)


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "\\ud83d\\ude00"}\n', encoding="utf-8-sig")
    (prompt,) = load_prompts(path)
    assert prompt.messages[0].content == "\U0001f600"


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ({"answer": "1", "scorer": "nope"}, "scorer = 'nope': unknown scorer 'nope'"),
        *(
            ({"scorer": name}, f"scorer = '{name}' compares with answer, which is missing")
            for name in ("exact", "numeric", "math", "choice", "regex", "json")
        ),
    ],
)
def test_a_scorer_that_cannot_score_is_refused_with_its_line(tmp_path, line, named):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a"}\n' + json.dumps({"prompt": "b", **line}) + "\n")
    with pytest.raises(LoadTestError, match=f"{path}:2: {named}"):
        read_source(str(path), None, 0)


def test_scorers_that_need_no_answer():
    check_scorers([asked(scorer="json", fields={"json_schema": {}}), asked(scorer="test_loadtest_prompts:failing")])


@pytest.mark.parametrize(
    ("asking", "package", "extra"),
    [
        ({"scorer": "math"}, "math_verify", "train"),
        ({"scorer": "regex"}, "regex", "train"),
        ({"scorer": "gym"}, "reasoning_gym", "gym"),
        ({"scorer": "json", "fields": {"json_schema": {}}}, "jsonschema", "train"),
    ],
)
def test_what_a_scorer_needs_is_named_with_its_extra(monkeypatch, asking, package, extra):
    monkeypatch.setattr("lhrm_train.rewards.base.find_spec", lambda name: None if name == package else object())
    for cached in (_scorer, _require_jsonschema):
        cached.cache_clear()
    with pytest.raises(LoadTestError, match=rf"needs the package {package}: pip install 'lhrm\[{extra}\]'"):
        check_scorers([asked(answer="1", **asking)])
    for cached in (_scorer, _require_jsonschema):
        cached.cache_clear()


WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in %r:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from lhrm_loadtest.errors import LoadTestError
from lhrm_loadtest.grade import check_scorers, score
from lhrm_loadtest.sources import read_source
prompts = read_source("nano", 4, 0)
check_scorers(prompts)
print([score(one, one.answer) for one in prompts])
print([score(one.model_copy(update={"scorer": "numeric", "answer": "5"}), "It is 5.") for one in prompts[:1]])
try:
    read_source("gym:chain_sum", 1, 0)
except LoadTestError as exc:
    print(exc)
"""


def test_the_suite_needs_the_extra_of_the_load_test_alone():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {re.split(r"[^\w-]", one)[0].replace("-", "_") for one in (*extras["train"], *extras["server"])}
    names -= {"httpx", "numpy", "matplotlib", "aiohttp"}
    code = WITHOUT % (sorted(names | {"reasoning_gym"}),)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    suite, numeric, gym = done.stdout.splitlines()
    assert (suite, numeric) == ("[1.0, 1.0, 1.0, 1.0]", "[1.0]")
    assert "pip install 'lhrm[gym]'" in gym


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
    # Of several answers the best counts, whichever comes first.
    assert score(asked(answer=("5", "five"), scorer="exact"), "five") == 1
    assert score(asked(answer=("7", "5"), scorer="numeric"), "It is 5") == 1
    assert score(asked(answer=("5", "five"), scorer="exact"), "six") == 0
    with pytest.raises(LoadTestError, match="scorer = 'nope'"):
        check_scorers([asked(answer="1", scorer="exact"), asked(answer="1", scorer="nope")])
    # One that cannot be compared with could have been the right one.
    with pytest.raises(ScoringError, match="'five' does not hold exactly one number"):
        score(asked(answer=("5", "five"), scorer="numeric"), "6")
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
