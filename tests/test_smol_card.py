"""The evaluation and the card of lhrm-smol, on the nano."""

import json
import re
import shutil
import sys
from collections import Counter
from dataclasses import asdict, replace

import pytest
from conftest import NANO

from lhrm_train.atomic import write_json
from lhrm_train.bars import bar_table
from lhrm_train.config import ConfigError, EvalConfig, RewardConfig, RunConfig, load_config
from lhrm_train.digest import data_digest
from lhrm_train.format import Manifest, Message, Mode, SavingsCalibration, encode_answer
from lhrm_train.problems import Problem
from lhrm_train.rewards.table import scorer
from lhrm_train.rows import ModeSamples, Row, row_log
from lhrm_train.samplers import LocalSampler
from lhrm_train.smol import __main__ as command
from lhrm_train.smol import evaluation as smol_evaluation
from lhrm_train.smol.bars import bars
from lhrm_train.smol.card import card_text, write_card
from lhrm_train.smol.data import CHAT_SCORER
from lhrm_train.smol.evaluation import EXAMPLES, HELD_OUT, PERPLEXITY, measure_smol, question_sets
from lhrm_train.smol.examples import Example, answer_freely, texts
from lhrm_train.smol.measured import Measured, _perplexities
from lhrm_train.smol.perplexity import Perplexities
from lhrm_train.smol.training import FURTHER, Run

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
def folder(data, tmp_path_factory, reasoning_gym):
    out = tmp_path_factory.mktemp("smol-evaluation")
    measure_smol(NANO, NANO, data, out, CONFIG, 1)
    return out


@pytest.fixture
def target(tmp_path):
    """A model directory, not calibrated, for a card."""
    copied = shutil.copytree(NANO, tmp_path / "model", ignore=shutil.ignore_patterns("evaluation", "README.md"))
    replace(Manifest.load(copied), savings_calibration=None).save(copied)
    return copied


def test_everything_is_measured_and_written(folder, data, target):
    line = write_card(folder, target, data, None)
    figures = dict(pair.split("=") for pair in line.split())
    assert (figures["prompts"], figures["accuracy_think"], figures["hard_think"]) == ("3", "1.0", "1.0")
    assert figures["hard_no_think"] == "0.0"
    assert figures["everyday_no_think"] == "1.0"
    card = (target / "README.md").read_text()
    assert "| 38471" not in card
    assert "What is 38471+92615?" in card
    for name in re.findall(r"\]\((evaluation/[^)]+)\)", card):
        assert (target / name).stat().st_size > (1000 if name.endswith(".png") else 0)
    assert len((target / "evaluation" / EXAMPLES).read_text().splitlines()) == 4
    for name, source in ((PERPLEXITY, folder), (HELD_OUT, data)):
        assert (target / "evaluation" / name).read_bytes() == (source / name).read_bytes()
    assert {path.name for path in (target / "evaluation").glob("*.gz")} == {
        "test.jsonl.gz",
        "everyday.jsonl.gz",
        "gym.jsonl.gz",
        "gym-other.jsonl.gz",
    }
    told = json.loads((folder / PERPLEXITY).read_text())
    # The nano's own greeting, with its tag and without.
    assert 1 <= told["model"] < min(told["base"], told["base_with_system"])


@pytest.mark.parametrize("count", [-1, 0, 201])
def test_more_questions_of_a_task_than_training_leaves_out_are_refused(data, reasoning_gym, count):
    with pytest.raises(ConfigError, match=f"gym = {count}: 1 to 200 of a task"):
        question_sets(data, CONFIG, count)


