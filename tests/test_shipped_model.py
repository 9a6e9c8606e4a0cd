"""Every figure published about the shipped nano derives from the raw rows beside it."""

import json
from collections import Counter

import pytest

from lhrm_train.config import EvalConfig
from lhrm_train.format import Manifest
from lhrm_train.report import baseline_lines, overall_table, summarise
from lhrm_train.rows import read_rows
from lhrm_train.suite import mix
from lhrm_train.suite_report import figures_of, report_text

CONFIG = EvalConfig()


@pytest.fixture(scope="module")
def evaluation(nano_dir):
    return nano_dir / "evaluation"


@pytest.fixture(scope="module")
def rows(evaluation):
    return read_rows(evaluation / "test.jsonl.gz")


def test_manifest_and_runs_quote_the_rows(nano_dir, evaluation):
    figures = figures_of(evaluation, CONFIG)
    manifest = Manifest.load(nano_dir)
    assert {name: manifest.evaluation[name] for name in figures} == figures
    shipped = [run for run in json.loads((evaluation / "runs.json").read_text()) if run["shipped"]]
    assert [run["figures"] for run in shipped] == [figures]


def test_readme_and_card_quote_the_rows(nano_dir, evaluation, rows):
    readme = (nano_dir.parents[1] / "README.md").read_text()
    assert overall_table(rows, CONFIG.margin) in readme
    assert baseline_lines(rows, CONFIG.margin) in readme
    assert report_text(evaluation, CONFIG) in (nano_dir / "README.md").read_text()


def test_the_rows_are_the_test_split_of_the_fixed_mix(rows):
    items = mix.fixed_items(CONFIG.prompts, CONFIG.seed, "test")
    assert [(row.kind, row.level, row.key) for row in rows] == [(item.kind, item.level, item.key) for item in items]
    assert len(rows) >= 2000
    assert all(len(row.think.scores) == len(row.no_think.scores) == 8 for row in rows)
    assert all(mix.split_of(row.key) == "test" for row in rows if not row.closed)


def test_calibration_covers_what_the_model_answers_directly(nano_dir, rows):
    calibration = Manifest.load(nano_dir).savings_calibration
    direct = [row for row in rows if not row.chooses_think]
    found = Counter(calibration.lookup(row.p_think, row.prompt_tokens) is not None for row in direct)
    assert found[True] / len(direct) > 0.9


def test_the_estimated_saving_agrees_with_the_measured_one(nano_dir, rows):
    # The calibration saw validation prompts only; on test prompts its sum must come within a tenth.
    calibration = Manifest.load(nano_dir).savings_calibration
    estimated = measured = 0.0
    for row in rows:
        if row.chooses_think or (found := calibration.lookup(row.p_think, row.prompt_tokens)) is None:
            continue
        used = sum(row.no_think.tokens) / len(row.no_think.tokens)
        estimated += found.think_mean - used
        measured += sum(row.think.tokens) / len(row.think.tokens) - used
    assert estimated == pytest.approx(measured, rel=0.1)


def test_the_choice_beats_every_constant_one(rows):
    figures = summarise(rows, CONFIG.margin)
    assert figures.failing_no_think >= 0.3
    assert figures.hacc > max(figures.hacc_always_think, figures.hacc_always_no_think, 0.5)
    assert figures.accuracy_free > figures.accuracy_no_think
    assert figures.tokens_free < figures.tokens_think
