import json
import math
import random
from dataclasses import replace

import pytest
from fake_gateway import fake_gateway, scripted
from lhrm_server.engine_fake import Script

from lhrm_train.config import ConfigError, EvalConfig, RewardConfig
from lhrm_train.evaluate import sample_rows
from lhrm_train.evaluate_any import evaluate_any
from lhrm_train.evaluation_report import report_from_rows
from lhrm_train.format import Message, Mode, encode_answer
from lhrm_train.grading import Grader
from lhrm_train.problems import Problem
from lhrm_train.rows import row_log
from lhrm_train.samplers import Answered, Decision, Failed, LocalSampler, SamplerError
from lhrm_train.server_sampler import ServerSampler, find_endpoint
from tests.graded import problem
from tests.tiny_model import tiny_llama

CONFIG = EvalConfig(samples=2, chunk=4, resamples=50, max_new_tokens=40, concurrency=4, retries=0)


PROBLEMS = [problem(i) for i in range(10)]


class Scripted:
    """A sampler that thinks right, answers odd questions right directly, and wants to think about even ones.

    It answers in texts, so it has no tokenizer. Its tokens depend on the seed, as samples do.
    """

    tokenizer = None
    modes = (Mode.THINK, Mode.NO_THINK)

    def __init__(self, name="scripted", fails=(), dies_at=None):
        self.name, self.fails, self.dies_at = name, fails, dies_at
        self.asked = []

    def describe(self):
        return {"model": self.name}

    def decide(self, problems):
        self.asked += [one.reference for one in problems]
        if self.dies_at in [one.reference for one in problems]:
            raise KeyboardInterrupt
        return [Decision(0.1 if int(one.reference) % 2 else 0.9, 1.0, 5) for one in problems]

    def complete(self, problems, mode, samples, seed):
        rng = random.Random(seed)
        return [[self._one(one, mode, rng) for _ in range(samples)] for one in problems]

    def _one(self, one, mode, rng):
        tokens = rng.randrange(20, 30) if mode is Mode.THINK else rng.randrange(2, 6)
        if one.reference in self.fails:
            return Failed("no answer came")
        right = mode is Mode.THINK or int(one.reference) % 2
        return Answered(one.reference if right else "no idea", tokens, truncated=False, well_formed=True)


def run(sampler, out, problems=PROBLEMS, config=CONFIG, **options):
    return evaluate_any(sampler, problems, config, out, **options)


def key_values(report: str) -> dict[str, float]:
    return {name: float(value) for name, value in (pair.split("=") for pair in report.splitlines()[-1].split())}


def rows_of(out):
    return row_log(out / "rows.jsonl").read()


def test_an_evaluation_by_hand(tmp_path):
    report = run(Scripted(), tmp_path)
    figures = key_values(report)
    wanted = {"prompts": 10, "accuracy_think": 1, "accuracy_no_think": 0.5, "accuracy_free": 1, "think_rate": 0.5}
    wanted |= {"hacc": 1, "hacc_always_think": 0.5, "hacc_always_no_think": 0.5, "invalid_samples": 0}
    assert {name: figures[name] for name in wanted} == wanted
    rows = rows_of(tmp_path)
    assert [row.index for row in rows] == list(range(10))
    think = sum(sum(row.think.tokens) / 2 for row in rows) / 10
    assert figures["tokens_think"] == round(think, 2)
    assert "| easy | 5 | 1.000 | 1.000 | 1.000 |" in report
    assert "| hard | 5 | 1.000 | 0.000 | 1.000 |" in report
    assert "| accuracy free choice | 1.000 [1.000, 1.000] |" in report
    assert "invalid" not in report.partition("## Quality")[0]
    assert "no_think_violations" not in figures  # nothing is known about tags in a text


