"""Both clients behind calls that run to completion, a scripted transport, and answers in the gateway's shape."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable

import httpx
from lhrm_client import LHRM, AsyncLHRM

BASE = "http://gateway.test"
ACCOUNTING = {
    "mode": "think",
    "source": "model",
    "p_think": 0.9,
    "threshold": 0.5,
    "reasoning_tokens": 3,
    "answer_tokens": 2,
    "overhead_tokens": 2,
    "decide_tokens": 1,
    "ended_by": "stop",
    "reasoning_ended_by": "model",
    "latency": {
        "queue_ms": 0.1,
        "decide_ms": 1.0,
        "first_token_ms": 2.0,
        "first_answer_token_ms": 3.0,
        "total_ms": 4.0,
    },
    "savings": {
        "tokens": 0,
        "interval": [0, 0],
        "confidence": 0.95,
        "n": 0,
        "method": "observed",
        "provenance": "observed",
    },
}
BODY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "42", "reasoning": "6*7", "reasoning_content": "6*7"},
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 5,
        "completion_tokens": 7,
        "total_tokens": 12,
        "completion_tokens_details": {"reasoning_tokens": 3},
    },
    "lhrm": ACCOUNTING,
}


def frame(delta=None, finish=None, **more) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}
    return b"data: " + json.dumps({**chunk, **more}).encode() + b"\n\n"


FRAMES = [
    frame({"role": "assistant", "content": ""}, lhrm={"mode": "think", "source": "model", "p_think": 0.9}),
    b": keep-alive\n\n",
    frame({"reasoning": "6*7", "reasoning_content": "6*7"}),
    frame({"content": "42"}),
    frame({}, "stop", lhrm=ACCOUNTING),
    frame(usage=BODY["usage"]),
    b"data: [DONE]\n\n",
]

Handler = Callable[[httpx.Request], httpx.Response]


class Shell:
    """One client class behind calls that run to completion."""

    def __init__(self, asynchronous: bool) -> None:
        self.asynchronous = asynchronous

    def run(self, handler: Handler, method: str, *args, client: dict | None = None, **options):
        settings = {"model": "m", **(client or {}), "transport": httpx.MockTransport(handler)}
        if self.asynchronous:
            return asyncio.run(self._run(settings, method, args, options))
        with LHRM(BASE, **settings) as lhrm:
            result = getattr(lhrm, method)(*args, **options)
            return list(result) if inspect.isgenerator(result) else result

    async def _run(self, settings, method, args, options):
        async with AsyncLHRM(BASE, **settings) as lhrm:
            result = getattr(lhrm, method)(*args, **options)
            if inspect.isasyncgen(result):
                return [event async for event in result]
            return await result

    def chat(self, handler: Handler, *args, **options):
        return self.run(handler, "chat", *args, **options)

    def stream(self, handler: Handler, *args, **options):
        return self.run(handler, "chat_stream", *args, **options)


class Script:
    """A handler that plays answers in order, keeps the requests, and repeats the last answer."""

    def __init__(self, *answers: httpx.Response | Exception | type[Exception]) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, httpx.Response):
            return answer
        raise answer

    @property
    def body(self) -> dict:
        return json.loads(self.requests[-1].content)


def ok(**changes) -> httpx.Response:
    return httpx.Response(200, json={**BODY, **changes}, headers={"x-request-id": "req-1"})


def stream_ok(frames=FRAMES) -> httpx.Response:
    return httpx.Response(200, content=b"".join(frames), headers={"x-request-id": "req-1"})


def failing(status: int, **headers: str) -> httpx.Response:
    error = {"error": {"message": "no", "type": "t", "param": "p", "code": "c"}}
    return httpx.Response(status, json=error, headers={"x-request-id": "req-1", **headers})
