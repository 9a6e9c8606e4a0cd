"""The loop of every evaluation: rows are written while it runs, a second call goes on, nothing is ever mixed."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lhrm_train.atomic import write_json
from lhrm_train.config import ConfigError, EvalConfig, RewardConfig
from lhrm_train.problems import Problem
from lhrm_train.rows import AnyRow, RowLog
from lhrm_train.samplers import Sampler, SamplerError

# What a measurement's directory holds.
ROWS, SETTINGS = "rows.jsonl", "settings.json"
# Rows measured with another value of any of these must not stand in one file.
SAMPLING = ("samples", "temperature", "max_new_tokens", "seed", "chunk")
ANALYSIS = ("margin", "resamples", "confidence", "seed")


@dataclass(frozen=True)
class Measurement:
    """Which model is asked which problems, and how. `data` says where they are from, for the report."""

    sampler: Sampler
    problems: Sequence[Problem]
    config: EvalConfig
    reward: RewardConfig
    data: Mapping[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """Return what ``settings.json`` holds: `sampling` decides which rows may stand together, the rest does not."""
        scorers = Counter(problem.scorer or self.reward.scorer for problem in self.problems)
        described = {
            "sampling": {
                **self.sampler.describe(),
                "modes": [mode.value for mode in self.sampler.modes],
                "prompts": len(self.problems),
                "problems": _digest(self.problems),
                **{name: getattr(self.config, name) for name in SAMPLING},
                "reward": asdict(self.reward),
            },
            "analysis": {name: getattr(self.config, name) for name in ANALYSIS},
            "data": {**self.data, "scorers": dict(scorers)},
        }
        as_read: dict[str, Any] = json.loads(json.dumps(described))
        return as_read


def _digest(problems: Sequence[Problem]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for one in problems:
        turns = [[message.role, message.content] for message in one.messages]
        parts = [turns, one.reference, one.scorer, one.kind, one.level, one.key, dict(one.fields)]
        digest.update(json.dumps(parts, default=str).encode())
    return digest.hexdigest()


def measure(
    log: RowLog[AnyRow], what: Measurement, ask: Callable[[dict[int, Problem], int], list[AnyRow]]
) -> list[AnyRow]:
    """Return one row per problem, in order, from the log or from `ask(problems by index, seed)`.

    Rows that the log already has are not made again, except those with an invalid sample. A killed measurement loses
    at most one chunk of prompts. Raises ConfigError when there is nothing to ask or the log holds rows of another
    model, other problems or other settings; SamplerError when not one sample is valid.
    """
    problems, config = what.problems, what.config
    if not problems:
        raise ConfigError("there are no problems to evaluate")
    _settle(log, what.settings())
    done = _resume(log, problems)
    any_valid = bool(done)
    with tqdm(total=len(problems), initial=len(done), desc="evaluate", unit="prompt") as bar:
        for start in range(0, len(problems), config.chunk):
            end = min(start + config.chunk, len(problems))
            todo = {index: problems[index] for index in range(start, end) if index not in done}
            if not todo:
                continue
            # Seeds belong to the chunk, so that a resumed evaluation draws what an unbroken one does.
            rows = ask(todo, config.seed + start)
            any_valid = any_valid or any(row.counts for row in rows)
            if not any_valid:
                raise SamplerError(f"no sample of the first {len(rows)} prompts is valid: {rows[0].error}")
            log.append(rows)
            bar.update(len(rows))
    return sorted(log.read(), key=lambda row: row.index)


def _settle(log: RowLog[AnyRow], settings: dict[str, Any]) -> None:
    """Compare the settings with those of the rows that are there, then write them."""
    path = log.path.with_name(SETTINGS)
    if log.read():
        if not path.is_file():
            raise ConfigError(f"{log.path}: nothing tells which model made these rows: use another directory")
        before, sampling = json.loads(path.read_text(encoding="utf-8"))["sampling"], settings["sampling"]
        for name in sorted(before.keys() | sampling.keys()):
            old, new = before.get(name), sampling.get(name)
            if old != new:
                raise ConfigError(f"{log.path} was measured with {name} = {old!r}, not {new!r}: use another directory")
    write_json(path, settings)


def _resume(log: RowLog[AnyRow], problems: Sequence[Problem]) -> set[int]:
    """Return the indices of the rows to keep, and leave only these in the log."""
    kept = [row for row in log.read() if row.complete]
    for row in kept:
        if not 0 <= row.index < len(problems) or problems[row.index].key != row.key:
            raise ConfigError(f"{log.path}: row {row.index} with key {row.key!r} is of another problem")
    log.keep(kept)
    return {row.index for row in kept}


def read_settings(directory: Path) -> dict[str, Any]:
    """Return the settings that `measure` left. Raises ConfigError when there are none."""
    path = directory / SETTINGS
    if not path.is_file():
        raise ConfigError(f"{path} not found: not the directory of an evaluation")
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return settings
