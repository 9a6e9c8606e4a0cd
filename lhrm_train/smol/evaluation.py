"""What the card of lhrm-smol quotes, measured into one folder: three sets of questions, perplexity, examples."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from lhrm_train.atomic import write_json, write_text
from lhrm_train.config import ConfigError, DataConfig, RunConfig
from lhrm_train.digest import digest_of, weights_digest
from lhrm_train.evaluation import Questions, evaluate_questions, questions_of
from lhrm_train.samplers import LocalSampler, Sampler
from lhrm_train.smol.examples import answer_freely
from lhrm_train.smol.perplexity import perplexities
from lhrm_train.smol.questions.gym import EVALUATION_QUESTIONS, EVALUATION_SEED, SETTINGS
from lhrm_train.sources import read_problems

# Of the tasks of reasoning-gym that it is trained on, questions that it has not seen; and of other tasks.
TEST, EVERYDAY, GYM, GYM_OTHER = "test", "everyday", "gym", "gym-other"
PERPLEXITY, EXAMPLES, INPUTS = "perplexity.json", "examples.jsonl", "inputs.json"
HELD_OUT = "held-out-answers.jsonl"  # in the data folder
# Tasks of reasoning-gym that nothing is trained on, near the trained kinds.
OTHER_TASKS = (
    "basic_arithmetic",
    "calendar_arithmetic",
    "fraction_simplification",
    "number_sequence",
    "number_sorting",
    "time_intervals",
    "word_sorting",
)
GYM_SCORER = "lhrm_train.smol.right:right"  # the share of right answers, where the verifiers give parts
EXAMPLES_OF = {TEST: 60, EVERYDAY: 12}


def measure_smol(model: Path, base: Path, data: Path, out: Path, config: RunConfig, gym_per_task: int) -> None:
    """Write rows and reports of every set, perplexities and examples into `out`; what is there is not made again.

    Raises ConfigError where `out` is of another model, base or data, or a set cannot be read.
    """
    held_out = data / HELD_OUT
    _refuse_others(
        out, {"model": weights_digest(model), "base": weights_digest(base), "answers": digest_of([held_out])}
    )
    sampler = LocalSampler.load(model, config.eval)
    sets = question_sets(data, config, gym_per_task)
    for name, questions in sets.items():
        evaluate_questions(sampler, questions, out / name, config)
    if not (out / EXAMPLES).is_file():
        write_text(out / EXAMPLES, _examples(sampler, sets, config))
    if not (out / PERPLEXITY).is_file():
        write_json(out / PERPLEXITY, asdict(perplexities(model, base, held_out)))


def _refuse_others(out: Path, inputs: Mapping[str, str]) -> None:
    """Write what is measured here, or compare it with what was."""
    path = out / INPUTS
    if path.is_file() and (before := json.loads(path.read_text(encoding="utf-8"))) != inputs:
        other = [name for name, digest in inputs.items() if before.get(name) != digest]
        raise ConfigError(f"{out} was measured with another {', '.join(other)}: use another directory")
    write_json(path, dict(inputs))


def question_sets(data: Path, config: RunConfig, gym_per_task: int) -> dict[str, Questions]:
    """Return the held-out questions, the everyday prompts and reasoning-gym's questions, by name.

    Raises ConfigError unless `gym_per_task` is at least 1 and at most what training leaves out.
    """
    files = {TEST: data / "test.jsonl", EVERYDAY: data / "test-chat.jsonl"}
    sets = {
        name: questions_of(replace(config.test, source="jsonl", files=(str(path),)), config)
        for name, path in files.items()
    }
    if not 1 <= gym_per_task <= EVALUATION_QUESTIONS:
        raise ConfigError(f"gym = {gym_per_task}: 1 to {EVALUATION_QUESTIONS} of a task are kept out of training")
    for name, tasks in ((GYM, tuple(SETTINGS)), (GYM_OTHER, OTHER_TASKS)):
        gym = DataConfig(source="gym", files=tasks, limit=gym_per_task, seed=EVALUATION_SEED)
        problems = [replace(problem, scorer=GYM_SCORER) for problem in read_problems(gym)]
        sets[name] = Questions(f"reasoning-gym, {name}", problems)
    return sets


def _examples(sampler: Sampler, sets: Mapping[str, Questions], config: RunConfig) -> str:
    lines = []
    for name, count in EXAMPLES_OF.items():
        problems = sets[name].problems
        # Spread over the file, whatever its order.
        some = problems[:: max(1, len(problems) // count)][:count]
        for one in answer_freely(sampler, some, config.reward, config.eval.seed):
            lines.append(json.dumps({"set": name, **asdict(one)}, ensure_ascii=False) + "\n")
    return "".join(lines)
