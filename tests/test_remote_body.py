"""What goes to ``/v1/completions``: every field of a request, the checkpoint's defaults, nothing left to the server."""

from dataclasses import fields

import pytest
from lhrm_server.engine import EngineError, GenerationRequest, Grammar, Sampling
from lhrm_server.remote_body import NEUTRAL, completion_body, completion_headers

FIXED = {
    "model": "m",
    "prompt": [1, 2],
    "stream": True,
    "return_token_ids": True,
    "max_tokens": 5,
    "stop_token_ids": [9],
}


def body(defaults=None, **sampling):
    request = GenerationRequest("r", (1, 2), Sampling(max_tokens=5, **sampling))
    return completion_body(request, "m", (9,), defaults or {})


def test_every_sampling_field_is_sent_whatever_the_request_leaves_open():
    assert body() == {
        **FIXED,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
    }


def test_a_single_token_is_not_streamed():
    one = GenerationRequest("r", (1, 2), Sampling(max_tokens=1))
    assert completion_body(one, "m", (9,), {})["stream"] is False


def test_request_before_checkpoint_before_neutral():
    sent = body({"temperature": 0.6, "top_k": 20}, temperature=0.0)
    assert (sent["temperature"], sent["top_k"], sent["top_p"]) == (0.0, 20, 1.0)


PARTS = {
    "seed": ({"seed": 0}, {"seed": 0}),
    "allowed": ({"allowed_token_ids": (3, 4)}, {"allowed_token_ids": [3, 4]}),
    "bias": ({"logit_bias": {3: -100, 4: 1.5}}, {"logit_bias": {"3": -100, "4": 1.5}}),
    "stop": ({"stop_token_ids": (4, 9)}, {"stop_token_ids": [9, 4]}),
    "log-probabilities of ids": (
        {"logprob_token_ids": (3, 4)},
        {"logprobs": 2, "logprob_token_ids": [3, 4], "return_tokens_as_token_ids": True},
    ),
    "of the sampled alone": ({"top_logprobs": 0}, {"logprobs": 0, "return_tokens_as_token_ids": True}),
    "of the likeliest": ({"top_logprobs": 7}, {"logprobs": 7, "return_tokens_as_token_ids": True}),
    "schema": (
        {"grammar": Grammar("json", '{"type":"object"}')},
        {"structured_outputs": {"json": '{"type":"object"}'}},
    ),
    "regex": ({"grammar": Grammar("regex", "a+")}, {"structured_outputs": {"regex": "a+"}}),
    "choice": ({"grammar": Grammar("choice", '["a", "b"]')}, {"structured_outputs": {"choice": ["a", "b"]}}),
    "grammar": ({"grammar": Grammar("grammar", 'root ::= "a"')}, {"structured_outputs": {"grammar": 'root ::= "a"'}}),
}


@pytest.mark.parametrize(("asked", "sent"), PARTS.values(), ids=PARTS.keys())
def test_each_part_adds_its_own_fields(asked, sent):
    assert body(**asked) == {**body(), **sent}


def test_every_field_of_sampling_is_known_here():
    """A field that is new in the seam must not be dropped without a word."""
    told = {name for asked, _ in PARTS.values() for name in asked} | set(NEUTRAL) | {"max_tokens"}
    assert {f.name for f in fields(Sampling)} == told


def test_two_kinds_of_log_probabilities_at_once_are_refused():
    with pytest.raises(EngineError, match="r: logprob_token_ids and top_logprobs"):
        body(logprob_token_ids=(1,), top_logprobs=1)


def test_headers_name_the_call_and_its_session():
    request = GenerationRequest("c-decide", (1,), Sampling(max_tokens=1))
    assert completion_headers(request) == {"X-Request-Id": "c-decide"}
    request = GenerationRequest("c-decide", (1,), Sampling(max_tokens=1), session_id="c")
    assert completion_headers(request)["X-Session-ID"] == "c"
