"""POST /v1/chat/completions on ASGI: one coroutine owns the request from its first byte to its last."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from .accounting import Latency, RequestFacts
from .body import ClientGoneError, parse_object, read_body
from .chat import ChatEvent, ChatJob, ChatPipeline, Decided
from .disconnect import while_connected
from .engine import EngineError, RequestRefusedError
from .errors import (
    EngineFailureError,
    GatewayError,
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
    StoppedError,
    unexpected_error,
)
from .framer import StreamFramer
from .gateway import Gateway
from .policy import MODE_HEADER, ModeDecision
from .reply import Collector
from .sse import EventStream
from .wire import DONE, ReplyForm, frame

SOURCE_HEADER = "X-LHRM-Source"
log = logging.getLogger("lhrm_server.chat")


@dataclass(frozen=True)
class ReadyJob:
    """A job with the pipeline that runs it and what only the reply needs."""

    job: ChatJob
    pipeline: ChatPipeline
    form: ReplyForm


class AnswerRefusedError(InvalidRequestError):
    """The engine cannot honour what was asked of the answer; the request was admitted, and has its record."""

    code = "unsupported_grammar"


class ChatEndpoint:
    """Serves chat completions, streaming and not."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; errors before the reply began are raised, and counted."""
        metrics = self._gateway.metrics
        try:
            ready = await self._prepare(scope, receive)
            await while_connected(receive, self._answer(ready, scope, send))
        except ClientGoneError:
            metrics.client_gone()
        except (EngineFailureError, AnswerRefusedError, StoppedError):
            raise
        except (OverloadedError, NotReadyError) as exc:
            metrics.rejected_for(str(exc.code))
            raise
        except GatewayError:
            metrics.refused("client_error")
            raise

    async def _prepare(self, scope: Scope, receive: Receive) -> ReadyJob:
        """Read and check the request."""
        arrived_s = time.monotonic()
        gateway, declared = self._gateway, Headers(scope=scope).get("content-length")
        body = await read_body(receive, declared, gateway.settings.max_body_bytes)
        request, plan = gateway.intake.read(parse_object(body), scope)
        prompts, pipeline = gateway.serving()
        prompt = prompts.build(request.messages, request.max_tokens)
        facts = RequestFacts(
            request_id=scope["state"]["request_id"],
            completion_id=f"chatcmpl-{uuid.uuid4().hex}",
            model=request.model,
            stream=request.stream,
            wish=plan.wish,
            prompt_tokens=prompt.prompt_tokens,
            max_tokens=prompt.max_tokens,
            arrived_s=arrived_s,
            n=request.n,
        )
        form = ReplyForm(
            shown=request.shown,
            logprobs=request.answer.top_logprobs is not None,
            include_usage=request.include_usage,
            continuous_usage=request.continuous_usage,
        )
        return ReadyJob(ChatJob(facts, plan, prompt, request.sampling, request.answer, request.n), pipeline, form)

    async def _answer(self, ready: ReadyJob, scope: Scope, send: Send) -> None:
        """Answer in the form that was asked for; a server that stops says so, instead of just breaking off."""
        answer = self._stream if ready.job.facts.stream else self._reply
        try:
            await answer(ready, scope, send)
        except asyncio.CancelledError:
            if not self._gateway.draining:
                raise
            raise StoppedError from None

    async def _reply(self, ready: ReadyJob, scope: Scope, send: Send) -> None:
        collector = Collector(ready.form, ready.job.n)
        try:
            async with aclosing(ready.pipeline.run(ready.job)) as events:
                async for event in events:
                    collector.take(event)
        except EngineError as exc:
            raise _engine_failure(exc, ready.job) from exc
        record = collector.record
        if record is None or record.decision is None:
            raise ValueError(f"completion_id={ready.job.facts.completion_id}: the pipeline ended without a record")
        headers = dict(_headers(record.decision, record.latency, complete=True))
        await JSONResponse(collector.body(record), headers=headers)(scope, _nothing, send)

    async def _stream(self, ready: ReadyJob, scope: Scope, send: Send) -> None:
        facts = ready.job.facts
        framer = StreamFramer(facts, ready.form)
        async with aclosing(ready.pipeline.run(ready.job)) as events:
            try:
                decided = await anext(events)
            except EngineError as exc:
                raise _engine_failure(exc, ready.job) from exc
            if not isinstance(decided, Decided):
                raise ValueError(f"completion_id={facts.completion_id}: the pipeline began with {decided}")
            framer.frames(decided)
            stream = EventStream(send, _headers(decided.decision, decided.latency, complete=False))
            await self._stream_events(events, framer, stream, ready.job)

    async def _stream_events(
        self,
        events: AsyncGenerator[ChatEvent, None],
        framer: StreamFramer,
        stream: EventStream,
        job: ChatJob,
    ) -> None:
        """Send what comes; before the first frame a failure is raised, afterwards it is an error frame."""
        settings = self._gateway.settings
        tail = DONE
        try:
            async with stream.kept_alive(settings.header_hold_s, settings.keepalive_s):
                async for event in events:
                    await stream.write(framer.frames(event))
        except EngineError as exc:
            failure = _engine_failure(exc, job)
            if not stream.opened:
                raise failure from exc
            tail = frame(failure.body()) + DONE
        except asyncio.CancelledError:
            if not (stream.opened and self._gateway.draining):
                raise
            tail = frame(StoppedError().body()) + DONE
        except Exception:
            if not stream.opened:
                raise
            # The status is gone; the client must still learn that its answer is not complete.
            log.exception("%s: unexpected error in a stream", job.facts.completion_id)
            tail = frame(unexpected_error()) + DONE
        await stream.close(tail)


def _headers(decision: ModeDecision, latency: Latency, *, complete: bool) -> list[tuple[str, str]]:
    durations = [("queue", latency.queue_ms), ("decide", latency.decide_ms)]
    if complete:
        durations += [("first-token", latency.first_token_ms), ("total", latency.total_ms)]
    timing = ", ".join(f"{name};dur={value:.1f}" for name, value in durations if value is not None)
    return [
        (MODE_HEADER, decision.mode.value),
        (SOURCE_HEADER, decision.source.value),
        ("Server-Timing", timing),
    ]


def _engine_failure(exc: EngineError, job: ChatJob) -> GatewayError:
    """Return what the client is told: a 400 with the reason when the fault is its own."""
    if isinstance(exc, RequestRefusedError):
        param = job.answer.grammar_param
        if param is None:
            return AnswerRefusedError(str(exc), code="invalid_value")
        return AnswerRefusedError(f"{param}: {exc}", param=param)
    log.error("%s: %s: %s", job.facts.completion_id, type(exc).__name__, exc)
    return EngineFailureError(exc)


async def _nothing() -> dict[str, object]:
    raise RuntimeError("a reply reads nothing from its client")
