"""Where prompts come from: a JSONL file, the nano suite or reasoning-gym data sets by name."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import LoadTestError
from .grade import ScoringError, check_scorer, score
from .prompts import Prompt, Turn, load_prompts

if TYPE_CHECKING:
    from lhrm_train.problems import Problem

SUITE, GYM = "nano", "gym:"
DEFAULT_COUNT = 500


def read_source(source: str, n: int | None, seed: int) -> list[Prompt]:
    """Return `n` prompts of `source` (None: all of a file, 500 of anything generated).

    `source` is ``nano`` (the suite's test split), ``gym:NAME,NAME`` (reasoning-gym data sets, shared equally) or the
    path of a JSONL file, of which `n` are drawn at random, in the order of the file. Raises LoadTestError.
    """
    if n is not None and n < 1:
        raise LoadTestError(f"n = {n}: at least 1 prompt is needed")
    if source == SUITE:
        return _suite(n or DEFAULT_COUNT, seed)
    if source.startswith(GYM):
        return _gym([name for name in source.removeprefix(GYM).split(",") if name], n or DEFAULT_COUNT, seed)
    prompts = load_prompts(Path(source), check_scorer)
    if n is None:
        return prompts
    if n > len(prompts):
        # Asking one twice would not be a new observation.
        raise LoadTestError(f"n = {n}: {source} has {len(prompts)} prompts")
    kept = sorted(random.Random(seed).sample(range(len(prompts)), n))
    return [prompts[place] for place in kept]


def _suite(n: int, seed: int) -> list[Prompt]:
    try:
        from lhrm_train.suite.mix import fixed_items
    except ImportError as exc:
        raise _missing(exc, "train") from exc
    problems = [item.problem for item in fixed_items(n, seed, "test")]
    return [_prompt(f"nano-{seed}-{place}", problem, "exact") for place, problem in enumerate(problems)]


def _gym(names: list[str], n: int, seed: int) -> list[Prompt]:
    if not names:
        raise LoadTestError(f"prompts = {GYM!r}: name at least one data set, as in gym:chain_sum,leg_counting")
    if n < len(names):
        raise LoadTestError(f"n = {n}: {len(names)} data sets are named")
    try:
        from lhrm_train.config import ConfigError, DataConfig
        from lhrm_train.sources import read_problems
    except ImportError as exc:
        raise _missing(exc, "gym") from exc
    prompts = []
    for place, name in enumerate(names):
        count = n // len(names) + (place < n % len(names))
        try:
            problems = read_problems(DataConfig(source="gym", files=(name,), limit=count, seed=seed))
        except ConfigError as exc:
            raise LoadTestError(f"prompts = gym:{name}: {exc}") from exc
        prompts += [_gym_prompt(f"{name}-{seed}-{i}", problem) for i, problem in enumerate(problems)]
    return prompts


def _gym_prompt(identity: str, problem: Problem) -> Prompt:
    """Keep an item as JSON, if its verifier takes it back like that: tuples become lists.

    Raises LoadTestError where the reference answer then has another score.
    """
    from lhrm_train.config import RewardConfig
    from lhrm_train.rewards import scorer

    try:
        fields = json.loads(json.dumps(dict(problem.fields)))
        kept = _prompt(identity, replace(problem, fields=fields), "gym")
        if score(kept, problem.reference) == scorer("gym", RewardConfig())(problem, problem.reference):
            return kept
        why = "its verifier needs more than JSON holds"
    except (TypeError, ValueError, ScoringError) as exc:
        why = str(exc)
    raise LoadTestError(f"prompts = gym:{problem.kind}: item {identity} cannot be kept in a file: {why}")


def _missing(exc: ImportError, extra: str) -> LoadTestError:
    return LoadTestError(f"these prompts cannot be made: {exc}: pip install 'lhrm[{extra}]'")


def _prompt(identity: str, problem: Problem, scorer: str) -> Prompt:
    return Prompt(
        id=identity,
        messages=tuple(Turn(role=message.role, content=message.content) for message in problem.messages),
        answer=problem.reference,
        scorer=problem.scorer or scorer,
        fields=dict(problem.fields),
        task=problem.kind,
        level=problem.level,
        closed=problem.closed,
    )


def tasks(prompts: Iterable[Prompt]) -> str:
    """Return the mix of a set of prompts as ``task share, ...``, largest first; a saving depends on it."""
    counts: dict[str, int] = {}
    for prompt in prompts:
        counts[prompt.task or "other"] = counts.get(prompt.task or "other", 0) + 1
    total = sum(counts.values())
    shares = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {100 * count / total:.0f} %" for name, count in shares)
