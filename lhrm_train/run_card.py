"""The README of a run directory, which is also the model card of its checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lhrm_train.atomic import write_text
from lhrm_train.config import DataConfig, RunConfig
from lhrm_train.format import NO_THINK_OPEN, THINK_OPEN, Manifest
from lhrm_train.run_record import environments_of, read_record

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


def _base(record: dict[str, Any], config: RunConfig) -> str:
    if hft := record["hft"]:
        return f"the HFT checkpoint {hft['name']}, weights {hft['weights']}"
    return config.base.path or "random weights"


def _facts(record: dict[str, Any], config: RunConfig) -> dict[str, object]:
    """Return what is to be known about the stages that ran here, and about those alone."""
    facts: dict[str, object] = {}
    if "hft" in record["seconds"]:
        facts |= {"HFT data": _data(config.data), "HFT seed": config.hft_seed}
    if "hgpo" in record["seconds"]:
        facts |= {
            "HGPO prompts": _data(config.prompts),
            "HGPO seed": config.hgpo_seed,
            "HGPO objective": f"{config.hgpo.objective}, preset {config.hgpo.preset}",
        }
    facts["test questions"] = _data(config.test)
    facts["minutes"] = ", ".join(f"{name} {seconds / 60:.1f}" for name, seconds in record["seconds"].items())
    return {**facts, **environments_of(record)}


def write_run_card(out: Path, config: RunConfig, report: str, checkpoint: Path) -> None:
    """Write ``README.md`` into the run directory, from what ``run.json`` says that happened."""
    record = read_record(out)
    curves = [f"![{stage}]({stage}/curves.png)" for stage in ("hft", "hgpo") if (out / stage / "curves.png").is_file()]
    fields = {
        "name": Manifest.load(checkpoint).name,
        "think": THINK_OPEN,
        "no_think": NO_THINK_OPEN,
        "base": _base(record, config),
        "stages": ", ".join(record["seconds"]),
        "checkpoint": checkpoint.relative_to(out) if checkpoint.is_relative_to(out) else checkpoint,
        "facts": "\n".join(f"| {name} | {value} |" for name, value in _facts(record, config).items()),
        "report": report.strip(),
    }
    write_text(out / "README.md", CARD.format(**fields, curves="\n".join(["", *curves])))
