"""Evaluation on the suite: goes on after a kill, and never takes the rows of another model for its own."""

from dataclasses import replace

import pytest

from lhrm_train.config import ConfigError, EvalConfig, RewardConfig, RunConfig
from lhrm_train.evaluate import context_problems, sample_contexts
from lhrm_train.evaluate_suite import evaluate_before_hgpo, evaluate_suite
from lhrm_train.evaluation import run_evaluation
from lhrm_train.format import Manifest, Mode
from lhrm_train.grading import Grader
from lhrm_train.rows import read_context_rows, read_rows
from lhrm_train.samplers import Answered, Decision, LocalSampler
from lhrm_train.suite import mix
from lhrm_train.suite_report import figures_of
from tests.checkpoints import tiny_checkpoint

CONFIG = EvalConfig(
    prompts=36, samples=2, max_new_tokens=4, context_questions=4, hft_samples=1, validation_samples=1, chunk=16
)
PACKED = ["contexts.jsonl.gz", "test.jsonl.gz", "validation.jsonl.gz"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("suite") / "model")


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    evaluate_suite(LocalSampler.load(model, CONFIG), out, CONFIG)
    return out


def packed(out):
    return {path.name: path.read_bytes() for path in out.glob("*.jsonl.gz")}


class Dies(LocalSampler):
    """Is killed at its third chunk: of the 18 validation prompts it has seen two."""

    chunks = 0

    def decide(self, problems):
        self.chunks += 1
        if self.chunks == 4:
            raise KeyboardInterrupt
        return super().decide(problems)


def test_rows_are_those_of_the_fixed_mix(whole):
    rows = read_rows(whole / "test.jsonl.gz")
    items = mix.fixed_items(36, CONFIG.seed, "test")
    assert [(row.index, row.key) for row in rows] == [(i, item.key) for i, item in enumerate(items)]
    assert {len(row.think.scores) for row in rows} == {len(row.no_think.tokens) for row in rows} == {2}
    validation = read_rows(whole / "validation.jsonl.gz")
    assert [row.key for row in validation] == [item.key for item in mix.fixed_items(18, CONFIG.seed, "validation")]
    assert {len(row.think.scores) for row in validation} == {1}
    contexts = read_context_rows(whole / "contexts.jsonl.gz")
    assert [row.variant for row in contexts[:4]] == ["bare", "system", "two turns", "eight turns"]
    assert [row.index for row in contexts] == list(range(16))
    assert {row.key for row in contexts} == {item.key for item in mix.fixed_items(4, CONFIG.seed + 1, "test")}
    assert {len(row.scores) for row in contexts} == {1}


def test_a_killed_evaluation_goes_on_and_ends_as_an_unbroken_one(model, whole, tmp_path):
    killed = Dies.load(model, CONFIG)
    with pytest.raises(KeyboardInterrupt):
        evaluate_suite(killed, tmp_path, CONFIG)
    # Two chunks of validation are whole, one of the test.
    assert (tmp_path / "test" / "rows.jsonl").read_bytes().count(b"\n") == 16
    assert sorted(packed(tmp_path)) == ["validation.jsonl.gz"]
    second = Dies.load(model, CONFIG)
    evaluate_suite(second, tmp_path, CONFIG)
    assert second.chunks == 3  # two of the test, one of the contexts
    assert packed(tmp_path) == packed(whole)


def test_a_finished_evaluation_asks_nothing(model, whole):
    before = packed(whole)
    stamps = {path: path.stat().st_mtime_ns for path in whole.rglob("*.jsonl*")}
    again = Dies.load(model, CONFIG)
    evaluate_suite(again, whole, CONFIG)
    assert (again.chunks, packed(whole)) == (0, before)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


@pytest.mark.parametrize(
    ("name", "change"),
    [("temperature = 1.0, not 0.5", {"temperature": 0.5}), ("samples = 2, not 3", {"samples": 3}),
     ("max_new_tokens = 4, not 5", {"max_new_tokens": 5}), ("problems = |prompts = ", {"prompts": 34})],
)  # fmt: skip
def test_other_settings_are_refused(model, whole, name, change):
    before, config = packed(whole), replace(CONFIG, **change)
    with pytest.raises(ConfigError, match=f"was measured with ({name}).*use another directory"):
        evaluate_suite(LocalSampler.load(model, config), whole, config)
    assert packed(whole) == before


