"""The remote engine: a running stock ``vllm serve`` behind the Engine protocol, over ``/v1/completions``."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lhrm_train.format import ChatTokenizer

from .checkpoint_sampling import checkpoint_sampling
from .engine import (
    DECIDE_PRIORITY,
    EngineDeadError,
    EngineError,
    EngineInfo,
    EngineOverloadedError,
    EngineTimeoutError,
    GenerationRequest,
    RequestRefusedError,
    TokenDelta,
)
from .remote_body import completion_body, completion_headers
from .remote_check import Served, check_decide, identify
from .remote_link import TAIL_S, RemoteLink
from .remote_place import Place, Timeouts
from .remote_reply import delta_of

log = logging.getLogger(__name__)

HEALTH_TTL_S = 1.0
NOT_ASKED = (-math.inf, False)
# Errors of one request; any other puts the server itself in doubt.
OF_THE_REQUEST = (RequestRefusedError, EngineOverloadedError, EngineTimeoutError, EngineDeadError)


@dataclass(frozen=True)
class RemoteOptions:
    """Where the engine is and how long it may take. Raises ValueError on a malformed URL.

    `model` None takes the only model served there. `max_model_len` is the context that the gateway offers, None for
    the server's own. `sampling_defaults` stand in for what a request leaves open.
    """

    base_url: str
    model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    max_model_len: int | None = None
    sampling_defaults: Mapping[str, float] = field(default_factory=dict)
    timeouts: Timeouts = field(default_factory=Timeouts)

    @property
    def place(self) -> Place:
        """URL and key, checked."""
        return Place(self.base_url, self.api_key)

    def __post_init__(self) -> None:
        _ = self.place


def make_remote_engine(
    base_url: str,
    model_dir: Path,
    tokenizer: ChatTokenizer,
    *,
    model: str | None = None,
    api_key_file: Path | None = None,
    max_model_len: int | None = None,
    timeouts: Timeouts | None = None,
) -> RemoteEngine:
    """Build the engine for the checkpoint in `model_dir`, not started. Raises EngineError on bad options."""
    try:
        key = api_key_file.read_text(encoding="utf-8").strip() if api_key_file is not None else None
        if key == "":
            raise ValueError(f"{api_key_file} is empty")
        options = RemoteOptions(
            base_url, model, key, max_model_len, checkpoint_sampling(model_dir), timeouts or Timeouts()
        )
    except OSError as exc:
        raise EngineError(f"cannot read the engine's API key: {exc}") from exc
    except ValueError as exc:
        raise EngineError(str(exc)) from exc
    return RemoteEngine(options, tokenizer)


class RemoteEngine:
    """One ``vllm serve``, or what stands in front of several.

    After an error that may mean another server at the same URL, the next call first checks that it still serves this
    model. An engine that went away is used again once it is back.
    """

    def __init__(self, options: RemoteOptions, tokenizer: ChatTokenizer) -> None:
        self._options = options
        self._tokenizer = tokenizer
        self._link: RemoteLink | None = None
        self._info: EngineInfo | None = None
        self._served: Served | None = None
        self._checking: asyncio.Task[Served] | None = None
        self._takes_priority = True
        self._health = NOT_ASKED
        self._health_lock = asyncio.Lock()

    @property
    def info(self) -> EngineInfo:
        """Kind, version of vLLM and context length. Raises EngineError before start()."""
        if self._info is None:
            raise EngineError("the engine was not started")
        return self._info

    async def start(self) -> None:
        """Check the server. Raises EngineError with one line that says what is wrong."""
        if self._link is not None:
            return
        options = self._options
        self._link = RemoteLink(options.place, options.timeouts)
        try:
            served = await identify(self._link, options.model, self._tokenizer, options.max_model_len or 1)
            await self._check_calls(self._link, served)
        except BaseException:
            link, self._link = self._link, None
            await link.close()
            raise
        self._trust(served)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[TokenDelta, None]:
        """Stream one sequence; closing the generator closes the connection, which aborts the request in vLLM.

        Raises EngineUnreachableError, EngineTimeoutError, EngineOverloadedError, RequestRefusedError, or EngineError
        with the cause; EngineDeadError after close().
        """
        link = self._open_link()
        self._check_length(request)
        served = await self._trusted(link)
        try:
            async with aclosing(self._stream(link, served, request)) as deltas:
                async for delta in deltas:
                    yield delta
        except OF_THE_REQUEST:
            raise
        except EngineError:
            self._doubt()
            raise

    async def release(self, session_id: str) -> None:
        """Do nothing: between two calls a server of completions holds nothing but its prefix cache."""

    async def healthy(self) -> bool:
        """Tell whether the server answers and serves this model; asked anew at most once a second."""
        async with self._health_lock:
            now = asyncio.get_running_loop().time()
            asked_at, verdict = self._health
            if self._link is None or self._info is None:
                return False
            if now - asked_at < HEALTH_TTL_S:
                return verdict
            problem = await self._problem(self._link)
            if problem is not None and verdict:
                log.warning("the engine at %s is not healthy: %s", self._options.place.url, problem)
            self._health = (now, problem is None)
            return problem is None

    async def close(self) -> None:
        """Fail running streams and close every connection; the server goes on. Idempotent."""
        link, self._link = self._link, None
        if link is None:
            return
        await link.close()
        if self._checking is not None:
            await asyncio.gather(self._checking, return_exceptions=True)

    async def _stream(
        self, link: RemoteLink, served: Served, request: GenerationRequest
    ) -> AsyncGenerator[TokenDelta, None]:
        sampling = request.sampling
        body, headers = self._body(served, request), completion_headers(request)
        if not body["stream"]:
            delta = delta_of(await link.whole(body, headers), sampling)
            if delta is None or delta.stop_reason is None:
                raise EngineError("the engine answered without an end of the answer")
            yield delta
            return
        async with aclosing(link.events(body, headers)) as events:
            async for data in events:
                delta = delta_of(data, sampling)
                if delta is None:
                    continue
                yield delta
                if delta.stop_reason is not None:
                    await _read_to_the_end(events)
                    return
        raise EngineError("the engine ended the stream without an end of the answer")

    def _body(self, served: Served, request: GenerationRequest) -> dict[str, Any]:
        stop, defaults = (self._tokenizer.turn_end_id,), self._options.sampling_defaults
        body = completion_body(request, served.model, stop, defaults)
        return {**body, "priority": request.priority} if self._takes_priority else body

    async def _check_calls(self, link: RemoteLink, served: Served) -> None:
        def stream(request: GenerationRequest) -> AsyncGenerator[TokenDelta, None]:
            return self._stream(link, served, request)

        try:
            await check_decide(link, stream, self._tokenizer, DECIDE_PRIORITY)
        except RequestRefusedError as exc:
            if not self._takes_priority or "priority" not in str(exc).lower():
                raise EngineError(f"{link.url} refuses the call that decides: {exc}") from exc
            log.warning("%s takes no priorities; start vllm serve with --scheduling-policy priority", link.url)
            self._takes_priority = False
            await self._check_calls(link, served)

    def _open_link(self) -> RemoteLink:
        if self._link is None:
            raise EngineDeadError("the remote engine is not started or was closed")
        return self._link

    def _check_length(self, request: GenerationRequest) -> None:
        limit, wanted = self.info.max_model_len, len(request.prompt_ids) + request.sampling.max_tokens
        if wanted > limit:
            raise EngineError(f"{request.request_id}: prompt and max_tokens are {wanted} tokens, the limit is {limit}")

    async def _trusted(self, link: RemoteLink) -> Served:
        """Return what is served, checked again where it is in doubt; calls that wait for it share one check."""
        if self._served is not None:
            return self._served
        if self._checking is None or self._checking.done():
            self._checking = asyncio.create_task(self._identified(link))
        return await asyncio.shield(self._checking)

    async def _identified(self, link: RemoteLink) -> Served:
        served = await identify(link, self._options.model, self._tokenizer, self.info.max_model_len)
        log.info("the engine at %s serves %s again", link.url, served.model)
        self._trust(served)
        return served

    def _trust(self, served: Served) -> None:
        self._served = served
        length = min(served.max_model_len, self._options.max_model_len or served.max_model_len)
        if self._info is not None:
            # Prompts were measured against the context that was told at the start.
            length = self._info.max_model_len
        self._info = EngineInfo("remote", served.version, length, {"model": served.model}, recovers=True)
        self._health = (asyncio.get_running_loop().time(), True)

    def _doubt(self) -> None:
        self._served = None
        self._health = NOT_ASKED

    async def _problem(self, link: RemoteLink) -> str | None:
        """Return what keeps the server from serving this model, None where nothing does."""
        try:
            async with asyncio.timeout(self._options.timeouts.health_s):
                if (status := await link.status("/health")) != 200:
                    raise EngineError(f"GET /health gives {status}")
                await self._trusted(link)
        except (EngineTimeoutError, TimeoutError):
            # Slow under load is no sign of another server: requests go on.
            return f"no answer within {self._options.timeouts.health_s} s"
        except EngineError as exc:
            self._doubt()
            return str(exc)
        return None


async def _read_to_the_end(events: AsyncGenerator[bytes, None]) -> None:
    """Read what follows the last delta, so that the connection can be used again; the answer is complete anyway."""
    with suppress(EngineError, TimeoutError):
        async with asyncio.timeout(TAIL_S):
            async for _ in events:
                pass
