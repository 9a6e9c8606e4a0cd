"""Answers from a running server: an lhrm gateway, or any OpenAI endpoint as a model that always thinks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from lhrm_train.config import ConfigError, EvalConfig
from lhrm_train.format import THINK_CLOSE, Mode
from lhrm_train.problems import Problem
from lhrm_train.samplers import BOTH_MODES, Answered, Completion, Decision, Failed, SamplerError, derived_seed

BUSY = frozenset({429, 502, 503, 504})
# With these every further request fails too: no key, no right, no such model.
REFUSED = frozenset({401, 403, 404})
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0
EXCERPT_CHARS = 200
LISTED_MODELS = 10
EFFORTS = {Mode.THINK: "high", Mode.NO_THINK: "none"}
# The model's own distribution at the given temperature, whatever the server's defaults are.
GATEWAY_SAMPLING = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
PLAIN_SAMPLING = {"top_p": 1.0}

Json = dict[str, Any]


@dataclass(frozen=True)
class Endpoint:
    """A server's chat route and a model of it. `decides`: it is an lhrm gateway, which takes and reports modes."""

    url: str
    model: str
    decides: bool


def find_endpoint(url: str, model: str | None = None, api_key: str | None = None, timeout_s: float = 30.0) -> Endpoint:
    """Ask the server at `url` (with or without ``/v1``) for its models; `model` None takes the first.

    Raises SamplerError when it does not answer, ConfigError when the URL is none or it lists no such model.
    """
    base = url.rstrip("/").removesuffix("/v1")
    if not base.startswith(("http://", "https://")):
        raise ConfigError(f"url = {url!r} does not start with http:// or https://")
    try:
        reply = httpx.get(f"{base}/v1/models", headers=_headers(api_key), timeout=timeout_s)
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise SamplerError(f"{base}/v1/models: {_named(exc)}") from exc
    if not reply.is_success:
        raise SamplerError(f"{base}/v1/models: {_refusal(reply)}")
    try:
        listed = {str(entry["id"]): entry for entry in reply.json()["data"]}
    except (ValueError, KeyError, TypeError) as exc:
        raise SamplerError(f"{base}/v1/models is not a model list: {_named(exc)}") from exc
    chosen = model or next(iter(listed), None)
    if chosen is None or chosen not in listed:
        served = ", ".join(list(listed)[:LISTED_MODELS]) or "none"
        raise ConfigError(f"model = {model!r} is not served at {base}; served: {served}")
    return Endpoint(base, chosen, isinstance(listed[chosen].get("lhrm"), dict))


def _headers(api_key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def _named(exc: Exception) -> str:
    # Some of httpx's errors have no text.
    return f"{type(exc).__name__}: {exc}".rstrip(": ")


class ServerSampler:
    """A model behind HTTP. A request that fails is a Failed completion, never a wrong answer.

    Refused connections, a bad key and an unknown model raise SamplerError instead: no request would succeed.
    """

    tokenizer = None

    def __init__(self, endpoint: Endpoint, config: EvalConfig, api_key: str | None = None) -> None:
        self.endpoint = endpoint
        self._config = config
        self._api_key = api_key
        self._jitter = random.Random()

    @property
    def modes(self) -> tuple[Mode, ...]:
        """Both modes of a gateway; think alone of an endpoint that knows none."""
        return BOTH_MODES if self.endpoint.decides else (Mode.THINK,)

    def describe(self) -> dict[str, str]:
        """Return the URL and the model's name there."""
        return {"url": self.endpoint.url, "model": self.endpoint.model}

    def decide(self, problems: Sequence[Problem]) -> list[Decision]:
        """Ask a gateway for one token per prompt in the mode it chooses and read P(think) from the reply."""
        if not self.endpoint.decides:
            return [Decision(None, None, 0)] * len(problems)
        bodies = [self._body(problem, max_tokens=1, reasoning_effort="auto") for problem in problems]
        return [_decision(reply) for reply in asyncio.run(self._ask_all(bodies))]

    def complete(self, problems: Sequence[Problem], mode: Mode, samples: int, seed: int) -> list[list[Completion]]:
        """Send `samples` requests per problem, at most `concurrency` at once; each has its own seed."""
        config = self._config
        bodies = [
            self._body(
                problem,
                max_tokens=config.max_new_tokens,
                temperature=config.temperature,
                seed=derived_seed(seed, place, sample),
                **(
                    {"reasoning_effort": EFFORTS[mode], **GATEWAY_SAMPLING} if self.endpoint.decides else PLAIN_SAMPLING
                ),
            )
            for place, problem in enumerate(problems)
            for sample in range(samples)
        ]
        read = _gateway_answer if self.endpoint.decides else _plain_answer
        flat = [
            reply if isinstance(reply, Failed) else read(reply, mode) for reply in asyncio.run(self._ask_all(bodies))
        ]
        return [flat[i * samples : (i + 1) * samples] for i in range(len(problems))]

    def _body(self, problem: Problem, **settings: object) -> Json:
        messages = [{"role": message.role, "content": message.content} for message in problem.messages]
        return {"model": self.endpoint.model, "messages": messages, **settings}

    async def _ask_all(self, bodies: Sequence[Json]) -> list[Json | Failed]:
        limits = httpx.Limits(max_connections=self._config.concurrency)
        free = asyncio.Semaphore(self._config.concurrency)
        headers, timeout = _headers(self._api_key), httpx.Timeout(self._config.request_timeout_s, connect=10.0)
        async with httpx.AsyncClient(headers=headers, timeout=timeout, limits=limits) as client:
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self._ask(client, free, body)) for body in bodies]
            except ExceptionGroup as several:
                raise several.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _ask(self, client: httpx.AsyncClient, free: asyncio.Semaphore, body: Json) -> Json | Failed:
        url = f"{self.endpoint.url}/v1/chat/completions"
        async with free:
            for attempt in range(self._config.retries + 1):
                last = attempt == self._config.retries
                hint: str | None = None
                try:
                    reply = await client.post(url, json=body)
                except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
                    if last:
                        raise SamplerError(f"{url}: {_named(exc)}") from exc
                except httpx.RequestError as exc:
                    return Failed(_named(exc))
                else:
                    if reply.is_success:
                        return _json_object(reply)
                    if reply.status_code in REFUSED:
                        raise SamplerError(f"{url}: {_refusal(reply)}")
                    if last or reply.status_code not in BUSY:
                        return Failed(_refusal(reply))
                    hint = reply.headers.get("retry-after")
                await asyncio.sleep(self._wait_s(attempt, hint))
        raise SamplerError(f"retries = {self._config.retries}: no attempt was made")

    def _wait_s(self, attempt: int, hint: str | None) -> float:
        try:
            wanted = float(hint or "")
        except ValueError:  # none, or a date, which no server of this kind sends
            wanted = FIRST_WAIT_S * 2.0**attempt
        return min(LONGEST_WAIT_S, max(0.0, wanted)) * self._jitter.uniform(1.0, 1.25)