@pytest.mark.parametrize(
    ("name", "other"),
    [("model = 'tiny', not 'other'", {"name": "other"}), ("weights = ", {"weight": 0.5})],
)
def test_another_model_in_the_same_directory_is_refused(whole, tmp_path, name, other):
    before = packed(whole)
    with pytest.raises(ConfigError, match=f"was measured with {name}"):
        evaluate_suite(LocalSampler.load(tiny_checkpoint(tmp_path / "m", **other), CONFIG), whole, CONFIG)
    assert packed(whole) == before


def test_a_copy_of_a_model_is_the_same_model(whole, tmp_path):
    copied = Dies.load(tiny_checkpoint(tmp_path / "copy"), CONFIG)
    evaluate_suite(copied, whole, CONFIG)
    assert copied.chunks == 0


def test_rows_of_nobody_knows_what_are_refused(model, whole, tmp_path):
    (tmp_path / "validation.jsonl.gz").write_bytes((whole / "validation.jsonl.gz").read_bytes())
    with pytest.raises(ConfigError, match=r"validation\.jsonl\.gz: nothing tells which model"):
        evaluate_suite(LocalSampler.load(model, CONFIG), tmp_path, CONFIG)


def test_the_rows_before_hgpo_have_settings_of_their_own(whole, tmp_path):
    other = LocalSampler.load(tiny_checkpoint(tmp_path / "hft", name="hft", weight=1.0), CONFIG)
    evaluate_before_hgpo(other, whole, CONFIG)
    rows = read_rows(whole / "hft_test.jsonl.gz")
    assert (len(rows), {len(row.think.scores) for row in rows}) == (36, {1})
    assert "hft_hacc" in figures_of(whole, CONFIG)


def test_contexts_by_hand():
    class Talks:
        """Thinks about a bare question and is right; answers the others directly and wrong."""

        tokenizer = None
        modes = (Mode.THINK, Mode.NO_THINK)

        def decide(self, problems):
            assert [one.context for one in problems] == ["bare", "system", "two turns", "eight turns"]
            assert [len(one.messages) for one in problems] == [1, 2, 5, 17]
            assert problems[3].messages[:4] == problems[2].messages[:4]
            asked = [Decision(0.9, 1.0, 9), Decision(0.2, 1.0, 9), Decision(None, None, 9, "no room")]
            return [*asked, Decision(0.8, 1.0, 9)]

        def complete(self, problems, mode, samples, seed):
            right = mode is Mode.THINK
            return [[Answered(p.reference if right else "?", 5, False, True)] * samples for p in problems]

    problems = dict(enumerate(context_problems(replace(CONFIG, context_questions=1)), 7))
    rows = sample_contexts(Talks(), Grader(RewardConfig(), None), problems, 2, 0)
    assert [(row.index, row.variant, row.p_think, row.scores, row.complete) for row in rows] == [
        (7, "bare", 0.9, (1.0, 1.0), True),
        (8, "system", 0.2, (0.0, 0.0), True),
        (9, "two turns", None, (), False),
        (10, "eight turns", 0.8, (1.0, 1.0), True),
    ]


# The command.


def test_the_report_tells_how_it_was_measured_and_warns_of_cut_completions(model, tmp_path):
    config = RunConfig(eval=CONFIG)
    report = run_evaluation(model, None, "suite", tmp_path, config)
    first = report.splitlines()[0]
    assert "36 of 36 prompts, 2 samples per mode at temperature 1, at most 4 new tokens" in first
    assert "scored by exact (36)" in first
    assert "**Warning: " in report  # a random model does not end its turn in 4 tokens
    assert "Raise eval.max_new_tokens" in (tmp_path / "report.md").read_text()
    assert report.splitlines()[-1].startswith("prompts=36 ")
    assert Manifest.load(model).evaluation == {}
    with pytest.raises(ConfigError, match="is of an evaluation on other data"):
        run_evaluation(model, None, "gym:basic_arithmetic", tmp_path, config)
