"""``run.json``: what a run was made with, so that what has trained never goes on with something else."""

from __future__ import annotations

import json
import platform
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lhrm_train.atomic import write_json
from lhrm_train.config import ConfigError, DataConfig, RunConfig
from lhrm_train.devices import accelerator
from lhrm_train.digest import data_digest, weights_digest
from lhrm_train.format import Manifest
from lhrm_train.metrics import METRICS_NAME

NAME = "run.json"
# Which stages run now, and how long and how they are measured, changes nothing that is trained.
FREE = ("threads", "stages", "eval")
# What nothing has used before a stage has begun.
FREE_BEFORE: Mapping[str, tuple[str, ...]] = MappingProxyType({"hgpo": ("hgpo", "hgpo_seed", "prompts", "reward")})
NOTE_EVERY_S = 20.0  # at most so much of a killed stage's time is lost


def _environment() -> dict[str, str]:
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    return {
        "commit": commit,
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: version(name) for name in ("torch", "transformers", "tokenizers", "accelerate")},
    }


def read_record(out: Path) -> dict[str, Any]:
    """Return the record of the run in `out`. Raises ConfigError when there is none."""
    path = out / NAME
    if not path.is_file():
        raise ConfigError(f"{path} not found: not the directory of a run")
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


class RunRecord:
    """Keeps ``run.json``: settings, inputs, versions, and the seconds of each stage. Only the first process does."""

    def __init__(self, out: Path, config: RunConfig, hft: Path | None) -> None:
        """Open or begin the record. Raises ConfigError when the run was made with other settings or inputs, and
        FormatError when `hft` is no checkpoint.
        """
        self._out = out
        self._main = accelerator().is_main_process
        self._record: dict[str, Any] = {}
        if self._main:
            self._record = _record(out, config, hft)
            write_json(out / NAME, self._record)
        accelerator().wait_for_everyone()

    def run(self, name: str, work: Callable[[], object]) -> None:
        """Do the work of a stage and note its time; one that was stopped or killed and resumed counts all its parts."""
        start, before = time.monotonic(), self._record.get("seconds", {}).get(name, 0.0)
        ended = threading.Event()

        def note() -> None:
            self._note(name, before + time.monotonic() - start)

        def note_now_and_then() -> None:
            while not ended.wait(NOTE_EVERY_S):
                note()

        clock = threading.Thread(target=note_now_and_then, daemon=True)
        clock.start()
        try:
            work()
        finally:
            ended.set()
            clock.join()
            note()

    def _note(self, name: str, seconds: float) -> None:
        if self._main:
            self._record["seconds"][name] = round(seconds, 1)
            write_json(self._out / NAME, self._record)


def _record(out: Path, config: RunConfig, hft: Path | None) -> dict[str, Any]:
    record: dict[str, Any] = {
        "config": json.loads(json.dumps(asdict(config))),
        "hft": None if hft is None else {"name": Manifest.load(hft).name, "weights": weights_digest(hft)},
        "data": _data(config, hft),
        "environment": _environment(),
        "seconds": {},
    }
    path = out / NAME
    if not path.is_file():
        return record
    before = read_record(out)
    free = [name for stage, names in FREE_BEFORE.items() if not _has_begun(out, stage) for name in names]
    _refuse_other_settings(path, before["config"], record["config"], (*FREE, *free))
    if before.get("hft") != record["hft"]:
        raise ConfigError(f"{path} was made {_with(before.get('hft'))}, not {_with(record['hft'])}: use another --out")
    for stage, digests in before.get("data", {}).items():
        if _has_begun(out, stage):  # until then its data may be mended
            _refuse_other_data(path, digests, record["data"].get(stage, {}))
            record["data"][stage] = digests
    environments = [*before.get("earlier_environments", []), before["environment"], record["environment"]]
    earlier = [one for at, one in enumerate(environments[:-1]) if one not in environments[at + 1 :]]
    return {**record, "seconds": before["seconds"], "earlier_environments": earlier}


def environments_of(record: Mapping[str, Any]) -> dict[str, str]:
    """Return commit, versions and machine of a run; of one that went on under others all, in their order."""
    parts = [*record.get("earlier_environments", []), record["environment"]]
    return {name: ", then ".join(dict.fromkeys(part.get(name, "unknown") for part in parts)) for name in parts[-1]}


def _has_begun(out: Path, stage: str) -> bool:
    return (out / stage / METRICS_NAME).is_file()


def _with(hft: dict[str, str] | None) -> str:
    return "without --hft" if hft is None else f"with --hft {hft['name']}, weights {hft['weights']}"


def _data(config: RunConfig, hft: Path | None) -> dict[str, dict[str, str]]:
    """Return per training stage the digest of every local file it reads.

    Test questions are not among them: they are compared where their rows are kept.
    """
    stages = {"hgpo": config.prompts} if hft is not None else {"hft": config.data, "hgpo": config.prompts}
    return {stage: _digests(data) for stage, data in stages.items()}


def _digests(data: DataConfig) -> dict[str, str]:
    files = data.files if data.source in ("jsonl", "datasets") else ()
    found = {name: data_digest(name) for name in (*files, *data.decontaminate)}
    return {name: digest for name, digest in found.items() if digest is not None}


def _refuse_other_data(path: Path, old: dict[str, str], new: dict[str, str]) -> None:
    # A file that is gone is missed by the stage that still needs it.
    if other := [name for name, digest in new.items() if old.get(name, digest) != digest]:
        raise ConfigError(f"{path} was made with other content of {other[0]}: use another --out")


def _refuse_other_settings(
    path: Path, old: dict[str, Any], new: dict[str, Any], free: Sequence[str], where: str = ""
) -> None:
    for name in sorted(old.keys() | new.keys()):
        if where + name in free:
            continue
        one, two = old.get(name), new.get(name)
        if isinstance(one, dict) and isinstance(two, dict):
            _refuse_other_settings(path, one, two, free, f"{where}{name}.")
        elif one != two:
            raise ConfigError(f"{path} was made with {where}{name} = {one!r}, not {two!r}: use another --out")
