"""Run the blocks of a plan, closed or open loop, and hand over a row for every request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from .arms import Arm
from .driver import Answered, Driver, now_ms
from .errors import LoadTestError
from .grade import ScoringError, score
from .plan import Block, Job
from .prompts import Prompt, Turn
from .rows import Row

OnRow = Callable[[Row], None]
UNREACHABLE_IN_A_ROW = 50
_PROBE = Prompt(id="probe", messages=(Turn(role="user", content="Hello"),))


async def probe(driver: Driver, arms: Iterable[Arm]) -> None:
    """Ask one question in every arm, unmeasured. Raises LoadTestError where an arm cannot answer as it is meant to."""
    for arm in arms:
        job = Job(-1, -1, 0, -1, True, arm.name, _PROBE, 0, None)
        answered = await driver.ask(job)
        if answered.reply is None:
            raise LoadTestError(f"arm {arm.name!r} at {arm.url}: {answered.error}")
        ran = answered.reply.mode
        if arm.mode in ("think", "no_think") and ran != arm.mode:
            raise LoadTestError(f"arm {arm.name!r} at {arm.url}: asked for {arm.mode}, the reply is {ran}")


async def run(driver: Driver, blocks: Iterable[Block], arms: Iterable[Arm], session: int, on_row: OnRow) -> None:
    """Make the requests of every block in turn. Raises LoadTestError when an endpoint is gone."""
    asked = {arm.name: arm for arm in arms}
    lost = _Lost()  # of the whole run: a block may have fewer requests than it takes
    try:
        for block in blocks:
            await _BlockRun(driver, block, asked, session, on_row, lost).run()
    except* LoadTestError as group:
        raise group.exceptions[0] from None


class _Lost:
    """Counts requests in a row that one server did not take: one that is gone would fail the whole rest of a run."""

    def __init__(self) -> None:
        self._in_a_row: dict[str, int] = {}

    def count(self, arm: Arm, answered: Answered) -> None:
        """Raise LoadTestError when there were too many."""
        self._in_a_row[arm.url] = self._in_a_row.get(arm.url, 0) + 1 if answered.unreachable else 0
        if self._in_a_row[arm.url] >= UNREACHABLE_IN_A_ROW:
            raise LoadTestError(
                f"arm {arm.name!r}: {UNREACHABLE_IN_A_ROW} requests in a row did not reach {arm.url}; "
                "when it is back, resume --retry-errors goes on"
            )


def remaining(blocks: Sequence[Block], done: set[int]) -> list[Block]:
    """Return the blocks without the positions that are done, empty blocks left out."""
    left = [Block(b.index, b.step, tuple(job for job in b.jobs if job.position not in done)) for b in blocks]
    return [block for block in left if block.jobs]


@dataclass(frozen=True)
class _BlockRun:
    """One block on its own clock."""

    driver: Driver
    block: Block
    arms: dict[str, Arm]
    session: int
    on_row: OnRow
    lost: _Lost

    async def run(self) -> None:
        # A common start for the clock of the times and for that of the processor.
        clock = _Clock(now_ms(), time.process_time())
        async with asyncio.TaskGroup() as tasks:
            if self.block.step.concurrency is None:
                await self._open_loop(clock, tasks)
            else:
                queue = iter(self.block.jobs)
                for _ in range(self.block.step.concurrency):
                    tasks.create_task(self._stream(queue, clock, tasks))

    async def _stream(self, queue: Iterator[Job], clock: _Clock, tasks: asyncio.TaskGroup) -> None:
        # The streams share one iterator, so the next request is always the next one planned.
        for job in queue:
            due_ms = now_ms()
            answered = await self.driver.ask(job)
            # The next request does not wait for a scorer.
            tasks.create_task(self._record(job, due_ms, answered, clock))

    async def _open_loop(self, clock: _Clock, tasks: asyncio.TaskGroup) -> None:
        """Send every request when it is due, whether or not earlier ones are answered."""
        begin_s = self.block.jobs[0].arrival_s or 0.0
        for job in self.block.jobs:
            due_ms = clock.start_ms + 1000 * ((job.arrival_s or 0.0) - begin_s)
            await asyncio.sleep(max(0.0, (due_ms - now_ms()) / 1000))
            tasks.create_task(self._one(job, due_ms, clock))

    async def _one(self, job: Job, due_ms: float, clock: _Clock) -> None:
        await self._record(job, due_ms, await self.driver.ask(job), clock)

    async def _record(self, job: Job, due_ms: float, answered: Answered, clock: _Clock) -> None:
        value, failure = await _score(job.prompt, answered)
        self.on_row(self._row(job, due_ms, answered, value, failure, clock))
        self.lost.count(self.arms[job.arm], answered)

    def _row(
        self, job: Job, due_ms: float, answered: Answered, value: float | None, failure: str | None, clock: _Clock
    ) -> Row:
        return Row(
            position=job.position,
            session=self.session,
            block=job.block,
            repeat=job.repeat,
            pair=job.pair,
            warmup=job.warmup,
            arm=job.arm,
            asked=self.arms[job.arm].mode,
            model=self.driver.models[job.arm],
            prompt=job.prompt.id,
            task=job.prompt.task,
            level=job.prompt.level,
            closed=job.prompt.closed,
            seed=job.seed,
            concurrency=self.block.step.concurrency,
            rate=self.block.step.rate,
            scheduled_ms=clock.since(due_ms),
            sent_ms=clock.since(answered.sent_ms),
            first_token_ms=None if answered.first_token_ms is None else clock.since(answered.first_token_ms),
            first_answer_ms=None if answered.first_answer_ms is None else clock.since(answered.first_answer_ms),
            end_ms=clock.since(answered.end_ms),
            driver_cpu_ms=clock.cpu_ms(),
            request_id=answered.request_id,
            reply=answered.reply,
            score=value,
            scoring_error=failure,
            error=answered.error,
        )


@dataclass(frozen=True)
class _Clock:
    start_ms: float
    start_cpu_s: float

    def since(self, at_ms: float) -> float:
        """Return milliseconds since the start, to the microsecond."""
        return round(at_ms - self.start_ms, 3)

    def cpu_ms(self) -> float:
        return round(1000 * (time.process_time() - self.start_cpu_s), 3)


async def _score(prompt: Prompt, answered: Answered) -> tuple[float | None, str | None]:
    """Return the score of an answer, or why it has none; scorers by name may be slow, so they run in a thread."""
    if answered.reply is None:
        return None, None
    try:
        if prompt.scorer is None:
            return score(prompt, answered.reply.answer), None
        return await asyncio.to_thread(score, prompt, answered.reply.answer), None
    except ScoringError as exc:
        return None, str(exc)[:200]