def test_the_report_derives_from_the_directory_alone(tmp_path):
    report = run(Scripted(), tmp_path)
    made = ["curve.png", "difficulty.png", "report.md"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [*made, "rows.jsonl", "settings.json"]
    assert report.startswith((tmp_path / "report.md").read_text())
    for name in made:
        assert (tmp_path / name).stat().st_size > 500
        (tmp_path / name).unlink()
    assert report_from_rows(tmp_path) == report
    assert all((tmp_path / name).is_file() for name in made)
    with pytest.raises(ConfigError, match=r"settings\.json not found"):
        report_from_rows(tmp_path / "elsewhere")


def test_a_killed_evaluation_goes_on_and_ends_as_an_unbroken_one(tmp_path):
    whole = run(Scripted(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(Scripted(dies_at="9"), tmp_path / "killed")
    assert [row.index for row in rows_of(tmp_path / "killed")] == list(range(8))  # two chunks of four
    second = Scripted()
    assert run(second, tmp_path / "killed") == whole
    assert second.asked == ["8", "9"]
    files = [(tmp_path / name / "rows.jsonl").read_bytes() for name in ("whole", "killed")]
    assert files[0] == files[1]


def test_half_a_row_is_made_again(tmp_path):
    run(Scripted(), tmp_path)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    again = Scripted()
    run(again, tmp_path)
    assert again.asked == ["9"]
    assert [row.index for row in rows_of(tmp_path)] == list(range(10))


def test_a_finished_evaluation_asks_nothing(tmp_path):
    report = run(Scripted(), tmp_path)
    stamp = (tmp_path / "rows.jsonl").stat().st_mtime_ns
    again = Scripted()
    assert run(again, tmp_path) == report
    assert again.asked == []
    assert (tmp_path / "rows.jsonl").stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("name", "second"),
    [
        ("model = 'scripted', not 'other'", {"sampler": Scripted("other")}),
        ("temperature = 1.0, not 0.5", {"config": replace(CONFIG, temperature=0.5)}),
        ("samples = 2, not 3", {"config": replace(CONFIG, samples=3)}),
        ("problems = ", {"problems": [problem(0, reference="1"), *PROBLEMS[1:]]}),
        ("problems = |prompts = 10, not 9", {"problems": PROBLEMS[:9]}),
        ("problems = ", {"problems": [problem(0, fields={"json_schema": {}}), *PROBLEMS[1:]]}),
        ("problems = ", {"problems": [problem(0, level=2), *PROBLEMS[1:]]}),
        ("reward = ", {"reward": RewardConfig(scorer="numeric")}),
    ],
)
def test_rows_of_something_else_are_not_mixed_in(tmp_path, name, second):
    run(Scripted(), tmp_path)
    before = (tmp_path / "rows.jsonl").read_bytes()
    arguments = {"sampler": Scripted(), "out": tmp_path, **second}
    with pytest.raises(ConfigError, match=name):
        run(**arguments)
    assert (tmp_path / "rows.jsonl").read_bytes() == before
    # How the rows are looked at may change.
    assert key_values(run(Scripted(), tmp_path, config=replace(CONFIG, margin=1.0)))["hacc_always_think"] == 0.0


def test_settings_may_change_until_there_is_a_row(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(Scripted(dies_at="0"), tmp_path)
    run(Scripted(), tmp_path, config=replace(CONFIG, samples=1))
    assert {len(row.think.scores) for row in rows_of(tmp_path)} == {1}


def test_rows_whose_order_changed_are_found_out(tmp_path):
    run(Scripted(), tmp_path)
    rows = rows_of(tmp_path)
    (tmp_path / "rows.jsonl").unlink()
    row_log(tmp_path / "rows.jsonl").append([replace(rows[0], index=3)])
    with pytest.raises(ConfigError, match="row 3 with key 'k0' is of another problem"):
        run(Scripted(), tmp_path)


def test_a_failed_request_is_invalid_never_wrong_and_made_again(tmp_path):
    report = run(Scripted(fails={"2", "7"}), tmp_path)
    figures = key_values(report)
    assert (figures["prompts"], figures["prompts_left_out"], figures["invalid_samples"]) == (8, 2, 8)
    assert (figures["accuracy_think"], figures["accuracy_no_think"]) == (1.0, 0.5)
    assert "**8 samples are invalid**" in report
    assert "First failure: no answer came" in report
    assert "| think | 20.00% | 0.00% | - | 0.00% | 0.00% |" in report
    raw = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert raw[2]["think"]["scores"] == raw[2]["no_think"]["tokens"] == [None, None]
    again = Scripted()
    figures = key_values(run(again, tmp_path))
    assert again.asked == ["2", "7"]
    assert (figures["prompts"], figures["prompts_left_out"], figures["accuracy_think"]) == (10, 0, 1.0)


def test_a_server_that_fails_everything_stops_at_once_and_leaves_no_row(tmp_path):
    broken = Scripted(fails={one.reference for one in PROBLEMS})
    with pytest.raises(SamplerError, match="no sample of the first 4 prompts is valid: no answer came"):
        run(broken, tmp_path)
    assert rows_of(tmp_path) == []
    assert broken.asked == ["0", "1", "2", "3"]
    with pytest.raises(ConfigError, match="no row with a valid sample"):
        report_from_rows(tmp_path)


def test_nothing_to_ask_and_no_such_scorer_are_said_before_anything_is_asked(tmp_path):
    with pytest.raises(ConfigError, match="no problems"):
        run(Scripted(), tmp_path, [])
    sampler = Scripted()
    with pytest.raises(ConfigError, match="unknown scorer 'exakt'"):
        run(sampler, tmp_path, [problem(0, scorer="exakt")])
    assert sampler.asked == []


def test_a_scorer_that_fails_is_not_a_wrong_answer(tmp_path):
    report = run(Scripted(), tmp_path, reward=RewardConfig(scorer="tests.graded:moody"))
    rows = rows_of(tmp_path)
    assert (rows[4].think.scores, rows[5].no_think.scores, rows[6].think.scores) == (
        (None,) * 2,
        (None,) * 2,
        (0.5,) * 2,
    )
    assert rows[4].think.tokens[0] >= 20  # the answer did come
    assert rows[4].error == "the scorer failed with RuntimeError: in a mood"
    assert "score 7.0 is not in [0, 1]" in rows[5].error
    figures = key_values(report)
    assert (figures["prompts"], figures["accuracy_free"], figures["invalid_samples"]) == (8, 0.5, 8)


class Cut(Scripted):
    """Every `every`-th think answer is cut."""

    every = 10

    def _one(self, one, mode, rng):
        cut = mode is Mode.THINK and int(one.reference) % self.every == 0
        return replace(super()._one(one, mode, rng), truncated=cut, well_formed=not cut)


@pytest.mark.parametrize(
    ("every", "share", "warns"),
    [
        (10, "10.0% of think, 0.0% of no-think", False),  # one of ten prompts, in one of two modes: 5 %
        (5, "20.0% of think, 0.0% of no-think", True),  # 10 %
    ],
)
def test_the_report_says_how_it_scored_and_how_much_was_cut(tmp_path, every, share, warns):
    sampler = Cut()
    sampler.every = every
    asked = [replace(one, scorer="numeric") if one.reference == "3" else one for one in PROBLEMS]
    report = run(sampler, tmp_path, asked)
    assert (
        "2 samples per mode at temperature 1, at most 40 new tokens, seed 80001; scored by exact (9), numeric (1)."
        in report
    )
    assert f"Cut at 40 new tokens: {share}." in report
    assert ("**Warning: 10.0% of the completions were cut at max_new_tokens = 40" in report) is warns
    assert ("Warning" in report) is warns


def test_the_report_says_what_was_left_out_of_the_questions(tmp_path):
    counts = {"read": 14, "duplicates": 3, "contaminated": 1, "kept": 10}
    data = {"source": "test.jsonl", "cleaning": counts, "asked": 7, "not_asked": 1, "held_out": 2}
    report = run(Scripted(), tmp_path, data=data)
    wanted = (
        "Questions of test.jsonl: read 14, duplicates 3, contaminated 1, kept 10, asked 7, not asked 1 (eval.prompts)"
    )
    assert f"{wanted}, held out for the savings calibration 2." in report
    assert report_from_rows(tmp_path) == report


def test_rows_without_settings_are_refused(tmp_path):
    run(Scripted(), tmp_path)
    (tmp_path / "settings.json").unlink()
    with pytest.raises(ConfigError, match="nothing tells which model made these rows"):
        run(Scripted(), tmp_path)


def unusable(problem: Problem, answer: str) -> float:
    """Fail on every answer, whatever it is."""
    raise ConfigError("there is no reward model at /nowhere")


def test_a_scorer_that_can_score_nothing_stops_the_evaluation(tmp_path):
    with pytest.raises(ConfigError, match="no reward model"):
        run(Scripted(), tmp_path, reward=RewardConfig(scorer=f"{__name__}:unusable"))
    assert rows_of(tmp_path) == []


# Whole evaluations of real samplers.


def test_a_local_model_gives_the_same_rows_broken_or_not(nano_tokenizer, tmp_path):
    config = replace(CONFIG, chunk=2, max_new_tokens=6)
    lm = tiny_llama(nano_tokenizer.vocab_size).eval()
    whole = run(LocalSampler(lm, nano_tokenizer, config), tmp_path / "whole", PROBLEMS[:5], config)
    # The first chunk alone, then the rest.
    path = tmp_path / "whole" / "rows.jsonl"
    rows = path.read_bytes()
    path.write_bytes(b"".join(rows.splitlines(keepends=True)[:2]))
    assert run(LocalSampler(lm, nano_tokenizer, config), tmp_path / "whole", PROBLEMS[:5], config) == whole
    assert path.read_bytes() == rows
    assert all(row.mass is not None and not row.error for row in rows_of(tmp_path / "whole"))


def test_rows_hold_the_index_they_are_asked_under():
    rows = sample_rows(Scripted(), Grader(RewardConfig(), None), {3: PROBLEMS[3], 8: PROBLEMS[8]}, 1, 0)
    assert [(row.index, row.key, row.p_think) for row in rows] == [(3, "k3", 0.1), (8, "k8", 0.9)]


def test_a_gateway_is_evaluated_over_the_network(loop_thread, nano_tokenizer, tmp_path):
    # It thinks its way to 4 and says 5 directly, and wants to think about longer prompts only.
    bodies = {
        "think_ids": tuple(encode_answer(nano_tokenizer, Mode.THINK, "2+2", "4")[1:]),
        "no_think_ids": tuple(encode_answer(nano_tokenizer, Mode.NO_THINK, "", "5")[1:]),
    }

    def script(prompt_ids):
        return Script(p_think=0.9 if "please" in nano_tokenizer.decode(prompt_ids) else 0.2, **bodies)

    asked = [Problem((Message("user", text),), "4", key=text) for text in ("2+2?", "2+2, please?", "two and two?")]
    with fake_gateway(loop_thread, nano_tokenizer, script) as (url, _):
        report = run(ServerSampler(find_endpoint(url), CONFIG), tmp_path, asked)
    figures = key_values(report)
    assert (figures["accuracy_think"], figures["accuracy_no_think"]) == (1.0, 0.0)
    assert (figures["accuracy_free"], figures["hacc"]) == (0.3333, 0.3333)
    assert figures["tokens_think"] == len(bodies["think_ids"])
    assert [row.p_think for row in rows_of(tmp_path)] == [0.2, 0.9, 0.2]
    assert "nano-test" in report.splitlines()[0]


def test_a_prompt_the_gateway_refuses_is_left_out(loop_thread, nano_tokenizer, tmp_path):
    asked = [PROBLEMS[1], Problem((Message("user", "word " * 600),), "1", key="long")]
    with fake_gateway(loop_thread, nano_tokenizer, scripted(nano_tokenizer, "so", "1")) as (url, _):
        report = run(ServerSampler(find_endpoint(url), CONFIG), tmp_path, asked)
    assert key_values(report)["prompts_left_out"] == 1
    assert "First failure: status 400" in report


class Plain(Scripted):
    """An endpoint that knows no modes."""

    modes = (Mode.THINK,)

    def decide(self, problems):
        return [Decision(None, None, 0)] * len(problems)


def test_an_endpoint_without_modes_is_reported_as_always_thinking(tmp_path):
    report = run(Plain(), tmp_path)
    assert "takes no mode: it is measured as a model that always thinks" in report
    assert not (tmp_path / "curve.png").exists()
    figures = key_values(report)
    assert (figures["prompts"], figures["accuracy_think"], figures["think_rate"]) == (10, 1.0, 1.0)
    assert "hacc" not in figures
    assert not any(math.isnan(value) for value in figures.values())
    assert "nan" not in report
