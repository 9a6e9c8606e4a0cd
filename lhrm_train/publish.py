"""Choose the shipped checkpoint among finished runs on validation and write it with its model card."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

from safetensors import safe_open

from lhrm_train.card import model_card
from lhrm_train.config import RunConfig
from lhrm_train.evaluate import read_rows
from lhrm_train.pipeline import RunFiles
from lhrm_train.report import key_line, summarise
from lhrm_train.suite_report import figures_of, report_text, write_report


def validation_score(run: Path, margin: float) -> float:
    """Return the figure that chooses the shipped run: Hybrid Accuracy on validation."""
    return summarise(read_rows(RunFiles(run).rows / "validation.jsonl.gz"), margin).hacc


def parameter_count(checkpoint: Path) -> str:
    """Return the number of parameters in words, read from the weights file."""
    with safe_open(checkpoint / "model.safetensors", framework="pt") as weights:
        total = sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return f"{total / 1e6:.1f} million parameter"


def publish(runs: Sequence[Path], into: Path, config: RunConfig) -> str:
    """Copy the best run's checkpoint, rows and plots into `into`, with a card that lists every run."""
    margin = config.eval.margin
    best = max(runs, key=lambda run: validation_score(run, margin))
    files = RunFiles(best)
    write_report(files.rows, config.eval)
    shutil.rmtree(into, ignore_errors=True)
    shutil.copytree(files.hgpo, into)
    shutil.copytree(files.rows, into / "evaluation")
    shutil.copyfile(best / "hgpo" / "curves.png", into / "evaluation" / "hgpo.png")
    table = []
    for run in runs:
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
        settings = record["config"]
        seeds = {"hft_seed": settings["hft_seed"], "hgpo_seed": settings["hgpo_seed"]}
        table.append(
            {
                **seeds,
                "shipped": run == best,
                "seconds": record["seconds"],
                "validation_hacc": round(validation_score(run, margin), 4),
                "figures": figures_of(RunFiles(run).rows, config.eval),
            }
        )
        if run != best:
            name = f"hft{seeds['hft_seed']}-hgpo{seeds['hgpo_seed']}"
            shutil.copyfile(RunFiles(run).rows / "test.jsonl.gz", into / "evaluation" / f"test.{name}.jsonl.gz")
    (into / "evaluation" / "runs.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    card = model_card(table, report_text(files.rows, config.eval), config, parameter_count(into))
    (into / "README.md").write_text(card, encoding="utf-8")
    return key_line(figures_of(files.rows, config.eval))
