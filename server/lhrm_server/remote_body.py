"""From a GenerationRequest to the body and headers of ``POST /v1/completions``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .engine import EngineError, GenerationRequest, Grammar, Sampling

NEUTRAL: Mapping[str, float] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
}
"""What changes nothing; every field is sent, so that the other server's own defaults have no say."""


def completion_body(
    request: GenerationRequest, model: str, stop_token_ids: tuple[int, ...], defaults: Mapping[str, float]
) -> dict[str, Any]:
    """Return the body of the call, without the priority. Raises EngineError on what cannot be said in it.

    A single token, which is all that a decision is, needs no stream.
    """
    sampling = request.sampling
    chosen = {name: value for name in NEUTRAL if (value := getattr(sampling, name)) is not None}
    body: dict[str, Any] = {
        "model": model,
        "prompt": list(request.prompt_ids),
        "stream": sampling.max_tokens > 1,
        "return_token_ids": True,
        "max_tokens": sampling.max_tokens,
        "stop_token_ids": list(dict.fromkeys((*stop_token_ids, *sampling.stop_token_ids))),
        **NEUTRAL,
        **defaults,
        **chosen,
        **_logprobs(request.request_id, sampling),
    }
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.allowed_token_ids is not None:
        body["allowed_token_ids"] = list(sampling.allowed_token_ids)
    if sampling.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
    if sampling.grammar is not None:
        body["structured_outputs"] = _structured(sampling.grammar)
    return body


def completion_headers(request: GenerationRequest) -> dict[str, str]:
    """Return the headers that name the call and the session it belongs to."""
    session = {"X-Session-ID": request.session_id} if request.session_id else {}
    return {"X-Request-Id": request.request_id, **session}


def _logprobs(request_id: str, sampling: Sampling) -> dict[str, Any]:
    wanted, top = sampling.logprob_token_ids, sampling.top_logprobs
    if wanted is None and top is None:
        return {}
    if wanted is not None and top is not None:
        raise EngineError(f"{request_id}: logprob_token_ids and top_logprobs cannot be asked for together")
    # The texts of tokens are not unique; their ids are.
    common = {"return_tokens_as_token_ids": True}
    if wanted is None:
        return {**common, "logprobs": top}
    # vLLM takes the ids only beside a count.
    return {**common, "logprobs": len(wanted), "logprob_token_ids": list(wanted)}


def _structured(grammar: Grammar) -> dict[str, Any]:
    return {grammar.kind: json.loads(grammar.value) if grammar.kind == "choice" else grammar.value}
