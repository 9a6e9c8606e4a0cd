"""The evaluation and the card of lhrm-smol, on the nano."""

import json
import re
from dataclasses import replace

import pytest
from conftest import NANO

from lhrm_train.config import ConfigError, EvalConfig, RewardConfig, RunConfig
from lhrm_train.format import Message, Mode, encode_answer
from lhrm_train.problems import Problem
from lhrm_train.rows import ModeSamples, Row, row_log
from lhrm_train.samplers import LocalSampler
from lhrm_train.smol import evaluation as smol_evaluation
from lhrm_train.smol.card import Measured, card_text, write_card
from lhrm_train.smol.data import CHAT_SCORER
from lhrm_train.smol.evaluation import EXAMPLES, PERPLEXITY, measure_smol
from lhrm_train.smol.examples import Example, answer_freely, texts

CONFIG = RunConfig(
    reward=RewardConfig(scorer="exact"),
    eval=EvalConfig(samples=1, temperature=0.0, max_new_tokens=128, batch=32, resamples=20),
)


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smol-data")
    asked = [("What is 2+3?", "5", 1), ("What is 4+4?", "8", 1), ("What is 38471+92615?", "131086", 4)]
    lines(
        folder / "test.jsonl",
        [{"messages": [{"role": "user", "content": q}], "answer": a, "kind": "add", "level": n} for q, a, n in asked],
    )
    chat = {"messages": [{"role": "user", "content": "Hello!"}], "scorer": CHAT_SCORER, "kind": "everyday", "level": 0}
    lines(folder / "test-chat.jsonl", [chat])
    lines(folder / "held-out-answers.jsonl", [{"prompt": "Hello!", "answer": "Hello! Ask me a short question."}])
    return folder


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    pytest.importorskip("reasoning_gym", reason="the extra gym is not installed")
    out = tmp_path_factory.mktemp("smol-evaluation")
    measure_smol(NANO, NANO, data, out, CONFIG, 1)
    return out


def test_everything_is_measured_and_written(folder, data, tmp_path):
    line = write_card(folder, tmp_path)
    figures = dict(pair.split("=") for pair in line.split())
    assert (figures["prompts"], figures["accuracy_think"], figures["hard_think"]) == ("3", "1.0", "1.0")
    assert figures["hard_no_think"] == "0.0"
    assert figures["everyday_no_think"] == "1.0"
    card = (tmp_path / "README.md").read_text()
    assert "| 38471" not in card
    assert "What is 38471+92615?" in card
    for name in re.findall(r"\]\((evaluation/[^)]+)\)", card):
        assert (tmp_path / name).stat().st_size > 1000
    assert len((tmp_path / "evaluation" / EXAMPLES).read_text().splitlines()) == 4
    assert {path.name for path in (tmp_path / "evaluation").glob("*.gz")} == {
        "test.jsonl.gz",
        "everyday.jsonl.gz",
        "gym.jsonl.gz",
    }
    told = json.loads((folder / PERPLEXITY).read_text())
    # The nano's own greeting, with its tag and without.
    assert 1 <= told["model"] < told["base"]


def test_nothing_is_made_twice(folder, data, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("made again")

    monkeypatch.setattr(LocalSampler, "complete", refuse)
    monkeypatch.setattr(smol_evaluation, "perplexity", refuse)
    measure_smol(NANO, NANO, data, folder, CONFIG, 1)


def test_rows_of_other_settings_are_refused(folder, data):
    other = replace(CONFIG, eval=replace(CONFIG.eval, samples=2))
    with pytest.raises(ConfigError, match="was measured with samples = 1, not 2"):
        measure_smol(NANO, NANO, data, folder, other, 1)


def test_figures_of_another_base_or_other_answers_are_refused(folder, data, tmp_path, monkeypatch):
    digests = {"base": "another"}
    monkeypatch.setattr(smol_evaluation, "weights_digest", lambda path: digests.get(path.name, "same"))
    monkeypatch.setattr(smol_evaluation, "digest_of", lambda _: "same")
    (tmp_path / "inputs.json").write_text(json.dumps({"model": "same", "base": "same", "answers": "same"}))
    with pytest.raises(ConfigError, match="was measured with another base: use another directory"):
        measure_smol(NANO, data / "base", data, tmp_path, CONFIG, 1)


def test_an_example_holds_what_the_model_chose(nano_tokenizer):
    sampler = LocalSampler.load(NANO, CONFIG.eval)
    problems = [
        Problem((Message("user", "What is 38471+92615?"),), "131086", level=4),
        Problem((Message("user", "What is 2+3?"),), "5", level=1),
    ]
    hard, easy = answer_freely(sampler, problems, CONFIG.reward, 3)
    assert (hard.mode, hard.answer, hard.score, hard.level) == ("think", "131086", 1.0, 4)
    assert hard.reasoning
    assert hard.p_think > 0.5 > easy.p_think
    assert (easy.question, easy.mode, easy.reasoning, easy.answer) == ("What is 2+3?", "no_think", "", "5")


@pytest.mark.parametrize("mode", list(Mode))
def test_a_completion_is_split_into_texts(nano_tokenizer, mode):
    reasoning = "2+3=5" if mode is Mode.THINK else ""
    ids = encode_answer(nano_tokenizer, mode, reasoning, "5")
    opening = nano_tokenizer.tags.opening(mode)
    assert texts(nano_tokenizer, mode, ids[1:] if ids[0] == opening else ids) == (reasoning, "5")


def row(kind, level, p_think, think, no_think, tokens=(20, 4)):
    samples = [
        ModeSamples(scores=(score,), tokens=(count,)) for score, count in zip((think, no_think), tokens, strict=True)
    ]
    return Row(kind, level, False, "bare", f"{kind}{level}{p_think}", 9, p_think, 1.0, *samples)


def test_the_figures_and_the_card_by_hand():
    test = [
        row("units", 1, 0.1, 1, 1),
        row("units", 3, 0.9, 1, 0),
        row("dates", 4, 0.8, 0, 0),
        row("dates", 4, 0.9, 1, 0),
    ]
    examples = [
        Example("a | b?", "1", 1, 0.1, "no_think", "", "1", 1.0),
        Example("c?", "2", 4, 0.9, "think", "so\nit is", "3", 0.0),
    ]
    measured = Measured(
        rows={
            "test": test,
            "everyday": [row("everyday", 0, 0.1, 1, 1), row("everyday", 0, 0.7, 1, 1)],
            "gym": test[:2],
        },
        perplexity={"model": 5.5, "base": 5.0, "tokens": 100},
        examples={"test": examples, "everyday": []},
        settings={"samples": 1, "temperature": 1.0, "max_new_tokens": 64},
        margin=0.2,
    )
    figures = measured.figures
    assert (figures["hard_think"], figures["hard_no_think"]) == (0.6667, 0.0)
    assert figures["tokens_ratio"] == pytest.approx((4 + 20 * 3) / 80)
    assert (figures["everyday_no_think"], figures["perplexity_ratio"], figures["hacc"]) == (0.5, 1.1, 0.75)
    card = card_text(measured)
    assert "right in 66.7%, not thinking in 0.0%" in card
    assert "| right, without | a / b? | - | 1 | 0.10 |" in card
    assert "| wrong | c? | so it is | 3 | 0.90 |" in card


def test_the_rows_are_read_back(folder):
    measured = Measured.read(folder)
    assert [len(measured.rows[name]) for name in ("test", "everyday")] == [3, 1]
    assert measured.rows["gym"] == row_log(folder / "gym" / "rows.jsonl").read()
