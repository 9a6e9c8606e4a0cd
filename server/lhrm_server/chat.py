"""The chat pipeline: decide once, run the choices; one UsageRecord per admitted request, whatever the ending."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass

from lhrm_train.format import ChatTokenizer, Mode

from .accounting import Latency, UsageRecord
from .choice import ChatJob, Choice, ChoiceFinished, Generated, reasoning_budget
from .control import Wish
from .engine import DECIDE_PRIORITY, Engine, EngineError, GenerationRequest, Sampling
from .errors import OverloadedError
from .ledger import Ledger
from .merge import merged
from .meter import Meter
from .metrics import Metrics
from .policy import ModeDecision, TagProbabilities, choose_mode, tag_probabilities

__all__ = ["ChatEvent", "ChatJob", "ChatPipeline", "ChoiceFinished", "Decided", "Finished", "Generated"]


@dataclass(frozen=True)
class Decided:
    """The mode is known; nothing has been generated."""

    decision: ModeDecision
    latency: Latency


@dataclass(frozen=True)
class Finished:
    """The completion is over: all its choices are."""

    record: UsageRecord


ChatEvent = Decided | Generated | ChoiceFinished | Finished


class ChatPipeline:
    """Runs jobs on one engine, at most `limit` choices at a time."""

    def __init__(self, engine: Engine, tokenizer: ChatTokenizer, ledger: Ledger, metrics: Metrics, limit: int) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._ledger = ledger
        self._metrics = metrics
        self._limit = limit
        self._running = 0

    async def run(self, job: ChatJob) -> AsyncGenerator[ChatEvent, None]:
        """Yield Decided, Generated for each engine event, ChoiceFinished for each choice, Finished.

        Raises OverloadedError, EngineError. Closing the generator aborts the request in the engine.
        """
        with self._admitted(job.n):
            budget = reasoning_budget(job.plan, job.prompt.max_tokens)
            meter = Meter(job.facts, self._tokenizer.manifest.savings_calibration, budget)
            try:
                decision = choose_mode(job.plan, await self._decide(job, meter))
                meter.decided(decision)
                yield Decided(decision, meter.latency())
                async with aclosing(self._choices(job, decision.mode, meter)) as events:
                    async for event in events:
                        yield event
                yield Finished(meter.finish())
            except BaseException as exc:
                meter.close(exc)
                raise
            finally:
                try:
                    self._ledger.write(meter.close())
                finally:
                    await self._engine.release(job.facts.completion_id)

    def _choices(self, job: ChatJob, mode: Mode, meter: Meter) -> AsyncGenerator[Generated | ChoiceFinished, None]:
        """Run every choice, all at once."""
        runs = [Choice(self._engine, self._tokenizer, job, mode, index, meter).run() for index in range(job.n)]
        # A single choice needs no task of its own.
        return runs[0] if job.n == 1 else merged(runs)

    @contextmanager
    def _admitted(self, n: int) -> Iterator[None]:
        # Each choice is a sequence in the engine; a request that alone has more than the limit runs when it is alone.
        if self._running and self._running + n > self._limit:
            raise OverloadedError(f"{self._running} completions are in flight, and this server admits {self._limit}.")
        self._running += n
        self._metrics.admitted(1)
        try:
            yield
        finally:
            self._running -= n
            self._metrics.admitted(-1)

    async def _decide(self, job: ChatJob, meter: Meter) -> TagProbabilities | None:
        meter.engine_called()
        if job.plan.wish is not Wish.AUTO:
            return None
        tags = self._tokenizer.tags
        choices = (tags.think, tags.no_think)
        request = GenerationRequest(
            request_id=f"{job.facts.completion_id}-decide",
            prompt_ids=job.prompt.ids,
            # The probabilities are raw: the request's own sampling has no part in the decision.
            sampling=Sampling(max_tokens=1, temperature=0.0, allowed_token_ids=choices, logprob_token_ids=choices),
            priority=DECIDE_PRIORITY,
            session_id=job.facts.completion_id,
            keep=True,
        )
        logprobs: dict[int, float] | None = None
        async with aclosing(self._engine.generate(request)) as deltas:
            async for delta in deltas:
                if delta.logprobs and logprobs is None:
                    logprobs = delta.logprobs[0]
        if logprobs is None:
            raise EngineError("decide call returned no log-probabilities")
        meter.decide_ended(1)
        return tag_probabilities(logprobs, tags)
