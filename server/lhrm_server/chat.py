"""The chat pipeline: decide, generate, parse; one UsageRecord per admitted request, whatever the ending."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass

from lhrm_train.format import ChatTokenizer

from .accounting import Latency, Meter, RequestFacts, UsageRecord
from .control import Wish
from .engine import Engine, EngineError, GenerationRequest, Sampling, StopReason
from .errors import OverloadedError
from .ledger import Ledger
from .metrics import Metrics
from .parser import AnswerParser, TextDelta
from .policy import ModeDecision, ModePlan, TagProbabilities, choose_mode, tag_probabilities
from .prompt import Prompt
from .request import SamplingFields

# An admitted request that knows its mode goes first, so that it does not queue twice under load.
GENERATE_PRIORITY, DECIDE_PRIORITY = 0, 1


@dataclass(frozen=True)
class ChatJob:
    """A checked request, ready to run."""

    facts: RequestFacts
    plan: ModePlan
    prompt: Prompt
    sampling: SamplingFields


@dataclass(frozen=True)
class Decided:
    """The mode is known; nothing has been generated."""

    decision: ModeDecision
    latency: Latency


@dataclass(frozen=True)
class Generated:
    """Ids came from the engine; `deltas` is the text that they complete, perhaps none."""

    deltas: tuple[TextDelta, ...]


@dataclass(frozen=True)
class Finished:
    """The completion is over."""

    record: UsageRecord


ChatEvent = Decided | Generated | Finished


class ChatPipeline:
    """Runs jobs on one engine, at most `limit` at a time."""

    def __init__(self, engine: Engine, tokenizer: ChatTokenizer, ledger: Ledger, metrics: Metrics, limit: int) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._ledger = ledger
        self._metrics = metrics
        self._limit = limit
        self._running = 0

    async def run(self, job: ChatJob) -> AsyncGenerator[ChatEvent, None]:
        """Yield Decided, Generated for each engine event, Finished. Raises OverloadedError, EngineError.

        Closing the generator aborts the request in the engine.
        """
        with self._admitted():
            meter = Meter(job.facts, self._tokenizer.manifest.savings_calibration)
            try:
                decision = choose_mode(job.plan, await self._decide(job, meter))
                parser = AnswerParser(self._tokenizer, decision.mode)
                meter.decided(decision, parser)
                yield Decided(decision, meter.latency())
                async with aclosing(self._generate(job, decision, parser, meter)) as events:
                    async for event in events:
                        yield event
            except BaseException as exc:
                meter.close(exc)
                raise
            finally:
                self._ledger.write(meter.close())

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        if self._running >= self._limit:
            raise OverloadedError(f"{self._limit} requests are in flight, as many as this server admits.")
        self._running += 1
        self._metrics.admitted(1)
        try:
            yield
        finally:
            self._running -= 1
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

    async def _generate(
        self, job: ChatJob, decision: ModeDecision, parser: AnswerParser, meter: Meter
    ) -> AsyncGenerator[ChatEvent, None]:
        request = GenerationRequest(
            request_id=f"{job.facts.completion_id}-generate",
            prompt_ids=job.prompt.opened(self._tokenizer, decision.mode),
            sampling=job.sampling.with_limit(job.prompt.max_tokens),
            priority=GENERATE_PRIORITY,
        )
        reason: StopReason | None = None
        async with aclosing(self._engine.generate(request)) as deltas:
            async for delta in deltas:
                reason = delta.stop_reason
                if delta.token_ids:
                    texts = parser.feed(delta.token_ids)
                    meter.tokens_came()
                    yield Generated(tuple(texts))
        if reason is None or reason is StopReason.ABORT:
            raise EngineError(f"generate ended without an end: {reason}")
        last = parser.finish()
        if last:
            yield Generated(tuple(last))
        yield Finished(meter.finish(reason))
