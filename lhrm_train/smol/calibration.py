"""The savings calibration of lhrm-smol, from validation questions and everyday prompts of the validation split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lhrm_train.config import RunConfig
from lhrm_train.evaluate_any import measure_rows
from lhrm_train.evaluation import questions_of, write_calibration
from lhrm_train.format import Message, SavingsCalibration
from lhrm_train.measure import Measurement
from lhrm_train.problems import Problem
from lhrm_train.samplers import LocalSampler
from lhrm_train.smol.data import CHAT_KIND, CHAT_LEVEL, CHAT_SCORER
from lhrm_train.smol.everyday import prompts_of
from lhrm_train.sources import question_key


def calibrate_smol(model: Path, data: Path, out: Path, config: RunConfig) -> SavingsCalibration | None:
    """Measure `model` in both modes, write the calibration into its lhrm.json and return it; None: too few prompts.

    Rows are kept in `out`: a stopped measurement goes on there. Raises ConfigError where they are of another model,
    DataError where validation.jsonl in `data` cannot be read.
    """
    source = replace(config.test, source="jsonl", files=(str(data / "validation.jsonl"),))
    problems = [*questions_of(source, config).problems, *everyday_problems("validation")]
    sampler = LocalSampler.load(model, config.eval)
    rows = measure_rows(Measurement(sampler, problems, config.eval, config.reward), out)
    return write_calibration(model, rows)


def everyday_problems(split: str) -> list[Problem]:
    """Return the everyday prompts of `split`, each alone, with the scorer that HGPO has for them."""
    out = []
    for prompt in prompts_of(split):
        messages = (Message("user", prompt.prompt),)
        key, fields = question_key(messages), {"group": prompt.group}
        out.append(Problem(messages, "", CHAT_SCORER, CHAT_KIND, CHAT_LEVEL, key=key, fields=fields))
    return out
