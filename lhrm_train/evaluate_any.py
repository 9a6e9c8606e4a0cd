"""Evaluation of any sampler on any problems: rows are written while it runs, and a second call goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lhrm_train.config import ConfigError, EvalConfig, RewardConfig
from lhrm_train.evaluate import sample_rows
from lhrm_train.evaluation_report import ROWS, SETTINGS, report_from_rows
from lhrm_train.grading import Grader
from lhrm_train.problems import Problem
from lhrm_train.rows import RowLog
from lhrm_train.samplers import Sampler, SamplerError

# Rows measured with another value of any of these must not stand in one file.
SAMPLING = ("samples", "temperature", "max_new_tokens", "seed", "chunk")
ANALYSIS = ("margin", "resamples", "confidence", "seed")


def evaluate_any(
    sampler: Sampler, problems: Sequence[Problem], config: EvalConfig, out: Path, reward: RewardConfig | None = None
) -> str:
    """Sample every problem in every mode, keep the rows in `out`, and return the report with the key line last.

    Rows that `out` already has are not made again, except those with an invalid sample. A killed evaluation loses at
    most one chunk of prompts; the same call goes on from there. Raises ConfigError when there is nothing to ask, a
    scorer cannot be had, or `out` holds rows of another model, other problems or other settings; SamplerError when
    the model cannot be asked or not one sample is valid.
    """
    if not problems:
        raise ConfigError("there are no problems to evaluate")
    reward = reward or RewardConfig()
    grader = Grader(reward, sampler.tokenizer)
    grader.check(problems)
    log = RowLog(out / ROWS)
    _settle(log, out / SETTINGS, _sampling(sampler, problems, config, reward), config)
    done = _resume(log, problems)
    any_valid = bool(done)
    with tqdm(total=len(problems), initial=len(done), desc="evaluate", unit="prompt") as bar:
        for start in range(0, len(problems), config.chunk):
            end = min(start + config.chunk, len(problems))
            todo = {index: problems[index] for index in range(start, end) if index not in done}
            if not todo:
                continue
            # Seeds belong to the chunk, so that a resumed evaluation draws what an unbroken one does.
            rows = sample_rows(sampler, grader, todo, config.samples, config.seed + start)
            any_valid = any_valid or any(row.counts for row in rows)
            if not any_valid:
                raise SamplerError(f"no sample of the first {len(rows)} prompts is valid: {rows[0].error}")
            log.append(rows)
            bar.update(len(rows))
    return report_from_rows(out)


def _sampling(
    sampler: Sampler, problems: Sequence[Problem], config: EvalConfig, reward: RewardConfig
) -> dict[str, Any]:
    digest = hashlib.blake2b(digest_size=16)
    for problem in problems:
        turns = [[message.role, message.content] for message in problem.messages]
        digest.update(json.dumps([turns, problem.reference, problem.scorer, problem.key]).encode())
    settings = {
        **sampler.describe(),
        "modes": [mode.value for mode in sampler.modes],
        "prompts": len(problems),
        "problems": digest.hexdigest(),
        **{name: getattr(config, name) for name in SAMPLING},
        "reward": asdict(reward),
    }
    as_read: dict[str, Any] = json.loads(json.dumps(settings))
    return as_read


def _settle(log: RowLog, path: Path, sampling: dict[str, Any], config: EvalConfig) -> None:
    """Compare the settings with those of the rows that are there, then write them."""
    if path.is_file() and log.read():
        before = json.loads(path.read_text(encoding="utf-8"))["sampling"]
        for name in sorted(before.keys() | sampling.keys()):
            old, new = before.get(name), sampling.get(name)
            if old != new:
                raise ConfigError(f"{log.path} was measured with {name} = {old!r}, not {new!r}: use another directory")
    analysis = {name: getattr(config, name) for name in ANALYSIS}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"sampling": sampling, "analysis": analysis}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _resume(log: RowLog, problems: Sequence[Problem]) -> set[int]:
    """Return the indices of the rows to keep, and leave only these in the log."""
    kept = [row for row in log.read() if row.counts and not row.invalid]
    for row in kept:
        if not 0 <= row.index < len(problems) or problems[row.index].key != row.key:
            raise ConfigError(f"{log.path}: row {row.index} with key {row.key!r} is of another problem")
    log.keep(kept)
    return {row.index for row in kept}
