"""A run from a base to an evaluated checkpoint; every finished stage is skipped on a second call."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lhrm_train.checkpoint import is_checkpoint
from lhrm_train.config import ConfigError, RunConfig
from lhrm_train.devices import accelerator
from lhrm_train.evaluate import evaluate
from lhrm_train.evaluation import evaluate_files
from lhrm_train.format import ChatTokenizer
from lhrm_train.init import init_base
from lhrm_train.nano import build_base
from lhrm_train.plots import plot_curves
from lhrm_train.rewards import Judge
from lhrm_train.run_card import write_run_card
from lhrm_train.streams import demonstration_data, problem_data
from lhrm_train.suite_report import evaluate_run, finish_manifest, rows_once, write_report
from lhrm_train.train_hft import train_hft
from lhrm_train.train_hgpo import train_hgpo


@dataclass(frozen=True)
class RunFiles:
    """Where a run keeps what it made."""

    out: Path

    @property
    def base(self) -> Path:
        """The random base."""
        return self.out / "base"

    @property
    def hgpo(self) -> Path:
        """The final checkpoint."""
        return self.out / "hgpo" / "checkpoint"

    @property
    def rows(self) -> Path:
        """The folder of raw evaluation rows."""
        return self.out / "evaluation"


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


class _Stages:
    """Times each stage and keeps the run's own description up to date."""

    def __init__(self, out: Path, config: RunConfig) -> None:
        self._path = out / "run.json"
        self._record = {"config": asdict(config), "environment": _environment(), "seconds": {}}
        if self._path.is_file():
            before = json.loads(self._path.read_text(encoding="utf-8"))
            self._record["seconds"] = before["seconds"]
            _refuse_other_settings(self._path, before["config"], json.loads(json.dumps(asdict(config))))
        out.mkdir(parents=True, exist_ok=True)
        self._main = accelerator().is_main_process
        self._write()

    def run(self, name: str, work: Callable[[], object]) -> None:
        start = time.monotonic()
        work()
        seconds = self._record["seconds"]
        # A stage that was interrupted and resumed counts all of its parts.
        seconds[name] = round(seconds.get(name, 0.0) + time.monotonic() - start, 1)
        self._write()

    def _write(self) -> None:
        if self._main:
            self._path.write_text(json.dumps(self._record, indent=1) + "\n", encoding="utf-8")


def _refuse_other_settings(path: Path, old: dict[str, Any], new: dict[str, Any], where: str = "") -> None:
    """Raise ConfigError if a run would go on with other settings than those of its finished stages."""
    for name in sorted(old.keys() | new.keys()):
        if where + name in ("threads", "stages", "eval"):
            continue
        one, two = old.get(name), new.get(name)
        if isinstance(one, dict) and isinstance(two, dict):
            _refuse_other_settings(path, one, two, f"{where}{name}.")
        elif one != two:
            raise ConfigError(f"{path} was made with {where}{name} = {one!r}, not {two!r}: use another --out")


def _make_base(out: Path, config: RunConfig, stages: _Stages) -> Path:
    """Return the hybrid-ready base: the given checkpoint, one made from the given model, or a random one."""
    target, path = RunFiles(out).base, config.base.path
    if path and is_checkpoint(Path(path)):
        return Path(path)
    if not is_checkpoint(target):
        if path:
            stages.run("base", lambda: init_base(path, target, config.base.name, config.hft_seed))
        else:
            stages.run("base", lambda: build_base(target, config.base, config.hft_seed))
    return target


def _note_data(out: Path, **parts: Any) -> None:
    """Say what was read and what was left out, and keep it beside the stage's curves."""
    if not accelerator().is_main_process:
        return
    known = {name: part if isinstance(part, int) else asdict(part) for name, part in parts.items() if part is not None}
    out.mkdir(parents=True, exist_ok=True)
    (out / "data.json").write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    print(f"{out.name} data: {json.dumps(known)}", file=sys.stderr)


def _run_hft(base: Path, out: Path, config: RunConfig, recipe: dict[str, object]) -> None:
    processes = accelerator().num_processes
    data = demonstration_data(ChatTokenizer.load(base), config.data, config.hft, config.hft_seed, processes)
    _note_data(out, cleaning=data.cleaning, mixture=data.mixture)
    train_hft(base, out, data.config, data.stream, config.hft_seed, recipe)
    if accelerator().is_main_process:
        plot_curves(out / "metrics.jsonl", ("loss",), out / "curves.png", 20)


def _run_hgpo(init: Path, out: Path, config: RunConfig, recipe: dict[str, object]) -> None:
    tokenizer = ChatTokenizer.load(init)
    data = problem_data(tokenizer, config.prompts, config.hgpo, config.hgpo_seed)
    Judge(tokenizer, config.reward).check(data.problems)  # an unknown scorer ends the run now, not at its first use
    _note_data(out, cleaning=data.cleaning, prompts_too_long=data.too_long)
    train_hgpo(init, out, config.hgpo, config.reward, data.stream, config.hgpo_seed, recipe)
    if accelerator().is_main_process:
        plot_curves(out / "metrics.jsonl", ("agreement", "think_rate", "accuracy_think"), out / "curves.png", 3)


def _run_eval(start: Path | None, final: Path, out: Path, config: RunConfig) -> str:
    rows = RunFiles(out).rows
    if config.test.source != "suite":
        return evaluate_files(final, rows, config)
    if start is not None:
        before = replace(config.eval, samples=config.eval.hft_samples)
        rows_once(rows / "hft_test.jsonl.gz", lambda: evaluate(start, before))
    evaluate_run(final, rows, config.eval)
    finish_manifest(final, rows, config.eval)
    return write_report(rows, config.eval)


def run(out: Path, config: RunConfig, hft: Path | None = None) -> str:
    """Run the stages of `config` and return the report. `hft` starts HGPO from a finished HFT checkpoint instead.

    Raises InterruptedRunError after saving when asked to stop; the same call goes on from there.
    """
    files, stages = RunFiles(out), _Stages(out, config)
    recipe: dict[str, object] = {"hft_seed": config.hft_seed, "hgpo_seed": config.hgpo_seed}
    final = hft or out / "hft" / "checkpoint"
    processes = accelerator()
    if hft is None:
        with processes.main_process_first():  # the others find it made
            base = _make_base(out, config, stages)
        if "hft" not in config.stages:
            final = base
        elif not is_checkpoint(final):
            stages.run("hft", lambda: _run_hft(base, out / "hft", config, recipe))
    start = final
    if "hgpo" in config.stages:
        if not is_checkpoint(files.hgpo):
            stages.run("hgpo", lambda: _run_hgpo(start, out / "hgpo", config, recipe))
        final = files.hgpo
    if "eval" not in config.stages or not processes.is_main_process:
        return f"checkpoint={final}"
    reports: list[str] = []
    stages.run("eval", lambda: reports.append(_run_eval(start if start != final else None, final, out, config)))
    write_run_card(out, config, reports[0], final)
    return reports[0]
