"""A scripted ``vllm serve`` for tests: the routes of vLLM 0.32 that the remote engine uses, over FakeEngine."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from lhrm_server.engine import EngineDeadError, EngineError, GenerationRequest, Grammar, Sampling, TokenDelta
from lhrm_server.engine_fake import FakeEngine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from lhrm_train.format import ChatTokenizer

VERSION = "0.32.0"
SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "top_logprobs",
)
KNOWN = {
    *(set(SAMPLING) - {"top_logprobs"}),
    *("model", "prompt", "stream", "return_token_ids", "max_tokens", "stop_token_ids", "priority"),
    *("logprobs", "logprob_token_ids", "return_tokens_as_token_ids", "allowed_token_ids"),
    *("logit_bias", "structured_outputs"),
}


@dataclass
class FakeVllm:
    """The server; every field may be changed while it runs.

    `bodies` and `headers` are what the completion calls sent, `peers` where from. `answers` replaces the response of a
    path.
    """

    engine: FakeEngine
    tokenizer: ChatTokenizer
    model: str = "lhrm-nano"
    max_model_len: int = 1024
    api_key: str | None = None
    takes_priority: bool = True
    slow_health_s: float = 0.0
    answers: dict[str, Response] = field(default_factory=dict)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    peers: list[Any] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def app(self) -> Starlette:
        """Return the application."""
        routes = [
            Route("/health", self.health),
            Route("/version", self.version),
            Route("/v1/models", self.models),
            Route("/tokenize", self.tokenize, methods=["POST"]),
            Route("/v1/completions", self.completions, methods=["POST"]),
        ]
        return Starlette(routes=routes)

    async def health(self, request: Request) -> Response:
        if (other := self._other(request)) is not None:
            return other
        await asyncio.sleep(self.slow_health_s)
        return Response(status_code=200 if await self.engine.healthy() else 503)

    async def version(self, request: Request) -> Response:
        return self._other(request) or JSONResponse({"version": VERSION})

    async def models(self, request: Request) -> Response:
        card = {
            "id": self.model,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "vllm",
            "root": "/models/x",
            "parent": None,
            "max_model_len": self.max_model_len,
            "permission": [],
        }
        return self._other(request) or JSONResponse({"object": "list", "data": [card]})

    async def tokenize(self, request: Request) -> Response:
        if (other := self._other(request)) is not None:
            return other
        asked = await request.json()
        if asked["model"] != self.model:
            return self._unknown(asked["model"])
        ids = self.tokenizer.encode_template(asked["prompt"])
        return JSONResponse({"count": len(ids), "max_model_len": self.max_model_len, "tokens": ids, "token_strs": None})

    async def completions(self, request: Request) -> Response:
        asked = await request.json()
        self.bodies.append(asked)
        self.headers.append(dict(request.headers))
        self.peers.append(request.client)
        if (other := self._other(request)) is not None:
            return other
        unknown = set(asked) - KNOWN
        assert not unknown, f"fields this fake does not know: {unknown}"
        if asked["model"] != self.model:
            return self._unknown(asked["model"])
        if (refusal := self._refusal(asked)) is not None:
            return refusal
        # What does not fit beside the prompt is cut off without a word.
        asked["max_tokens"] = min(asked["max_tokens"], self.max_model_len - len(asked["prompt"]))
        if not asked["stream"]:
            return await self._whole(asked, request)
        return StreamingResponse(self._stream(asked, request), media_type="text/event-stream")

    async def _whole(self, asked: dict[str, Any], request: Request) -> Response:
        name = f"cmpl-{request.headers.get('x-request-id', '1')}"
        try:
            async with aclosing(self.engine.generate(generation_request(asked, name))) as stream:
                deltas = [delta async for delta in stream]
        except EngineDeadError:
            return error("EngineCore encountered an issue.", 500, "InternalServerError")
        except EngineError as exc:
            refused = not str(exc).startswith("scripted failure")
            return error(str(exc), *((400, "BadRequestError") if refused else (500, "InternalServerError")))
        ids = tuple(token for delta in deltas for token in delta.token_ids)
        rows = tuple(row for delta in deltas for row in delta.logprobs or ())
        both = TokenDelta(ids, rows or None, deltas[-1].stop_reason)
        usage = {"prompt_tokens": len(asked["prompt"]), "completion_tokens": len(ids)}
        answer = {"id": name, "object": "text_completion", "created": 1, "model": self.model}
        return JSONResponse(answer | {"choices": [self._choice(both, asked, True)], "usage": usage})

    async def _stream(self, asked: dict[str, Any], request: Request) -> AsyncIterator[str]:
        name = f"cmpl-{request.headers.get('x-request-id', '1')}"
        # As in vLLM, the engine refuses a request only once its stream has begun.
        try:
            first = True
            async with aclosing(self.engine.generate(generation_request(asked, name))) as deltas:
                async for delta in deltas:
                    chunk = {"id": name, "object": "text_completion", "created": 1, "model": self.model}
                    chunk |= {"choices": [self._choice(delta, asked, first)]}
                    yield frame(chunk | ({"system_fingerprint": "vllm"} if delta.stop_reason else {}))
                    first = False
        except EngineDeadError:
            yield frame(failure("EngineCore encountered an issue.", 500, "InternalServerError"))
        except EngineError as exc:
            refused = not str(exc).startswith("scripted failure")
            yield frame(failure(str(exc), *((400, "BadRequestError") if refused else (500, "InternalServerError"))))
        yield "data: [DONE]\n\n"

    def _choice(self, delta: TokenDelta, asked: dict[str, Any], first: bool) -> dict[str, Any]:
        ids = list(delta.token_ids)
        logprobs = None
        if asked.get("logprobs") is not None:
            rows = [{f"token_id:{i}": max(v, -9999.0) for i, v in row.items()} for row in delta.logprobs or ()]
            names = [f"token_id:{i}" for i in ids]
            chosen = [row.get(name, -1.0) for name, row in zip(names, rows, strict=True)]
            offsets = [8 * i for i in range(len(ids))]
            logprobs = {"text_offset": offsets, "token_logprobs": chosen, "tokens": names, "top_logprobs": rows}
        reason = delta.stop_reason.value if delta.stop_reason else None
        stop = ids[-1] if reason == "stop" and ids else None
        return {
            "index": 0,
            "text": self.tokenizer.decode(ids),
            "logprobs": logprobs,
            "finish_reason": reason,
            "stop_reason": stop,
            "prompt_token_ids": asked["prompt"] if first else None,
            "token_ids": ids,
        }

    def _other(self, request: Request) -> Response | None:
        path = request.url.path
        self.paths.append(path)
        guarded = self.api_key is not None and path.startswith("/v1")
        if guarded and request.headers.get("authorization") != f"Bearer {self.api_key}":
            return JSONResponse({"error": "Unauthorized"}, status_code=401)
        return self.answers.get(path)

    def _refusal(self, asked: dict[str, Any]) -> Response | None:
        """Return the response to what is refused before a stream begins."""
        if any(i < 0 for i in asked["prompt"]):
            message = "1 validation error:\n  Input should be greater than or equal to 0"
            return error(message, 400, "Bad Request", "body.prompt.0")
        if not asked["prompt"]:
            return error("You must pass at least one prompt", 400, "BadRequestError")
        if asked["max_tokens"] < 1:
            return error(
                f"max_tokens must be at least 1, got {asked['max_tokens']}.", 400, "BadRequestError", "max_tokens"
            )
        if len(asked["prompt"]) > self.max_model_len:
            return error("Your prompt exceeds this model's context length.", 400, "BadRequestError", "input_tokens")
        if asked.get("priority") and not self.takes_priority:
            # What vLLM documents; 0.32 takes any priority.
            return error("Got priority 1 but Priority scheduling is not enabled.", 400, "BadRequestError")
        return None

    def _unknown(self, model: str) -> Response:
        return error(f"The model `{model}` does not exist. Valid aliases: {self.model}.", 404, "NotFoundError", "model")


def generation_request(asked: dict[str, Any], name: str) -> GenerationRequest:
    """Return the engine's request that a body asks for."""
    chosen = {field: asked[field] for field in SAMPLING if field in asked}
    wanted = asked.get("logprob_token_ids")
    if wanted is None and asked.get("logprobs") is not None:
        chosen["top_logprobs"] = asked["logprobs"]
    allowed, structured = asked.get("allowed_token_ids"), asked.get("structured_outputs")
    sampling = Sampling(
        max_tokens=asked["max_tokens"],
        allowed_token_ids=tuple(allowed) if allowed is not None else None,
        logprob_token_ids=tuple(wanted) if wanted is not None else None,
        stop_token_ids=tuple(asked["stop_token_ids"]),
        logit_bias={int(token): bias for token, bias in asked.get("logit_bias", {}).items()},
        grammar=next((_grammar(kind, value) for kind, value in (structured or {}).items()), None),
        **chosen,
    )
    return GenerationRequest(name, tuple(asked["prompt"]), sampling, asked.get("priority", 0))


def _grammar(kind: Any, value: Any) -> Grammar:
    return Grammar(kind, value if isinstance(value, str) else json.dumps(value))


def frame(value: object) -> str:
    """Return one event; vLLM leaves text beyond ASCII as it is."""
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"


def failure(message: str, code: int, kind: str, param: str | None = None) -> dict[str, Any]:
    """Return vLLM's error object."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error(message: str, code: int, kind: str, param: str | None = None) -> Response:
    """Return vLLM's error response."""
    return JSONResponse(failure(message, code, kind, param), status_code=code)
