"""What is asked in which order: the same prompts in every arm, counterbalanced, at every step of the load."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .errors import LoadTestError
from .prompts import Prompt

Layout: TypeAlias = Literal["mixed", "blocks"]
"""``mixed`` asks all arms at the same time; ``blocks`` gives each arm the server for itself, one after the other."""


class Step(BaseModel):
    """One load: requests at a time (closed loop), arrivals per second (open loop) or neither (a recorded trace).

    `requests` is how many prompts each arm is asked, without the warm-up.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    concurrency: int | None = Field(default=None, ge=1)
    rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    requests: int = Field(ge=1)

    @model_validator(mode="after")
    def _one_kind(self) -> Step:
        if self.concurrency is not None and self.rate is not None:
            raise ValueError("both concurrency and rate are given")
        return self

    @property
    def is_trace(self) -> bool:
        """Whether the prompts tell when they arrive."""
        return self.concurrency is None and self.rate is None


@dataclass(frozen=True)
class Job:
    """One request to make. The arms' jobs of a `pair` share prompt and seed; `position` is its place in the run.

    `arrival_s` is when it is due, in seconds since its block begins; None in a closed loop.
    """

    position: int
    block: int
    repeat: int
    pair: int
    warmup: bool
    arm: str
    prompt: Prompt
    seed: int
    arrival_s: float | None


@dataclass(frozen=True)
class Block:
    """A stretch of the run under one load, measured on its own clock."""

    index: int
    step: Step
    jobs: tuple[Job, ...]


@dataclass(frozen=True)
class Design:
    """How a run is laid out. `warmup` requests open each block and are not measured."""

    arms: tuple[str, ...]
    steps: tuple[Step, ...]
    layout: Layout
    repeats: int
    warmup: int
    seed: int


def order(arms: Sequence[str], turn: int) -> list[str]:
    """Return the order of the arms at a turn: ABBA for two, and every arm in every place equally often for more."""
    first = (turn // 2) % len(arms)
    turned = [*arms[first:], *arms[:first]]
    return turned[::-1] if turn % 2 else turned


def plan(prompts: Sequence[Prompt], design: Design) -> list[Block]:
    """Return the blocks of a run, the same for the same seed. Raises LoadTestError for a design that cannot be run.

    The prompts are dealt from a shuffled deck, so that one comes again only after all others. The second request for
    a prompt may find it in the prefix cache; the changing order gives that advantage to all arms alike.
    """
    _check(prompts, design)
    deck, warm_deck = _Deck(prompts, f"deck-{design.seed}"), _Deck(prompts, f"warm-up-{design.seed}")
    blocks, builder = [], _Builder(design)
    for repeat in range(design.repeats):
        for place, step in enumerate(design.steps):
            dealt = [] if step.is_trace else [*warm_deck.deal(design.warmup), *deck.deal(step.requests)]
            # The repeats of a step take the arms in reverse, then turned; so do neighbouring steps.
            arms = order(design.arms, repeat + 2 * place)
            groups = [arms] if design.layout == "mixed" else [[arm] for arm in arms]
            pairs = builder.pairs(dealt or by_arrival(prompts))
            blocks += [builder.block(step, repeat, group, pairs) for group in groups]
    return blocks


def planned_requests(design: Design, prompts: int) -> int:
    """Return how many requests, warm-up included, the plan of `prompts` prompts has."""
    # A trace is all of the prompts, the warm-up among them.
    each = sum(prompts if step.is_trace else design.warmup + step.requests for step in design.steps)
    return design.repeats * len(design.arms) * each


def _check(prompts: Sequence[Prompt], design: Design) -> None:
    if design.repeats < 1:
        raise LoadTestError(f"repeats = {design.repeats}: at least 1 is needed")
    if design.warmup < 0:
        raise LoadTestError(f"warmup = {design.warmup} is negative")
    if not design.steps or not design.arms or not prompts:
        raise LoadTestError("a run needs at least one arm, one prompt and one step of load")
    if not any(step.is_trace for step in design.steps):
        return
    if design.layout == "mixed":
        raise LoadTestError("layout = 'mixed': a trace is replayed to one arm at a time")
    if design.warmup >= len(prompts):
        raise LoadTestError(f"warmup = {design.warmup}: the trace has {len(prompts)} requests")
    timeless = next((prompt.id for prompt in prompts if prompt.arrival_s is None), None)
    if timeless is not None:
        raise LoadTestError(f"prompt {timeless!r} has no arrival_s, which a trace needs")


class _Deck:
    """Deals prompts in shuffled order, and shuffles again when all are dealt."""

    def __init__(self, prompts: Sequence[Prompt], seed: str) -> None:
        self._prompts = prompts
        self._rng = random.Random(seed)
        self._left: list[Prompt] = []

    def deal(self, count: int) -> list[Prompt]:
        dealt = []
        for _ in range(count):
            if not self._left:
                self._left = self._rng.sample(self._prompts, len(self._prompts))
            dealt.append(self._left.pop())
        return dealt


@dataclass(frozen=True)
class _Pair:
    number: int
    prompt: Prompt
    seed: int


class _Builder:
    """Numbers pairs, blocks and jobs through a run."""

    def __init__(self, design: Design) -> None:
        self._design = design
        self._seeds = random.Random(f"seeds-{design.seed}")
        self._numbered = self._blocks = self._jobs = 0

    def pairs(self, prompts: Sequence[Prompt]) -> list[_Pair]:
        pairs = [_Pair(self._numbered + i, prompt, self._seeds.randrange(2**31)) for i, prompt in enumerate(prompts)]
        self._numbered += len(pairs)
        return pairs

    def block(self, step: Step, repeat: int, arms: Sequence[str], pairs: Sequence[_Pair]) -> Block:
        asked = [(pair, arm) for turn, pair in enumerate(pairs) for arm in order(arms, turn)]
        # Every arm of a pair is replayed the same arrivals.
        arrivals = self._arrivals(step, pairs, len(asked))
        jobs = tuple(
            Job(
                position=self._jobs + place,
                block=self._blocks,
                repeat=repeat,
                pair=pair.number,
                warmup=pair.number - pairs[0].number < self._design.warmup,
                arm=arm,
                prompt=pair.prompt,
                seed=pair.seed,
                arrival_s=next(arrivals),
            )
            for place, (pair, arm) in enumerate(asked)
        )
        self._jobs += len(jobs)
        self._blocks += 1
        return Block(self._blocks - 1, step, jobs)

    def _arrivals(self, step: Step, pairs: Sequence[_Pair], count: int) -> Iterator[float | None]:
        if step.rate is not None:
            return iter(poisson(step.rate, count, f"arrivals-{self._design.seed}-{pairs[0].number}"))
        if step.is_trace:
            begin_s = pairs[0].prompt.arrival_s or 0.0
            return iter([(pair.prompt.arrival_s or 0.0) - begin_s for pair in pairs])
        return iter([None] * count)


def by_arrival(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Return the prompts of a trace in the order in which they came."""
    return sorted(prompts, key=lambda prompt: prompt.arrival_s or 0.0)


def poisson(rate: float, count: int, seed: str) -> list[float]:
    """Return `count` arrival times in seconds of a Poisson process of `rate` per second."""
    rng, now_s, times = random.Random(seed), 0.0, []
    for _ in range(count):
        now_s += rng.expovariate(rate)
        times.append(now_s)
    return times
