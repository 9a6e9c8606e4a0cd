"""What must hold of a running ``vllm serve`` before the gateway trusts it with a model."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from lhrm_train.format import TAGS, ChatTokenizer, Message, encode_chat

from .engine import (
    EngineDeadError,
    EngineError,
    EngineOverloadedError,
    EngineTimeoutError,
    EngineUnreachableError,
    GenerationRequest,
    Sampling,
    TokenDelta,
)
from .remote_link import RemoteLink

Stream = Callable[[GenerationRequest], AsyncGenerator[TokenDelta, None]]
# What may be gone a moment later, and says nothing of which server this is.
TRANSIENT = (EngineUnreachableError, EngineTimeoutError, EngineOverloadedError, EngineDeadError)
# A little above 1, for the engine computes in 16 bits.
MOST_MASS = 1.01
SAME_LOGPROB = 0.5


@dataclass(frozen=True)
class Served:
    """The model that a server serves: the name to ask for, the server's version, its context in tokens."""

    model: str
    version: str
    max_model_len: int


async def identify(link: RemoteLink, model: str | None, tokenizer: ChatTokenizer, least_len: int) -> Served:
    """Return what is served. Raises EngineError unless it is vLLM, is healthy, and reads text as `tokenizer` does.

    `model` None takes the only one. These questions do not wait in the engine's queue.
    """
    status = await link.status("/health")
    if status == 503:
        raise EngineUnreachableError(f"the vLLM server at {link.url} is up, but its engine is not")
    if status != 200:
        raise EngineError(f"{link.url} is not a vLLM server: GET /health gives {status}")
    card = _card(link, model, await _told(link, "GET", "/v1/models"))
    version = (await _told(link, "GET", "/version")).get("version")
    served = Served(str(card["id"]), str(version), _length(link, card))
    if served.max_model_len < least_len:
        raise EngineError(
            f"{link.url} serves a context of {served.max_model_len} tokens, {least_len} are needed;"
            " start vllm serve with a larger --max-model-len"
        )
    await _same_vocabulary(link, served.model, tokenizer)
    return served


async def check_decide(link: RemoteLink, stream: Stream, tokenizer: ChatTokenizer, priority: int) -> None:
    """Make the call that decides. Raises EngineError unless the log-probabilities are those before any mask."""
    tags = (tokenizer.tags.think, tokenizer.tags.no_think)
    free = await _tag_logprobs(stream, tokenizer, tags, priority)
    bound = await _tag_logprobs(stream, tokenizer, tags[:1], priority)
    mass = sum(math.exp(value) for value in free.values())
    moved = any(not math.isclose(free[tag], bound[tag], abs_tol=SAME_LOGPROB) for tag in tags)
    if mass > MOST_MASS or moved:
        raise EngineError(
            f"{link.url} does not give raw log-probabilities; start vllm serve with --logprobs-mode raw_logprobs"
        )


async def _tag_logprobs(
    stream: Stream, tokenizer: ChatTokenizer, allowed: tuple[int, ...], priority: int
) -> dict[int, float]:
    tags = (tokenizer.tags.think, tokenizer.tags.no_think)
    request = GenerationRequest(
        "lhrm-check",
        tuple(encode_chat(tokenizer, [Message("user", "2+3?")], None)),
        Sampling(max_tokens=1, temperature=0.0, allowed_token_ids=allowed, logprob_token_ids=tags),
        priority,
    )
    async with aclosing(stream(request)) as deltas:
        answer = [delta async for delta in deltas]
    found = [(i, row) for delta in answer for i, row in zip(delta.token_ids, delta.logprobs or (), strict=True)]
    if len(found) != 1 or found[0][0] not in allowed:
        raise EngineError(f"the engine answered {[i for i, _ in found]} where only {list(allowed)} was allowed")
    return found[0][1]


async def _told(link: RemoteLink, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    try:
        return await link.ask(method, path, body)
    except TRANSIENT:
        raise
    except EngineError as exc:
        raise EngineError(f"{link.url} is not a vLLM server that can be used: {method} {path}: {exc}") from exc


def _card(link: RemoteLink, model: str | None, listed: dict[str, Any]) -> dict[str, Any]:
    """Return the entry of the model in ``/v1/models``; adapters are entries with a parent."""
    data = listed.get("data")
    entries = data if isinstance(data, list) else []
    cards = {card["id"]: card for card in entries if isinstance(card, dict) and "id" in card}
    if not cards:
        raise EngineError(f"{link.url} is not a vLLM server: GET /v1/models lists no model")
    known = ", ".join(map(str, cards))
    if model is not None:
        if model not in cards:
            raise EngineError(f"{link.url} does not serve the model {model!r}; it serves: {known}")
        return cards[model]
    bases = [card for card in cards.values() if card.get("parent") is None]
    if len(bases) != 1:
        raise EngineError(f"{link.url} serves several models, name one of them: {known}")
    return bases[0]


def _length(link: RemoteLink, card: dict[str, Any]) -> int:
    length = card.get("max_model_len")
    if not isinstance(length, int):
        raise EngineError(f"{link.url} is not a vLLM server: GET /v1/models tells no max_model_len")
    return length


async def _same_vocabulary(link: RemoteLink, model: str, tokenizer: ChatTokenizer) -> None:
    """Compare the ids of a text with every tag, both turn markers, digits and more than ASCII."""
    marks = tokenizer.manifest
    probe = "".join(f"{mark}2+3 = 5, naïve 思考 🤔\n" for mark in (marks.turn_start, *TAGS, marks.turn_end))
    asked = {"model": model, "prompt": probe, "add_special_tokens": False}
    theirs = (await _told(link, "POST", "/tokenize", asked)).get("tokens")
    ours = tokenizer.encode_template(probe)
    if theirs != ours:
        raise EngineError(
            f"{link.url} serves {model!r} with another vocabulary than {marks.name!r}: a probe text has other ids there"
        )