@pytest.mark.parametrize(
    ("task", "said", "score"),
    [
        ("letter_counting", "{}", 1),
        ("letter_counting", "It is {}.", 1),
        ("letter_counting", "{}0", 0),  # the verifier gives .5
        ("leg_counting", " {}. ", 1),
        ("chain_sum", "{}5", 0),
        ("number_sequence", "The next one is {}.", 1),
        ("spell_backward", "{}.", 1),
        ("spell_backward", "It is {}.", 0),
        ("spell_backward", "x{}", 0),
        ("spell_backward", "{}zzz", 0),
        ("word_sorting", "{}.", 1),
        ("word_sorting", "{}, zebra", 0),
        ("number_sorting", "{}", 1),
        ("number_sorting", "1, {}", 0),
        ("time_intervals", "{}.", 1),
        ("time_intervals", "{} or 3 days", 0),
        ("fraction_simplification", "{}", 1),
        ("fraction_simplification", "0.5", 0),
        ("calendar_arithmetic", "{}.", 1),
    ],
)
def test_an_answer_to_reasoning_gym_is_right_or_wrong(data, reasoning_gym, task, said, score):
    sets = question_sets(data, CONFIG, 10)
    asked = [one for name in ("gym", "gym-other") for one in sets[name].problems if one.kind == task]
    assert len(asked) == 10
    for problem in asked:
        rate = scorer(problem.scorer, CONFIG.reward)
        assert rate(problem, said.format(problem.reference)) == score
        assert rate(problem, "") == 0


def test_the_card_names_what_it_lacks(folder, data, target):
    write_card(folder, target, data, None)
    card = (target / "README.md").read_text()
    assert "Calibration of the saving that a server states: **not available**" in card
    assert "**Not available** in the data folder: hft, prompts, validation." in card
    assert "**Not available**: the card was written without the folder of the run" in card
    assert "| **test** | all | all | 3 | " in card
    assert "held-out-answers: 1 rows." in card
    assert "Settings: **not available**." in card
    write_json(data / "settings.json", {"seed": 6, "answers": {"samples": 2, "model": "tiny"}})
    write_card(folder, target, data, None)
    (data / "settings.json").unlink()
    assert "Settings: seed 6, answers samples 2, model tiny." in (target / "README.md").read_text()


def finished_run(folder, data, **about):
    """The folder of a run that left the nano, with curves of HFT only."""
    record = {
        "config": {**asdict(load_config("smol-cpu")), **about},
        "data": {"hft": {f"elsewhere/{name}": data_digest(str(data / name)) for name in ("test.jsonl",)}},
        "environment": {"commit": "abc123", "torch": "2"},
        "seconds": {"hft": 90.0},
    }
    (folder / "hft").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(record))
    shutil.copytree(NANO, folder / "hgpo" / "checkpoint")
    lines(folder / "hft" / "metrics.jsonl", [{"step": n, "loss": 1.0, "tokens": 1400} for n in (1, 2)])
    (folder / "hft" / "curves.png").write_bytes(b"curves of hft")
    (folder / "hft" / "data.json").write_text(json.dumps({"cleaning": {"read": 9, "duplicates": 2}}))
    lines(folder / "hgpo" / "metrics.jsonl", [{"step": 1, "agreement": 0.5}])
    return folder


def test_the_card_tells_the_training(folder, data, target, tmp_path):
    run = finished_run(tmp_path / "run", data)
    calibrated = SavingsCalibration(confidence=0.9, prompts=77, bins=())
    replace(Manifest.load(target), savings_calibration=calibrated).save(target)
    write_card(folder, target, data, Run.of(run, target, data))
    card = (target / "README.md").read_text()
    assert "of 77 validation prompts that it answers directly, in `lhrm.json`" in card
    for line in (
        "| base | runs/smol/base |",
        "| commit | abc123 |",
        "| row_length | 512 |",
        "| steps taken | 2 |",
        "| tokens trained on | 2,800 |",
        "| minutes | 1.5 |",
        "| cleaning | read 9, duplicates 2 |",
        "| preset | lhrm |",
        "| minutes | not available |",
        "| rows | not available |",
    ):
        assert line in card
    assert "![HFT: curves](evaluation/hft.png)" in card
    assert (target / "evaluation" / "hft.png").read_bytes() == b"curves of hft"
    assert f"Curves: **not available**, {run}/hgpo/curves.png does not exist." in card
    assert json.loads((target / "evaluation" / "run.json").read_text())["seconds"] == {"hft": 90.0}


