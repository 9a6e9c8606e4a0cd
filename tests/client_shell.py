"""Both clients behind calls that run to completion, a scripted transport, and answers in the gateway's shape."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from contextlib import contextmanager

import httpx
from lhrm_client import LHRM, AsyncChatStream, AsyncLHRM, ChatStream

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
CHOICE = {
    "reasoning_tokens": 3,
    "answer_tokens": 2,
    "overhead_tokens": 2,
    "ended_by": "stop",
    "reasoning_ended_by": "model",
    "answer_missing": None,
    "answer_retried": False,
}
BODY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "42",
                "refusal": None,
                "reasoning": "6*7",
                "reasoning_content": "6*7",
            },
            "logprobs": None,
            "finish_reason": "stop",
            "stop_reason": None,
            "lhrm": CHOICE,
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


def frame(delta=None, finish=None, index=0, choice=None, **more) -> bytes:
    part = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish, **(choice or {})}
    choices = [] if delta is None else [part]
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}
    return b"data: " + json.dumps({**chunk, **more}).encode() + b"\n\n"


DECISION = {"mode": "think", "source": "model", "p_think": 0.9, "threshold": 0.5}
FRAMES = [
    frame({"role": "assistant", "content": ""}, lhrm=DECISION),
    b": keep-alive\n\n",
    frame({"reasoning": "6*7", "reasoning_content": "6*7"}),
    frame({"content": "42"}),
    frame({}, "stop", choice={"stop_reason": None, "lhrm": CHOICE}, lhrm=ACCOUNTING),
    frame(usage=BODY["usage"], lhrm=ACCOUNTING),
    b"data: [DONE]\n\n",
]

Handler = Callable[[httpx.Request], httpx.Response]


class Shell:
    """One client class behind calls that run to completion, over a handler or a URL."""

    def __init__(self, asynchronous: bool, url: str = BASE) -> None:
        self.asynchronous = asynchronous
        self.url = url

    def client(self, handler: Handler | None = None, **settings):
        """Return the client, to be used with `session`."""
        if handler is not None:
            settings = {"model": "m", **settings, "transport": httpx.MockTransport(handler)}
        return (AsyncLHRM if self.asynchronous else LHRM)(self.url, **settings)

    def run(self, handler: Handler | None, method: str, *args, client: dict | None = None, **options):
        """Make one call with a client of its own; a stream is read to its end."""
        with self.session(handler, **(client or {})) as lhrm:
            return lhrm.do(method, *args, **options)

    @contextmanager
    def session(self, handler: Handler | None = None, **settings):
        """Give a client whose `do` runs any call, and `of` the same for what a call returned."""
        with asyncio.Runner() as runner:
            client = self.client(handler, **settings)
            try:
                yield Done(client, runner)
            finally:
                finished(client.close(), runner)

    def chat(self, handler: Handler, *args, **options):
        return self.run(handler, "chat", *args, **options)

    def stream(self, handler: Handler, *args, **options):
        return self.run(handler, "stream", *args, **options)


class Done:
    """An object of the client package whose calls run to completion, whichever shell it belongs to."""

    def __init__(self, wrapped, runner: asyncio.Runner) -> None:
        self.wrapped = wrapped
        self.runner = runner

    def do(self, method: str, *args, **options):
        """Call and wait; a stream is read to its end."""
        result = getattr(self.wrapped, method)(*args, **options)
        return events_of(result, self.runner) if isinstance(result, STREAMS) else finished(result, self.runner)

    def get(self, method: str, *args, **options) -> Done:
        """Call and wrap what comes, a stream or a conversation."""
        return Done(getattr(self.wrapped, method)(*args, **options), self.runner)

    def next(self):
        """Return the next event of a stream."""
        if isinstance(self.wrapped, ChatStream):
            return next(self.wrapped)
        return self.runner.run(anext(self.wrapped))


STREAMS = (ChatStream, AsyncChatStream)


def finished(result, runner: asyncio.Runner):
    return runner.run(result) if inspect.isawaitable(result) else result


def events_of(stream, runner: asyncio.Runner) -> list:
    if isinstance(stream, ChatStream):
        return list(stream)

    async def collect() -> list:
        return [event async for event in stream]

    return runner.run(collect())


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
