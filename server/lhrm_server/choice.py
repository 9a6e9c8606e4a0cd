"""One choice of a completion: which engine calls it takes, and what each of their ids adds to it.

Most choices are one call. In think mode the answer is a call of its own where something applies to the answer alone
(a grammar, a bias, log-probabilities) or where a budget may end the reasoning: the first call stops at the closing
tag, and the second goes on behind it, on the prefix that the engine has in its cache. The gateway itself puts the
closing tag in when the budget is used up, which is exact to the token on every engine.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from enum import Enum

from lhrm_train.format import ChatTokenizer, Mode

from .accounting import ChoiceRecord, RequestFacts
from .answer_filter import answer_filter
from .answer_plan import AnswerPlan
from .deltas import Delta
from .engine import (
    ANSWER_PRIORITY,
    GENERATE_PRIORITY,
    Engine,
    EngineError,
    GenerationRequest,
    Sampling,
    StopReason,
    TokenDelta,
)
from .meter import ChoiceMeter, Meter
from .parser import AnswerParser
from .policy import ModePlan
from .prompt import Prompt
from .request import SamplingFields

SEEDS = 2**63


@dataclass(frozen=True)
class ChatJob:
    """A checked request, ready to run. `n` choices share one decision; `answer` is what is asked of each answer."""

    facts: RequestFacts
    plan: ModePlan
    prompt: Prompt
    sampling: SamplingFields
    answer: AnswerPlan = field(default_factory=AnswerPlan)
    n: int = 1


@dataclass(frozen=True)
class Generated:
    """Ids came from the engine; `deltas` is what they complete, perhaps nothing. The counts are the choice's so far."""

    deltas: tuple[Delta, ...]
    index: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True)
class ChoiceFinished:
    """One choice is over."""

    record: ChoiceRecord


class Phase(Enum):
    """What an engine call of a choice is for; the value is part of its request id."""

    WHOLE = "generate"
    REASONING = "reason"
    ANSWER = "answer"
    RETRY = "retry"


