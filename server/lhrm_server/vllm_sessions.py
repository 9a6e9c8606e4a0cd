"""Requests to vLLM whose prompt comes in two parts: what was computed of the first, and the place, stay.

vLLM calls this input streaming. Seed, grammar and log-probabilities of such a request stay those of the first part, so
a second part that asks for one of them becomes a request of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .engine import GenerationRequest

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.engine.protocol import StreamingInput
    from vllm.inputs import TokensInput
    from vllm.v1.engine.async_llm import AsyncLLM

KV_SHARE = 2
"""vLLM cannot preempt a session that waits for its second part, and stands still for ever once such sessions hold all
blocks and each needs another one. At most one block in two is theirs: of the rest, running requests give way."""


@dataclass(frozen=True)
class Inputs:
    """How vLLM takes token ids, and these as a part of an input."""

    tokens: Callable[[list[int]], TokensInput]
    part: Callable[[TokensInput, SamplingParams], StreamingInput]


class Session:
    """One vLLM request in two parts; `blocks` of the KV cache hold its first part."""

    def __init__(
        self, llm: AsyncLLM, make: Inputs, request: GenerationRequest, params: SamplingParams, blocks: int
    ) -> None:
        self.request_id = request.request_id
        self.blocks = blocks
        self.runs_on = False
        self._make = make
        self._prompt_ids = request.prompt_ids
        self._rest: asyncio.Future[StreamingInput] = asyncio.get_running_loop().create_future()
        self._outputs = llm.generate(self._inputs(params), params, request.request_id, priority=request.priority)

    async def _inputs(self, params: SamplingParams) -> AsyncGenerator[StreamingInput, None]:
        yield self._part(self._prompt_ids, params)
        yield await self._rest

    def _part(self, ids: tuple[int, ...], params: SamplingParams) -> StreamingInput:
        return self._make.part(self._make.tokens(list(ids)), params)

    async def first(self) -> AsyncGenerator[RequestOutput, None]:
        """Yield the outputs of the first part."""
        async for output in self._outputs:
            yield output
            if output.outputs[0].finish_reason is not None:
                return

    def takes(self, request: GenerationRequest) -> bool:
        """Tell whether `request` can be the second part."""
        known, sampling = len(self._prompt_ids), request.sampling
        plain = sampling.seed is None and sampling.grammar is None
        silent = sampling.top_logprobs is None and sampling.logprob_token_ids is None
        goes_on = len(request.prompt_ids) > known and request.prompt_ids[:known] == self._prompt_ids
        return plain and silent and goes_on and not request.keep

    async def second(self, request: GenerationRequest, params: SamplingParams) -> AsyncGenerator[RequestOutput, None]:
        """Yield the outputs of the second part."""
        self._rest.set_result(self._part(request.prompt_ids[len(self._prompt_ids) :], params))
        async for output in self._outputs:
            self.runs_on = True
            yield output

    async def close(self) -> None:
        """Abort what still runs in vLLM; idempotent."""
        await self._outputs.aclose()


class Sessions:
    """The sessions of one engine, and which of them are held for the next call of a client request."""

    def __init__(self, llm: AsyncLLM, make: Inputs, kv_blocks: int, block_size: int) -> None:
        self._llm = llm
        self._make = make
        self._room = kv_blocks // KV_SHARE
        self._block_size = block_size
        self._open: set[Session] = set()
        self._held: dict[str, Session] = {}

    @property
    def request_ids(self) -> list[str]:
        """What vLLM knows the open sessions by."""
        return [session.request_id for session in self._open]

    async def outputs(self, request: GenerationRequest, params: SamplingParams) -> AsyncGenerator[RequestOutput, None]:
        """Return vLLM's outputs for `request`, as a session's part where that is possible."""
        held = self._held.pop(request.session_id, None) if request.session_id is not None else None
        if held is not None:
            if held.takes(request):
                return self._second(held, request, params)
            await self._close(held)
        blocks = -(-len(request.prompt_ids) // self._block_size) + 1
        if request.keep and request.session_id is not None and self._has_room(blocks):
            return self._first(Session(self._llm, self._make, request, params, blocks), request.session_id)
        prompt = self._make.tokens(list(request.prompt_ids))
        return self._llm.generate(prompt, params, request.request_id, priority=request.priority)

    async def release(self, session_id: str) -> None:
        """End the session that is held under this id, if one is."""
        held = self._held.pop(session_id, None)
        if held is not None:
            await self._close(held)

    def _has_room(self, blocks: int) -> bool:
        return blocks + sum(session.blocks for session in self._open if not session.runs_on) <= self._room

    async def _first(self, session: Session, session_id: str) -> AsyncGenerator[RequestOutput, None]:
        self._open.add(session)
        try:
            async for output in session.first():
                if output.outputs[0].finish_reason is not None:
                    await self.release(session_id)
                    self._held[session_id] = session
                yield output
        finally:
            if self._held.get(session_id) is not session:
                await self._close(session)

    async def _second(
        self, session: Session, request: GenerationRequest, params: SamplingParams
    ) -> AsyncGenerator[RequestOutput, None]:
        try:
            async for output in session.second(request, params):
                yield output
        finally:
            await self._close(session)

    async def _close(self, session: Session) -> None:
        self._open.discard(session)
        await session.close()
