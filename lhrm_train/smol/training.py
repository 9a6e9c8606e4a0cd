"""What the card of lhrm-smol tells of data and training, from the data folder and the folder of the run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lhrm_train.config import ConfigError
from lhrm_train.digest import data_digest, weights_digest
from lhrm_train.format import ChatTokenizer
from lhrm_train.json_lines import read_json_lines
from lhrm_train.metrics import read_metrics
from lhrm_train.report import markdown
from lhrm_train.run_record import NAME as RECORD
from lhrm_train.run_record import environments_of, read_record
from lhrm_train.shipped_delta import built_from_its_delta, has_delta
from lhrm_train.smol.data import FILES
from lhrm_train.smol.data import SETTINGS as DATA_SETTINGS
from lhrm_train.smol.delta import trained_digest
from lhrm_train.smol.table import data_table

STAGES: Mapping[str, str] = MappingProxyType({"hft": "HFT", "hgpo": "HGPO"})
# What the card names of each stage; all settings are in the copy of run.json.
SETTINGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "hft": ("epochs", "rows", "row_length", "lr", "schedule", "warmup_steps", "weight_decay", "lora"),
        "hgpo": (
            *("preset", "objective", "steps", "prompts", "rollouts", "temperature", "max_new_tokens", "alpha", "delta"),
            *("beta", "clip", "epochs", "minibatches", "lr", "lora"),
        ),
    }
)
CURVES = "curves.png"
# Its files may have been split otherwise than these.
FURTHER = "trained further; the test questions were not compared with what that was trained on"


@dataclass(frozen=True)
class Run:
    """The run that made a model: its record and its folder."""

    folder: Path
    record: Mapping[str, Any]

    @classmethod
    def of(cls, folder: Path, model: Path, data: Path) -> Run:
        """Open the run in `folder`. Raises ConfigError when there is none, or it made another model or used other data
        than is in `data`.
        """
        if has_delta(model) and not built_from_its_delta(model):
            raise ConfigError(f"{model}: was built from another delta than it holds; run `make smol` first")
        run = cls(folder, read_record(folder))
        made = [weights_digest(path) for path in (folder / stage / "checkpoint" for stage in STAGES) if path.is_dir()]
        if trained_digest(model) not in made:
            raise ConfigError(f"{folder}: none of its {len(made)} checkpoints is the one that {model} was made of")
        for name, digest in run.data.items():
            here = data_digest(str(data / name))
            if here not in (None, digest):
                raise ConfigError(f"{data / name}: is not the file of that name that {folder} was made with")
        return run

    @property
    def data(self) -> dict[str, str]:
        """The digest of every file that the run read, by its name without folders."""
        stages: Mapping[str, Mapping[str, str]] = self.record["data"]
        return {Path(name).name: digest for files in stages.values() for name, digest in files.items()}


def data_section(data: Path, tokenizer: ChatTokenizer) -> str:
    """Return the rows of every data file by mode and level; files that are not there are named."""
    made = {name: read_json_lines(data / f"{name}.jsonl") for name in FILES if (data / f"{name}.jsonl").is_file()}
    missing = [name for name in FILES if name not in made]
    answers = f"held-out-answers: {len(made['held-out-answers'])} rows.\n" if "held-out-answers" in made else ""
    absent = f"**Not available** in the data folder: {', '.join(missing)}.\n" if missing else ""
    settings = data / DATA_SETTINGS
    made_with = _shown(json.loads(settings.read_bytes())) if settings.is_file() else "**not available**"
    return f"""## Data

`docs/smol.md` tells how they are made. Settings: {made_with}.
Token columns are means, then the 95th percentile and the longest of whole samples.

{data_table(made, tokenizer)}

{answers}{absent}"""


def training_section(run: Run | None, evaluation: Path) -> str:
    """Return settings, counts and curves of both stages; plots and run.json are copied into `evaluation`."""
    for left in (RECORD, *(f"{stage}.png" for stage in STAGES)):
        (evaluation / left).unlink(missing_ok=True)  # of an earlier run
    if run is None:
        return "## Training\n\n**Not available**: the card was written without the folder of the run (`--run`).\n"
    shutil.copyfile(run.folder / RECORD, evaluation / RECORD)
    facts = {"base": _base(run, evaluation.parent), **environments_of(run.record)}
    about = markdown(["what", "value"], [[name, str(value)] for name, value in facts.items()])
    stages = "\n".join(_stage(run, stage, evaluation) for stage in STAGES)
    return f"## Training\n\n{about}\n\nEvery setting is in [`run.json`](evaluation/{RECORD}).\n\n{stages}"


def _base(run: Run, model: Path) -> str:
    base: str = run.record["config"]["base"]["path"]
    again = Path(base).resolve() == model.resolve()
    return f"{base} as it was at the first commit below, {FURTHER}" if again else base


def _stage(run: Run, stage: str, evaluation: Path) -> str:
    title, metrics = STAGES[stage], read_metrics(run.folder / stage)
    if not metrics:
        return f"### {title}\n\n**Not available**: {run.folder} holds no metrics of it.\n"
    settings = run.record["config"][stage]
    facts: dict[str, object] = {name: settings[name] for name in SETTINGS[stage]}
    facts |= {"seed": run.record["config"][f"{stage}_seed"], "steps taken": len(metrics)}
    if "tokens" in metrics[-1]:
        facts["tokens trained on"] = f"{sum(row['tokens'] for row in metrics):,.0f}"
    seconds = run.record["seconds"].get(stage)
    facts["minutes"] = "not available" if seconds is None else f"{seconds / 60:.1f}"
    lines = [[name, _shown(value)] for name, value in {**facts, **_counts(run.folder / stage)}.items()]
    return f"### {title}\n\n{markdown(['setting', 'value'], lines)}\n\n{_curves(run, stage, evaluation)}\n"


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(part)}" for name, part in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _counts(stage: Path) -> dict[str, object]:
    """Return what the stage noted about its rows: read, left out, kept."""
    path = stage / "data.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"rows": "not available"}


def _curves(run: Run, stage: str, evaluation: Path) -> str:
    source, target = run.folder / stage / CURVES, evaluation / f"{stage}.png"
    if not source.is_file():
        return f"Curves: **not available**, {source} does not exist."
    shutil.copyfile(source, target)
    return f"![{STAGES[stage]}: curves](evaluation/{target.name})"
