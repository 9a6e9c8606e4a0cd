"""How right a nano is behind more and more earlier turns: ``python -m bench.turns --model models/lhrm-nano``.

The same open questions of the test split, each in the mode the model chooses, greedy, after 0 to 12 earlier turns of
the suite with their right answers. No outputs are kept but the table: the questions and turns follow from the seed.
"""

from __future__ import annotations

import argparse
import random
import sys
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from bench.servers import ROOT
from lhrm_train.config import EvalConfig, RewardConfig
from lhrm_train.evaluate import sample_contexts
from lhrm_train.format import Message, encode_chat
from lhrm_train.grading import Grader
from lhrm_train.problems import Problem
from lhrm_train.rows import known_mean
from lhrm_train.samplers import LocalSampler
from lhrm_train.suite import mix

TURNS = (0, 1, 2, 3, 4, 6, 8, 12)
SEED = 777


@dataclass(frozen=True)
class Point:
    """After `turns` earlier turns: mean prompt tokens and free-choice accuracy."""

    turns: int
    prompt_tokens: float
    accuracy: float


def problems_after(turns: int, count: int) -> list[Problem]:
    """Return the open questions, each behind `turns` turns; more turns begin with the same ones."""
    asked = islice((item for item in mix.items(SEED, "test") if not item.closed), count)
    return [_behind(item, turns, number) for number, item in enumerate(asked)]


def _behind(item: mix.Item, turns: int, number: int) -> Problem:
    rng = random.Random(f"turns-{SEED}-{number}")
    earlier: list[Message] = []
    for _ in range(turns):
        before = mix.sample_item(rng, "test")
        earlier += [before.messages[-1], Message("assistant", before.answer)]
    return replace(item.problem, messages=(*earlier, item.messages[-1]), context=f"{turns} turns")


def measure(model: Path, count: int) -> list[Point]:
    """Ask all questions at every number of turns. Raises FormatError when `model` is no checkpoint."""
    sampler = LocalSampler.load(model, EvalConfig(temperature=0.0))
    grader = Grader(RewardConfig(), sampler.tokenizer)
    points = []
    for turns in TURNS:
        problems = dict(enumerate(problems_after(turns, count)))
        rows = sample_contexts(sampler, grader, problems, 1, SEED)
        lengths = [len(encode_chat(sampler.tokenizer, one.messages, None)) for one in problems.values()]
        # A prompt without room for an answer has no score and counts as wrong.
        accuracy = sum(known_mean(row.scores) if row.counts else 0.0 for row in rows) / count
        points.append(Point(turns, sum(lengths) / count, accuracy))
        print(f"{turns} turns: {accuracy:.3f}", file=sys.stderr)
    return points


def table(points: list[Point]) -> str:
    """Return the Markdown table."""
    rows = (
        ("earlier turns", [str(point.turns) for point in points]),
        ("prompt tokens, mean", [f"{point.prompt_tokens:.0f}" for point in points]),
        ("free-choice accuracy", [f"{point.accuracy:.3f}" for point in points]),
    )
    lines = [f"| {name} | {' | '.join(values)} |" for name, values in rows]
    return "\n".join([lines[0], "|---" * (len(points) + 1) + "|", *lines[1:]])


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table and one line of key figures."""
    parser = argparse.ArgumentParser(prog="bench.turns", description="Accuracy after more and more earlier turns.")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "lhrm-nano")
    parser.add_argument("--questions", type=int, default=200)
    options = parser.parse_args(arguments)
    points = measure(options.model, options.questions)
    print(table(points))
    print(" ".join(f"accuracy_{point.turns}_turns={point.accuracy:.4f}" for point in points))
    return 0


if __name__ == "__main__":
    sys.exit(main())