def test_the_card_says_that_the_model_was_trained_further(folder, data, target, tmp_path):
    base = {**asdict(load_config("smol-cpu"))["base"], "path": str(target)}
    run = finished_run(tmp_path / "run", data, base=base)
    write_card(folder, target, data, Run.of(run, target, data))
    card = (target / "README.md").read_text()
    assert f"| base | {target} as it was at the first commit below, {FURTHER} |" in card


def test_a_run_of_another_model_or_other_data_is_refused(data, target, tmp_path):
    with pytest.raises(ConfigError, match=r"run\.json not found: not the directory of a run"):
        Run.of(tmp_path / "none", target, data)
    run = finished_run(tmp_path / "run", data)
    other = shutil.copytree(data, tmp_path / "other")
    (other / "test.jsonl").write_text("")
    with pytest.raises(ConfigError, match=r"other/test\.jsonl: is not the file of that name that .*run was made with"):
        Run.of(run, target, other)
    (run / "hgpo" / "checkpoint" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(ConfigError, match=r"run: none of its 1 checkpoints is the one that .*model was made of"):
        Run.of(run, target, data)


def test_the_command_refuses_such_a_run_before_it_measures(data, target, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(smol_evaluation, "measure_smol", lambda *_: pytest.fail("measured"))
    monkeypatch.setenv("GLIBC_TUNABLES", "")  # or it would start itself anew
    arguments = ["--work", tmp_path, "evaluate", "--model", target, "--run", tmp_path / "none"]
    monkeypatch.setattr(sys, "argv", ["lhrm_train.smol", *map(str, arguments)])
    assert command.main() == 1
    assert "none/run.json not found: not the directory of a run" in capsys.readouterr().err


def test_nothing_is_made_twice(folder, data, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("made again")

    monkeypatch.setattr(LocalSampler, "complete", refuse)
    monkeypatch.setattr(smol_evaluation, "perplexities", refuse)
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


EXAMPLE = Example("a | b?", "1", 1, 0.1, "no_think", "", "1", 1.0)


def measured(test, everyday, gym, model_perplexity=5.5, examples=(EXAMPLE,)):
    return Measured(
        rows={"test": test, "everyday": everyday, "gym": gym, "gym-other": gym},
        perplexity=Perplexities(model=model_perplexity, base=8.0, base_with_system=5.0, tokens=100),
        examples={"test": list(examples), "everyday": []},
        settings={"samples": 1, "temperature": 1.0, "max_new_tokens": 64},
        margin=0.2,
    )


def test_the_figures_and_the_card_by_hand():
    test = [
        row("units", 1, 0.1, 1, 1),
        row("units", 3, 0.9, 1, 0),
        row("dates", 4, 0.8, 0, 0),
        row("dates", 4, 0.9, 1, 0),
    ]
    everyday = [row("everyday", 0, 0.1, 1, 1, (30, 12)), row("everyday", 0, 0.7, 1, 1, (30, 12))]
    examples = [EXAMPLE, Example("c?", "2", 4, 0.9, "think", "so\nit is", "3", 0.0)]
    found = measured(test, everyday, test[:2], examples=examples)
    figures = found.figures
    assert (figures["hard_think"], figures["hard_no_think"]) == (0.6667, 0.0)
    assert figures["tokens_ratio"] == pytest.approx((4 + 20 * 3) / 80)
    assert (figures["everyday_no_think"], figures["perplexity_ratio"], figures["hacc"]) == (0.5, 1.1, 0.75)
    assert (figures["everyday_tokens_free"], figures["everyday_tokens_think"]) == (21.0, 30.0)
    assert figures["everyday_tokens_ratio"] == 0.7
    card = card_text(found, None, "## Data\n\nnone")
    assert "right in 66.7%, not thinking in 0.0%" in card
    assert "takes 21.0 tokens to answer one, always-think\n30.0: 70.0% of them." in card
    assert "5.50, of the base\n8.00, and 5.00 behind the system message" in card
    assert "| right, without | a / b? | - | 1 | 0.10 |" in card
    assert "| wrong | c? | so it is | 3 | 0.90 |" in card
    assert card.endswith("## Data\n\nnone\n")


# A question each that thinking pays for, and one that it does not.
HARD, EASY = row("units", 3, 0.9, 1, 0, (40, 4)), row("units", 1, 0.1, 1, 1, (40, 4))
CHAT, THOUGHT_CHAT = row("everyday", 0, 0.1, 1, 1), row("everyday", 0, 0.9, 1, 1)
GYM = [row("chain_sum", 0, 0.9, 1, 0, (40, 4)), *[row("chain_sum", 0, 0.1, 1, 1, (40, 4))] * 4]


def met(found):
    return {(bar.what, bar.measured_on): bar.met for bar in bars(found)}


def test_a_model_that_does_what_it_should_meets_every_bar():
    answers = met(measured([HARD, EASY, EASY, EASY], [CHAT] * 19 + [THOUGHT_CHAT], GYM))
    beside = [name for name, answer in answers.items() if answer is None]
    levels, other = "held-out questions, levels 2 and up, beside", "other tasks of reasoning-gym, beside"
    assert Counter(where for _, where in beside) == {levels: 3, other: 3, "everyday prompts, beside": 1}
    assert {answer for name, answer in answers.items() if name not in beside} == {True}
    assert len(answers) == 17


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        # Of five hard questions one is gained, which is a bar's 20 points; of six it is less.
        ({"test": [HARD, *[row("units", 3, 0.1, 1, 1, (40, 4))] * 4]}, set()),
        ({"test": [HARD, *[row("units", 3, 0.1, 1, 1, (40, 4))] * 5]}, {"forced think minus forced no-think"}),
        (
            {"test": [HARD, EASY, EASY, row("units", 1, 0.1, 1, 0, (40, 4))]},
            {"free choice minus always-think", "Hybrid Accuracy"},
        ),
        (
            {"test": [HARD, HARD, EASY]},
            {"completion tokens of the free choice, share of always-think's"},
        ),
        ({"everyday": [CHAT] * 18 + [THOUGHT_CHAT]}, {"answered without thinking"}),
        ({"model_perplexity": 5.501}, {"perplexity, times the base's"}),
    ],
)
def test_a_bar_that_is_missed_says_no(change, missed):
    found = measured(**{"test": [HARD, EASY, EASY, EASY], "everyday": [CHAT] * 20, "gym": GYM, **change})
    assert {what for (what, _), answer in met(found).items() if answer is False} == missed


def test_the_table_of_bars_has_a_line_for_each():
    found = measured([HARD, HARD, EASY], [CHAT], GYM)
    lines = bar_table(bars(found)).splitlines()
    assert lines[0] == "| bar | measured on | required | measured | met |"
    tokens = "completion tokens of the free choice, share of always-think's"
    assert f"| {tokens} | held-out questions | at most 50% | 70.00% | **no** |" in lines
    assert f"| {tokens} | everyday prompts, beside | - | 20.00% | - |" in lines
    hacc = "1.0000 (always-think 0.667, always-no-think 0.333, random 0.500)"
    assert f"| Hybrid Accuracy | held-out questions | at least 0.85 | {hacc} | yes |" in lines
    assert lines[-1] == "9 of 10 bars are met."


def test_a_figure_that_nothing_gives_is_an_error_and_no_hole(tmp_path):
    with pytest.raises(ConfigError, match="set 'everyday': of 0 rows here none has a valid sample of each mode"):
        _ = measured([HARD], [], GYM).figures
    with pytest.raises(ConfigError, match="set 'test': of 0 rows"):
        bars(measured([EASY], [CHAT], GYM))
    (tmp_path / PERPLEXITY).write_text('{"model": 2.0, "base": 1.0, "tokens": 3}')
    with pytest.raises(ConfigError, match=r"perplexity\.json: holds .* remove it to have them measured anew"):
        _perplexities(tmp_path / PERPLEXITY)


def test_the_rows_are_read_back(folder):
    measured = Measured.read(folder)
    assert [len(measured.rows[name]) for name in ("test", "everyday")] == [3, 1]
    assert measured.rows["gym"] == row_log(folder / "gym" / "rows.jsonl").read()