class Choice:
    """Runs one choice of a job in the mode that was decided."""

    def __init__(
        self, engine: Engine, tokenizer: ChatTokenizer, job: ChatJob, mode: Mode, index: int, meter: Meter
    ) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._job = job
        self._index = index
        self._request_meter = meter
        self._limit = job.prompt.max_tokens
        self._budget = reasoning_budget(job.plan, self._limit) if mode is Mode.THINK else None
        self._apart = mode is Mode.THINK and (self._budget is not None or job.answer.needs_own_call)
        self._prompt_ids = job.prompt.opened(tokenizer, mode)
        self._sampling = _seeded(job.sampling, index)
        self._filter = answer_filter(tokenizer, job.answer)
        self._parser = AnswerParser(tokenizer, mode, self._filter)
        self._meter = ChoiceMeter(index, mode, self._parser, self._filter, job.answer)
        self._mode = mode
        self._phase = Phase.WHOLE
        self._reasoning_ids: list[int] = []
        self._reasoning_tokens = 0
        self._used = 0
        self._waiting: list[Delta] = []
        meter.choice(self._meter)

    async def run(self) -> AsyncGenerator[Generated | ChoiceFinished, None]:
        """Yield Generated for each engine event, then ChoiceFinished. Raises EngineError.

        Closing the generator aborts the call that runs.
        """
        reason = StopReason.LENGTH
        request = self._first_call()
        while request is not None:
            ended: StopReason | None = None
            async with aclosing(self._engine.generate(request)) as events:
                async for event in events:
                    ended = event.stop_reason
                    if event.token_ids:
                        yield self._generated(self._take(event))
                        if self._filter is not None and self._filter.stopped is not None:
                            ended = StopReason.STOP
                            break
            if ended is None or ended is StopReason.ABORT:
                raise EngineError(f"generate ended without an end: {ended}")
            reason = ended
            request = self._next_call(ended)
            if request is None and self._phase is Phase.REASONING and self._parser.reasoning_closed:
                # The reasoning ended as it should, with nothing left for the answer.
                reason = StopReason.LENGTH
        last = self._parser.finish()
        if last or self._waiting:
            yield self._generated(last)
        yield ChoiceFinished(self._meter.finish(reason))

    @property
    def _room(self) -> int:
        """Tokens that are left of the limit."""
        return self._limit - self._used

    def _first_call(self) -> GenerationRequest | None:
        if not self._apart:
            # In no-think mode all of the completion is the answer.
            return self._call(Phase.WHOLE, self._prompt_ids, answering=self._mode is Mode.NO_THINK)
        if self._budget == 0:
            return self._close_reasoning()
        return self._call(Phase.REASONING, self._prompt_ids, answering=False)

    def _next_call(self, ended: StopReason) -> GenerationRequest | None:
        """Return the call that follows one that ended so, None when the choice is over."""
        if self._phase is Phase.REASONING:
            if self._parser.reasoning_closed:
                return self._answer_call()
            if ended is StopReason.LENGTH:
                return self._close_reasoning() if self._room else None
        unanswered = self._mode is Mode.THINK and not self._parser.reasoning_closed and self._phase is not Phase.RETRY
        if unanswered and ended is StopReason.STOP and self._room and self._job.plan.retry_unanswered:
            return self._retry_call()
        return None

    def _close_reasoning(self) -> GenerationRequest | None:
        """Put the closing tag in; it counts like a generated one."""
        tag = self._tokenizer.tags.think_end
        self._phase = Phase.REASONING
        self._reasoning_ids.append(tag)
        self._waiting += self._parser.feed((tag,))
        self._used += 1
        self._meter.closed_by_force()
        return self._answer_call()

    def _answer_call(self) -> GenerationRequest | None:
        if not self._room:
            return None
        # To the engine the reasoning is prompt now: presence and frequency penalties count the answer's own ids.
        return self._call(Phase.ANSWER, (*self._prompt_ids, *self._reasoning_ids), answering=True)

    def _retry_call(self) -> GenerationRequest:
        self._waiting += self._parser.finish()
        self._reasoning_tokens = self._parser.reasoning_tokens
        self._parser = AnswerParser(self._tokenizer, Mode.NO_THINK, self._filter)
        self._meter.retried(self._parser)
        return self._call(Phase.RETRY, self._job.prompt.opened(self._tokenizer, Mode.NO_THINK), answering=True)

    def _call(self, phase: Phase, prompt_ids: tuple[int, ...], *, answering: bool) -> GenerationRequest:
        """Return the request of a phase, with what applies to the answer alone if it is `answering`."""
        self._phase = phase
        sampling = self._sampling.with_limit(self._room)
        if phase is Phase.REASONING:
            limit = self._room if self._budget is None else self._budget
            sampling = replace(sampling, max_tokens=limit, stop_token_ids=(self._tokenizer.tags.think_end,))
        elif answering and self._job.answer.needs_own_call:
            sampling = _constrained(sampling, self._job.answer)
        return GenerationRequest(
            request_id=f"{self._job.facts.completion_id}-{self._index}-{phase.value}",
            prompt_ids=prompt_ids,
            sampling=sampling,
            priority=ANSWER_PRIORITY if phase in (Phase.ANSWER, Phase.RETRY) else GENERATE_PRIORITY,
            session_id=self._job.facts.completion_id,
        )

    def _take(self, event: TokenDelta) -> list[Delta]:
        """Parse the ids of an event; ids behind the end of a stop string are none of the choice's."""
        if self._phase is Phase.REASONING:
            self._reasoning_ids += event.token_ids
        if self._filter is None:
            self._used += len(event.token_ids)
            return self._parser.feed(event.token_ids)
        if event.logprobs is not None:
            self._filter.expect(event.logprobs)
        deltas: list[Delta] = []
        for token in event.token_ids:
            self._used += 1
            deltas += self._parser.feed((token,))
            if self._filter.stopped is not None:
                break
        return deltas

    def _generated(self, deltas: list[Delta]) -> Generated:
        if self._waiting:
            deltas, self._waiting = self._waiting + deltas, []
        parser = self._parser
        self._request_meter.tokens_came(answering=parser.answer_tokens > 0)
        return Generated(tuple(deltas), self._index, self._used, self._reasoning_tokens + parser.reasoning_tokens)


def reasoning_budget(plan: ModePlan, limit: int) -> int | None:
    """Return the most reasoning tokens that `plan` leaves of `limit` tokens; None where only the limit binds.

    A reserve for the answer is at most half of the limit, and one token goes to the closing tag.
    """
    budgets = [] if plan.budget is None else [plan.budget]
    if plan.answer_reserve:
        budgets.append(max(0, limit - min(plan.answer_reserve, limit // 2) - 1))
    return min(budgets) if budgets and min(budgets) < limit else None


def _constrained(sampling: Sampling, answer: AnswerPlan) -> Sampling:
    return replace(sampling, top_logprobs=answer.top_logprobs, logit_bias=answer.logit_bias, grammar=answer.grammar)


def _seeded(sampling: SamplingFields, index: int) -> SamplingFields:
    """Give every choice a seed of its own, within 64 bits."""
    if sampling.seed is None or index == 0:
        return sampling
    return replace(sampling, seed=(sampling.seed + index + SEEDS) % (2 * SEEDS) - SEEDS)
