import itertools
import json
import random
from collections import Counter
from dataclasses import replace

import pytest
import torch

from lhrm_train.config import BaseConfig, ConfigError, DataConfig, HFTConfig, HGPOConfig
from lhrm_train.data import Sample
from lhrm_train.format import ChatTokenizer, Message, encode_chat
from lhrm_train.nano import build_base
from lhrm_train.problems import Problem
from lhrm_train.streams import ListedProblems, demonstration_data, problem_data
from lhrm_train.suite import mix
from lhrm_train.suite.stream import SuiteDemonstrations, SuiteProblems, answered_turns

TINY = BaseConfig(name="tiny", hidden_size=32, layers=1, heads=2, intermediate_size=48)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("base")
    build_base(path, TINY, seed=0)
    return ChatTokenizer.load(path)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "data.jsonl"
    rows = [{"prompt": f"Say {i}.", "answer": str(i)} for i in range(20)]
    rows += [{"prompt": f"Think of {i}.", "reasoning": f"It is {i}.", "answer": str(i)} for i in range(20)]
    rows += [{"prompt": "Say 3. " * 60, "answer": "3"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    return DataConfig(source="jsonl", files=(str(path),))


def test_every_problem_is_drawn_once_per_pass():
    problems = [Problem((Message("user", str(i)),)) for i in range(10)]
    stream = ListedProblems(problems, seed=0)
    # Five steps of four are two passes, the third of them half in each.
    drawn = [problem.question for step in range(5) for problem in stream.draw(step, 4)]
    assert Counter(drawn[:10]) == Counter(drawn[10:]) == Counter(str(i) for i in range(10))
    assert drawn[:10] != drawn[10:]
    assert [p.question for p in stream.draw(3, 4)] == drawn[12:16]
    with pytest.raises(ConfigError, match="no problem is left"):
        ListedProblems([], seed=0)


def test_epochs_become_updates(tokenizer, file):
    config = HFTConfig(epochs=3, rows=2, row_length=64, think_share=0)
    data = demonstration_data(tokenizer, file, config, seed=0)
    per_pass = data.config.steps / 3
    assert data.cleaning.duplicates == 1
    assert (data.mixture.think, data.mixture.no_think, data.mixture.too_long) == (20, 20, 1)
    assert per_pass > 2
    both = demonstration_data(tokenizer, file, replace(config, accumulation=2), seed=0, processes=2)
    assert both.config.steps == max(1, round(data.config.steps / 4))


def test_problems_without_room_for_an_answer_are_counted(tokenizer, file):
    data = problem_data(tokenizer, file, HGPOConfig(row_length=64, max_new_tokens=8), seed=0)
    assert data.too_long == 1
    assert data.cleaning.kept == 41
    assert len({p.question for step in range(10) for p in data.stream.draw(step, 4)}) == 40


def test_the_suite_has_no_passes(tokenizer):
    with pytest.raises(ConfigError, match=r"hft\.epochs = 1 has no effect with data\.source = 'suite'"):
        demonstration_data(tokenizer, DataConfig(), HFTConfig(epochs=1), seed=0)
    with pytest.raises(ConfigError, match=r"hft\.think_share = 0\.0: with data\.source = 'suite'"):
        demonstration_data(tokenizer, DataConfig(), HFTConfig(think_share=0.0), seed=0)
    assert demonstration_data(tokenizer, DataConfig(), HFTConfig(), seed=0).config == HFTConfig()


def test_a_margin_for_a_kind_that_the_data_does_not_have(tokenizer, file):
    config = HGPOConfig(delta_by_kind={"sums": 0.5})
    with pytest.raises(ConfigError, match=r"hgpo\.delta_by_kind\.sums: no question is of that kind; known: all"):
        problem_data(tokenizer, file, config, seed=0)
    assert problem_data(tokenizer, file, replace(config, delta_by_kind={"all": 0.5}), seed=0).too_long == 1


def test_processes_share_the_micro_batches_of_the_suite(tokenizer, monkeypatch):
    config = HFTConfig(rows=2, row_length=96)
    whole = list(itertools.islice(SuiteDemonstrations(tokenizer, config, 0).batches(0), 23))
    drawn = []
    pool_rows = SuiteDemonstrations.pool_rows
    monkeypatch.setattr(SuiteDemonstrations, "pool_rows", lambda self, n: drawn.append(n) or pool_rows(self, n))
    mine = list(itertools.islice(SuiteDemonstrations(tokenizer, config, 0).batches(2, 10), 3))
    assert [torch.equal(one.input_BT, whole[place].input_BT) for one, place in zip(mine, (2, 12, 22), strict=True)] == [
        True
    ] * 3
    assert drawn == [0, 3, 5]  # pools of four micro-batches: 0-3, 12-15, 20-23


def test_early_rows_are_short_and_later_ones_have_long_conversations(tokenizer):
    stream = SuiteDemonstrations(tokenizer, HFTConfig(steps=100, accumulation=4), 0)
    early, rows, length = stream.pool_rows(0)
    assert (length, len(rows)) == (224, 4 * 22)  # 10 rows of 512 tokens, about
    late, rows, length = stream.pool_rows(mix.EARLY_SHARE * 100)
    assert (length, len(rows)) == (512, 4 * 10)
    turns = [[len(group.completions) for group in groups] for groups in (early, late)]
    assert sum(turns[0]) / len(early) < 1.3 < sum(turns[1]) / len(late)
    assert max(group.forks[-1] for group in late) > 300
    short = SuiteDemonstrations(tokenizer, HFTConfig(rows=3, row_length=100), 0).pool_rows(0)
    assert (len(short[1]), short[2]) == (12, 100)


def test_batches_around_the_change_of_row_length_are_the_same_wherever_one_begins(tokenizer):
    config = HFTConfig(steps=20, rows=2, row_length=512)
    whole = list(itertools.islice(SuiteDemonstrations(tokenizer, config, 0).batches(0), 20))
    # Of 20 steps 9 are early; pools of four micro-batches begin early up to the third.
    assert [batch.input_BT.shape for batch in whole] == [(4, 224)] * 12 + [(2, 512)] * 8
    later = list(itertools.islice(SuiteDemonstrations(tokenizer, config, 0).batches(11), 3))
    assert all(torch.equal(one.input_BT, other.input_BT) for one, other in zip(later, whole[11:14], strict=True))
    # Two processes take twice as many micro-batches.
    both = list(itertools.islice(SuiteDemonstrations(tokenizer, config, 0, 2).batches(0), 24))
    assert [batch.input_BT.shape[1] for batch in both] == [224] * 20 + [512] * 4


def test_of_a_conversation_as_many_turns_are_answered_as_fit():
    turns = [Sample([1] * (10 * turn), [2] * 7) for turn in (1, 2, 3)]
    shorter = [Sample([1], [2]), *turns]
    assert {answered_turns(shorter, 38, random.Random(i)).forks for i in range(20)} == {(30,), (1, 30)}
    rng = random.Random(0)
    assert answered_turns(turns, 36, rng) is None
    assert answered_turns(turns, 37, rng).forks == answered_turns(turns, 43, rng).forks == (30,)
    forks = {answered_turns(turns, 50, rng).forks for _ in range(40)}
    assert forks == {(10, 30), (20, 30)}
    group = answered_turns(turns, 51, rng)
    assert (group.forks, len(group)) == ((10, 20, 30), 51)


def test_a_question_for_thinking_alone_is_never_answered_directly(tokenizer, monkeypatch):
    monkeypatch.setattr(mix, "CURRICULUM", {"add digit": 0.5, "parity": 0.5})
    stream = SuiteDemonstrations(tokenizer, HFTConfig(rows=8, row_length=96), 0)
    groups, _, _ = stream.pool_rows(0)
    opened = Counter()
    for group in groups:
        for ids, fork in zip(group.completions, group.forks, strict=True):
            question = tokenizer.decode(group.prompt_ids[:fork]).rsplit("user", 1)[1]
            opened["odd" in question, ids[0]] += 1
    tags = tokenizer.tags
    assert set(opened) == {(False, tags.think), (True, tags.think), (True, tags.no_think)}


def test_rows_that_are_too_short_for_every_question_end_the_run(tokenizer):
    stream = SuiteDemonstrations(tokenizer, HFTConfig(row_length=8), 0)
    with pytest.raises(ConfigError, match=r"hft\.row_length = 8: no question of the suite is that short"):
        next(stream.batches(0))


def test_questions_of_the_suite_without_room_for_an_answer_are_not_drawn(tokenizer):
    plain = SuiteProblems(0).draw(3, 50)
    assert problem_data(tokenizer, DataConfig(), HGPOConfig(), seed=0).stream.draw(3, 50) == plain
    short = HGPOConfig(row_length=137, max_new_tokens=96)  # 40 tokens for the prompt
    drawn = problem_data(tokenizer, DataConfig(), short, seed=0).stream.draw(3, 50)
    fitting = [problem for problem in plain if len(encode_chat(tokenizer, problem.messages, None)) <= 40]
    assert 0 < len(fitting) < 50
    assert drawn[: len(fitting)] == fitting
    assert max(len(encode_chat(tokenizer, problem.messages, None)) for problem in drawn) <= 40
    none = HGPOConfig(row_length=98, max_new_tokens=96)
    with pytest.raises(ConfigError, match=r"hgpo\.row_length leaves no room"):
        problem_data(tokenizer, DataConfig(), none, seed=0).stream.draw(0, 1)