def _json_object(reply: httpx.Response) -> Json | Failed:
    try:
        body = reply.json()
    except ValueError:
        body = None
    return body if isinstance(body, dict) else Failed(f"not a JSON object: {reply.text[:EXCERPT_CHARS]!r}")


def _refusal(reply: httpx.Response) -> str:
    body = _json_object(reply)
    error = None if isinstance(body, Failed) else body.get("error")
    message = error.get("message") if isinstance(error, dict) else None
    return f"status {reply.status_code}: {str(message or reply.text)[:EXCERPT_CHARS]}"


def _decision(reply: Json | Failed) -> Decision:
    if isinstance(reply, Failed):
        return Decision(None, None, 0, reply.reason)
    try:
        told, prompt_tokens = reply["lhrm"]["p_think"], int(reply["usage"]["prompt_tokens"])
        p_think = None if told is None else round(float(told), 6)
    except (KeyError, TypeError, ValueError) as exc:
        return Decision(None, None, 0, f"malformed reply: {_named(exc)}")
    if p_think is None:
        return Decision(None, None, prompt_tokens, "the server did not ask the model: p_think is null")
    # The gateway counts the opening tag as part of the prompt; rows count what comes before it.
    return Decision(p_think, None, prompt_tokens - 1)


def _gateway_answer(reply: Json, mode: Mode) -> Completion:
    try:
        told: Mapping[str, Any] = reply["lhrm"]
        text = reply["choices"][0]["message"]["content"] or ""
        tokens, ran, ended = int(reply["usage"]["completion_tokens"]), told["mode"], told["ended_by"]
        # The closing tag and the end of turn are the overhead of a whole answer in either mode.
        closed = int(told["overhead_tokens"]) >= 2 and told["reasoning_ended_by"] in (None, "model")
    except (KeyError, IndexError, TypeError, ValueError) as exc:
        return Failed(f"malformed reply: {_named(exc)}")
    if ran != mode.value:
        return Failed(f"asked for mode {mode.value}, got {ran}")
    return Answered(text, tokens, truncated=ended != "stop", well_formed=ended == "stop" and closed)


def _plain_answer(reply: Json, mode: Mode) -> Completion:
    try:
        choice = reply["choices"][0]
        text, ended = choice["message"]["content"] or "", choice["finish_reason"]
        tokens = int(reply["usage"]["completion_tokens"])
    except (KeyError, IndexError, TypeError, ValueError) as exc:
        return Failed(f"malformed reply: {_named(exc)}")
    if ended not in ("stop", "length"):
        return Failed(f"finish_reason {ended!r}")
    # A server without a reasoning parser leaves the reasoning in the text.
    answer = text.rpartition(THINK_CLOSE)[2].strip()
    return Answered(answer, tokens, truncated=ended == "length", well_formed=ended == "stop")
