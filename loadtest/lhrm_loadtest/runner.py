"""Make the planned requests against a gateway, a fixed number at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import httpx
from lhrm_client import AnswerDelta, AsyncLHRM, ChatOptions, Finished, LHRMError, ReasoningDelta

from .grade import is_correct
from .rows import Outcome, Row
from .workload import Arm, Job, Prompt, Turn

_WARMUP = Prompt(id="warm-up", messages=(Turn(role="user", content="Hello"),))


@dataclass(frozen=True)
class Load:
    """How the requests are made; the sampling and the cap are the same in both arms."""

    base_url: str
    api_key: str | None = None
    model: str | None = None
    concurrency: int = 4
    warmup: int = 2
    timeout_s: float = 600.0
    think_threshold: float | None = None
    max_tokens: int | None = None
    temperature: float | None = None

    def client(self) -> AsyncLHRM:
        """Return a client that never retries: a retried request would hide an error and its latency."""
        limits = httpx.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency)
        return AsyncLHRM(
            self.base_url,
            self.api_key,
            model=self.model,
            timeout=httpx.Timeout(self.timeout_s, connect=5.0),
            max_retries=0,
            transport=httpx.AsyncHTTPTransport(limits=limits),
        )

    def options(self, job: Job) -> ChatOptions:
        """Return the options of one request; only the mode differs between the arms of a pair."""
        options: ChatOptions = {"max_tokens": self.max_tokens, "temperature": self.temperature, "seed": job.seed}
        if job.arm is Arm.THINK:
            return {**options, "mode": "think"}
        return {**options, "mode": "auto", "think_threshold": self.think_threshold}


async def run(load: Load, jobs: Iterable[Job], on_row: Callable[[Row], None]) -> None:
    """Warm up, then make every request and hand its row to `on_row`.

    Raises LHRMError when a warm-up request fails: nothing has been measured then.
    """
    async with load.client() as client:
        for index in range(load.warmup):
            arm = (Arm.AUTO, Arm.THINK)[index % 2]
            await _ask(client, load, Job(index, arm, _WARMUP, repeat=0, seed=index))
        queue = iter(jobs)
        started = time.perf_counter()
        async with asyncio.TaskGroup() as workers:
            for _ in range(load.concurrency):
                workers.create_task(_work(client, load, queue, started, on_row))


async def _work(
    client: AsyncLHRM, load: Load, queue: Iterable[Job], started: float, on_row: Callable[[Row], None]
) -> None:
    # The workers share one iterator, so the next request is always the next one planned.
    for job in queue:
        started_ms = (time.perf_counter() - started) * 1000
        outcome, request_id, error = None, None, None
        try:
            outcome, request_id = await _ask(client, load, job)
        except LHRMError as exc:
            request_id, error = exc.request_id, f"{type(exc).__name__}: {exc.message}"
        on_row(_row(job, started_ms, request_id, outcome, error))


async def _ask(client: AsyncLHRM, load: Load, job: Job) -> tuple[Outcome, str | None]:
    messages = [turn.model_dump() for turn in job.prompt.messages]
    first_token_ms = first_answer_ms = None
    began = time.perf_counter()
    async for event in client.stream(messages, **load.options(job)):
        now_ms = (time.perf_counter() - began) * 1000
        if isinstance(event, ReasoningDelta | AnswerDelta) and first_token_ms is None:
            first_token_ms = now_ms
        if isinstance(event, AnswerDelta) and first_answer_ms is None:
            first_answer_ms = now_ms
        if isinstance(event, Finished):
            result, total_ms = event.result, now_ms
    outcome = Outcome(
        accounting=result.accounting(),
        usage=result.usage,
        first_token_ms=first_token_ms,
        first_answer_ms=first_answer_ms,
        total_ms=total_ms,
        correct=is_correct(job.prompt, result.answer),
    )
    return outcome, result.request_id


def _row(job: Job, started_ms: float, request_id: str | None, outcome: Outcome | None, error: str | None) -> Row:
    return Row(
        position=job.position,
        arm=job.arm,
        prompt=job.prompt.id,
        task=job.prompt.task,
        level=job.prompt.level,
        closed=job.prompt.closed,
        repeat=job.repeat,
        seed=job.seed,
        started_ms=started_ms,
        request_id=request_id,
        outcome=outcome,
        error=error,
    )
