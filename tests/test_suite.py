import itertools
import json
import random
from collections import Counter
from dataclasses import replace

import pytest

from lhrm_train.format import Message
from lhrm_train.suite import export, mix, smalltalk
from lhrm_train.suite.verify import TraceError, verify

CELLS = [(kind, level) for kind in mix.KINDS.values() for level in kind.levels]


@pytest.mark.parametrize(("kind", "level"), CELLS, ids=lambda value: getattr(value, "name", value))
def test_every_trace_is_true_and_gives_the_answer(kind, level):
    rng = random.Random(level)
    for _ in range(100):
        verify(mix.make_item(rng, kind, level, "train", [], "bare"))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("add", {"answer": "0"}),
        ("add", {"trace": "A1+A1;A1+1+0=03"}),
        ("add", {"trace": "A1+A1;B1+1+0=02"}),
        ("multiply", {"trace": "nonsense"}),
        ("chain", {"answer": "x"}),
        ("cups", {"answer": "Z"}),
        ("story", {"answer": "-1"}),
        ("reverse", {"trace": "1A;1B"}),
        ("letter", {"answer": "0"}),
        ("count", {"answer": "0"}),
        ("extreme", {"trace": "1,2:1"}),
        ("parity", {"answer": "neither"}),
        ("facts", {"answer": "Atlantis"}),
        ("smalltalk", {"answer": ""}),
    ],
)
def test_a_false_trace_or_answer_is_refused(name, change):
    item = mix.make_item(random.Random(0), mix.KINDS[name], mix.KINDS[name].levels[0], "train", [], "bare")
    with pytest.raises(TraceError, match=f"{name} level 1"):
        verify(replace(item, **change))


def test_splits_share_no_open_question():
    keys = {split: set() for split in mix.SPLITS}
    for split in mix.SPLITS:
        for weights in (mix.WORKLOAD, mix.CURRICULUM):
            for item in mix.fixed_items(3000, 7, split, weights):
                if not item.closed:
                    keys[split].add(item.key)
                    assert mix.split_of(item.key) == split
    assert not keys["train"] & keys["test"]
    assert not keys["train"] & keys["validation"]
    assert not keys["validation"] & keys["test"]
    assert min(map(len, keys.values())) > 1500


def test_two_phrasings_or_orders_of_one_sum_share_a_key():
    seen = {}
    rng = random.Random(3)
    for _ in range(4000):
        draw = mix.KINDS["add"].draw(rng, 2)
        numbers = tuple(sorted(int(n) for n in draw.key.split()[1:]))
        assert seen.setdefault(numbers, draw.key) == draw.key


def test_the_mix_is_as_documented():
    assert abs(sum(mix.WORKLOAD.values()) - 1) < 1e-9
    assert set(mix.CURRICULUM) == set(mix.KINDS)
    assert set(mix.KINDS) - set(mix.WORKLOAD) == {"add digit"}
    items = mix.fixed_items(4000, 1, "validation")
    contexts = Counter(item.context for item in items)
    assert 0.24 < 1 - contexts["bare"] / len(items) < 0.31
    assert set(contexts) == {"bare", "system", "turns", "system+turns"}
    turns = [sum(m.role == "assistant" for m in item.messages) for item in items if "turns" in item.context]
    assert set(turns) == {1, 2}
    assert len(mix.KINDS) >= 8


def test_the_turns_of_a_conversation_of_the_curriculum():
    rng = random.Random(4)
    drawn = [mix.sample_conversation(rng, 0.42) for _ in range(3000)]
    for turns in drawn:
        for item, following in itertools.pairwise(turns):
            answered = (*item.messages, Message("assistant", item.answer))
            assert following.messages[:-1] == answered
        assert len({item.context for item in turns}) == 1
        assert all(item.closed or mix.split_of(item.key) == "train" for item in turns)
    lengths = Counter(len(turns) for turns in drawn)
    assert set(lengths) == {1, *mix.CURRICULUM_TURNS}
    assert 0.68 < lengths[1] / len(drawn) < 0.74  # three tenths of those with a context have a system message alone
    first = Counter(turns[0].messages[0].role for turns in drawn)
    assert 0.24 < first["system"] / len(drawn) < 0.31
    assert {len(mix.sample_conversation(rng, 0.0)[0].messages) for _ in range(50)} == {1}


def test_a_long_number_plus_a_digit_is_shown_with_its_scratchpad_alone():
    rng = random.Random(5)
    for kind in ("add", "add digit"):
        for level in mix.KINDS[kind].levels:
            for _ in range(200):
                draw = mix.KINDS[kind].draw(rng, level)
                shorter, longer = sorted(len(n) for n in draw.key.split()[1:])
                assert draw.think_only == (shorter == 1 < longer)
                assert kind == "add" or (shorter, longer) == (1, level)


def test_items_repeat_for_the_same_seed():
    assert mix.fixed_items(50, 5, "test") == mix.fixed_items(50, 5, "test")
    assert mix.fixed_items(50, 5, "test") != mix.fixed_items(50, 6, "test")
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        mix.sample_item(random.Random(0), "dev")


def test_how_many_fixed_items_there_can_be(monkeypatch):
    assert mix.fixed_items(0, 5, "test") == []
    with pytest.raises(ValueError, match="count = -1: not negative"):
        mix.fixed_items(-1, 5, "test")
    # Of the 99,990 numbers of two to five digits a tenth are test questions, and many of these are drawn first.
    monkeypatch.setattr(mix, "MOST_REPEATS", 20)
    with pytest.raises(ValueError, match=r"the split 'test' of parity has [0-9]{3,4} questions, not 20000"):
        mix.fixed_items(20_000, 5, "test", {"parity": 1.0})
    # Closed questions repeat: greetings without end.
    assert len(mix.fixed_items(1000, 5, "test", {"smalltalk": 1.0})) == 1000


def test_the_questions_of_a_first_visit_are_in_the_suite():
    facts = {draw.question: draw.answer for draw in mix.facts.facts()}
    assert facts["What is the capital of France?"] == "Paris"
    hello = {draw.question: draw.answer for draw in smalltalk.smalltalk()}
    assert hello["Hello!"] == smalltalk.HELLO
    assert hello["who are you?"] == smalltalk.WHO
    questions = {mix.KINDS["add"].draw(random.Random(i), 5).question for i in range(200)}
    assert any(q.startswith("What is ") and "+" in q and " + " not in q for q in questions)
    assert any(q.startswith("What is ") and " + " in q for q in questions)


def test_exported_prompts_are_test_items(tmp_path):
    export.write_prompts(tmp_path / "kind.jsonl", 20, "add digit")
    kinds = [json.loads(line)["task"] for line in (tmp_path / "kind.jsonl").read_text().splitlines()]
    assert kinds == ["add digit"] * 20
    export.write_prompts(tmp_path / "p.jsonl", 30)
    rows = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert len(rows) == 30
    assert set(rows[0]) == {"messages", "answer", "task", "level", "closed"}
    assert [m["role"] for m in rows[0]["messages"]][-1] == "user"
