"""Requests to vLLM whose prompt comes in two parts: what was computed of the first, and the place, stay.

vLLM calls this input streaming. Priority, seed, grammar and log-probabilities of such a request stay those of the first
part: both parts have the priority of a call whose mode is known, and a second part with a grammar, log-probabilities or
a seed that matters becomes a request of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .engine import GENERATE_PRIORITY, GenerationRequest

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.config import VllmConfig
    from vllm.engine.protocol import StreamingInput
    from vllm.inputs import TokensInput
    from vllm.v1.engine.async_llm import AsyncLLM

KV_SHARE = 2
"""vLLM cannot preempt a session that waits for its second part, and stands still for ever once such sessions hold all
blocks and each needs another one. At most one block in two is theirs: of the rest, running requests give way."""


def session_room(config: VllmConfig) -> int:
    """Return how many blocks of the KV cache may belong to sessions that wait; 0 is none at all.

    With asynchronous scheduling, its default on GPUs, vLLM 0.32 loses a session that it preempts while the last step of
    its first part is under way: the second part is never run. Models whose layers do not all cache every token
    take more blocks than are counted here. Raises ValueError where vLLM does not tell its number of blocks.
    """
    model, blocks = config.model_config, config.cache_config.num_gpu_blocks
    if config.scheduler_config.async_scheduling or model.is_hybrid or model.get_sliding_window() is not None:
        return 0
    if not blocks:
        raise ValueError("vLLM does not tell how many blocks its KV cache has")
    return blocks // KV_SHARE


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
        self.outputs = llm.generate(self._inputs(params), params, request.request_id, priority=GENERATE_PRIORITY)

    async def _inputs(self, params: SamplingParams) -> AsyncGenerator[StreamingInput, None]:
        yield self._part(self._prompt_ids, params)
        yield await self._rest

    def _part(self, ids: tuple[int, ...], params: SamplingParams) -> StreamingInput:
        return self._make.part(self._make.tokens(list(ids)), params)

    def takes(self, request: GenerationRequest, params: SamplingParams) -> bool:
        """Tell whether `request` can be the second part. Greedy sampling draws nothing, so its seed has no effect."""
        known, sampling = len(self._prompt_ids), request.sampling
        plain = sampling.grammar is None and (params.seed is None or params.temperature == 0)
        silent = sampling.top_logprobs is None and sampling.logprob_token_ids is None
        goes_on = len(request.prompt_ids) > known and request.prompt_ids[:known] == self._prompt_ids
        return plain and silent and goes_on and not request.keep

    def go_on(self, request: GenerationRequest, params: SamplingParams) -> None:
        """Send the second part, once; its outputs follow those of the first in `outputs`."""
        self._rest.set_result(self._part(request.prompt_ids[len(self._prompt_ids) :], params))


class Sessions:
    """The sessions of one engine, and which of them are held for the next call of a client request.

    Those that wait hold at most `room` blocks of the KV cache; a call that finds no room is a request of its own.
    """

    def __init__(self, llm: AsyncLLM, make: Inputs, room: int, block_size: int) -> None:
        self._llm = llm
        self._make = make
        self._room = room
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
            if held.takes(request, params):
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
            async for output in session.outputs:
                finish_reason = output.outputs[0].finish_reason
                if finish_reason in ("length", "stop"):
                    self._held[session_id] = session
                yield output
                if finish_reason is not None:
                    return
        finally:
            if self._held.get(session_id) is not session:
                await self._close(session)

    async def _second(
        self, session: Session, request: GenerationRequest, params: SamplingParams
    ) -> AsyncGenerator[RequestOutput, None]:
        try:
            session.go_on(request, params)
            async for output in session.outputs:
                session.runs_on = True
                yield output
        finally:
            await self._close(session)

    async def _close(self, session: Session) -> None:
        self._open.discard(session)
        await session.outputs.aclose()
