"""The README of a run directory, which is also the model card of its checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

from lhrm_train.config import DataConfig, RunConfig
from lhrm_train.format import NO_THINK_OPEN, THINK_OPEN

CARD = """# {name}

A Large Hybrid-Reasoning Model in the mode format: it opens each answer with `{think}` or `{no_think}`.
Base: {base}. Stages run here: {stages}. Checkpoint: `{checkpoint}`.

| what | value |
|---|---|
{facts}

`run.json` holds every setting, the versions, the commit and the seconds per stage; `*/metrics.jsonl` and
`*/tensorboard/` hold the curves; `evaluation/` holds the raw rows that the report below derives from.

## Evaluation

{report}
{curves}
"""


def _data(config: DataConfig) -> str:
    return ", ".join(config.files) or "the built-in task suite"


def write_run_card(out: Path, config: RunConfig, report: str, checkpoint: Path) -> None:
    """Write ``README.md`` into the run directory."""
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    facts = {
        "HFT data": _data(config.data),
        "HGPO prompts": _data(config.prompts),
        "test questions": _data(config.test),
        "HFT seed": config.hft_seed,
        "HGPO seed": config.hgpo_seed,
        "HGPO objective": f"{config.hgpo.objective}, preset {config.hgpo.preset}",
        "minutes": ", ".join(f"{name} {seconds / 60:.1f}" for name, seconds in record["seconds"].items()),
        **record["environment"],
    }
    curves = [f"![{stage}]({stage}/curves.png)" for stage in ("hft", "hgpo") if (out / stage / "curves.png").is_file()]
    fields = {
        "name": config.base.name,
        "think": THINK_OPEN,
        "no_think": NO_THINK_OPEN,
        "base": config.base.path or "random weights",
        "stages": ", ".join(config.stages),
        "checkpoint": checkpoint.relative_to(out) if checkpoint.is_relative_to(out) else checkpoint,
        "facts": "\n".join(f"| {name} | {value} |" for name, value in facts.items()),
        "report": report.strip(),
    }
    (out / "README.md").write_text(CARD.format(**fields, curves="\n".join(["", *curves])), encoding="utf-8")
