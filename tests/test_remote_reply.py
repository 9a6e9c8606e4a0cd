"""What ``/v1/completions`` answers, event by event, and what each failure means."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lhrm_server.engine import (
    EngineError,
    EngineOverloadedError,
    EngineTimeoutError,
    EngineUnreachableError,
    RequestRefusedError,
    Sampling,
    StopReason,
    TokenDelta,
)
from lhrm_server.remote_reply import delta_of, error_of_response

PLAIN = Sampling(max_tokens=9)
DECIDE = Sampling(max_tokens=1, logprob_token_ids=(3, 5))
TOP = Sampling(max_tokens=9, top_logprobs=1)


def event(ids, reason=None, logprobs=None, **choice) -> bytes:
    one = {"index": 0, "text": "x", "logprobs": logprobs, "finish_reason": reason, "token_ids": ids, **choice}
    return json.dumps({"id": "cmpl-1", "object": "text_completion", "choices": [one]}).encode()


def rows(*given) -> dict:
    return {"text_offset": [], "token_logprobs": [], "tokens": [], "top_logprobs": list(given)}


def test_ids_and_reasons():
    assert delta_of(event([7, 8]), PLAIN) == TokenDelta((7, 8))
    assert delta_of(event([2], "stop", stop_reason=2), PLAIN) == TokenDelta((2,), None, StopReason.STOP)
    assert delta_of(event([], "length"), PLAIN) == TokenDelta((), None, StopReason.LENGTH)
    assert delta_of(event([], "abort"), PLAIN) == TokenDelta((), None, StopReason.ABORT)


def test_events_without_tokens_are_no_deltas():
    assert delta_of(event([]), PLAIN) is None
    assert delta_of(b'{"choices":[],"usage":{"prompt_tokens":1}}', PLAIN) is None


def test_log_probabilities_of_the_asked_ids_alone_in_their_order():
    given = rows({"token_id:5": -0.5, "token_id:9": -3, "token_id:3": -9999.0})
    delta = delta_of(event([5], "length", given), DECIDE)
    assert delta == TokenDelta((5,), ({3: -math.inf, 5: -0.5},), StopReason.LENGTH)
    assert list(delta.logprobs[0]) == [3, 5]


def test_log_probabilities_of_the_likeliest_as_they_come():
    delta = delta_of(event([7, 8], None, rows({"token_id:7": -1.0, "token_id:8": -0.5}, {"token_id:8": 0})), TOP)
    assert delta.logprobs == ({7: -1.0, 8: -0.5}, {8: 0.0})


def test_an_end_without_ids_has_no_rows_but_is_not_unasked():
    assert delta_of(event([], "length", rows()), DECIDE) == TokenDelta((), (), StopReason.LENGTH)
    assert delta_of(event([], "length"), DECIDE) == TokenDelta((), (), StopReason.LENGTH)


BROKEN = {
    "not JSON": (b"{", "not JSON"),
    "not UTF-8": (b'{"choices": "\xff"}', "not JSON"),
    "not an object": (b"[1]", "not an object"),
    "no choices": (b"{}", r"unknown shape \(KeyError\)"),
    "no ids": (b'{"choices":[{"text":"x","finish_reason":null}]}', r"unknown shape \(KeyError\)"),
    "null ids": (event(None), "not a list of integers"),
    "ids that are no integers": (event(["1"]), "not a list of integers"),
    "ids that are truth values": (event([True]), "not a list of integers"),
    "an end of another kind": (event([1], "error"), "ended the sequence with 'error'"),
}


@pytest.mark.parametrize(("data", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_event_is_an_engine_error(data, words):
    with pytest.raises(EngineError, match=words):
        delta_of(data, PLAIN)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PLACES = [("choices",), ("choices", 0), ("error",)]
PLACES += [("choices", 0, name) for name in ("token_ids", "finish_reason", "logprobs")]
PLACES += [("choices", 0, "logprobs", "top_logprobs"), ("choices", 0, "logprobs", "top_logprobs", 0)]


@given(st.sampled_from(PLACES), JSON | st.just(10**400), st.sampled_from([PLAIN, DECIDE, TOP]))
def test_nothing_but_an_engine_error_comes_of_any_value_anywhere(place, value, sampling):
    whole = json.loads(event([5], "length", rows({"token_id:3": -1.0, "token_id:5": -0.5})))
    inner = whole
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    try:
        delta = delta_of(json.dumps(whole).encode(), sampling)
    except EngineError:
        return
    assert delta is None or delta.token_ids or delta.stop_reason


@pytest.mark.parametrize("value", [b"[" * 100_000, b'{"choices": ' + b"9" * 5000 + b"}"])
def test_what_json_itself_gives_up_on_is_an_engine_error(value):
    with pytest.raises(EngineError, match="not JSON"):
        delta_of(value, PLAIN)


def test_a_number_beyond_all_floats_is_an_engine_error():
    with pytest.raises(EngineError, match="unknown shape"):
        delta_of(event([5], None, rows({"token_id:3": -(10**400), "token_id:5": 0})), DECIDE)


MISSING = {
    "none at all": (event([5]), "1 ids with 0 log-probabilities"),
    "too few": (event([5, 5], None, rows({"token_id:3": 0, "token_id:5": 0})), "2 ids with 1"),
    "another id": (event([5], None, rows({"token_id:5": 0})), r"no log-probability of the ids \[3\]"),
    "texts for ids": (event([5], None, rows({"<think>": 0, "x": 0})), "unknown shape"),
    "not a number": (event([5], None, rows({"token_id:3": math.nan, "token_id:5": 0})), "unknown shape"),
    "null row": (event([5], None, rows(None)), "unknown shape"),
}


@pytest.mark.parametrize(("data", "words"), MISSING.values(), ids=MISSING.keys())
def test_missing_log_probabilities_are_an_engine_error(data, words):
    with pytest.raises(EngineError, match=words):
        delta_of(data, DECIDE)


CODES = {
    400: RequestRefusedError,
    401: EngineError,
    403: EngineError,
    404: EngineError,
    408: EngineTimeoutError,
    413: RequestRefusedError,
    422: RequestRefusedError,
    429: EngineOverloadedError,
    500: EngineError,
    502: EngineUnreachableError,
    503: EngineOverloadedError,
    504: EngineTimeoutError,
    302: EngineError,
}


@pytest.mark.parametrize("code", CODES)
def test_the_same_code_means_the_same_in_an_event_and_in_a_response(code):
    told = {"error": {"message": "why\n so", "type": "T", "param": None, "code": code}}
    with pytest.raises(EngineError, match="why so") as in_event:
        delta_of(json.dumps(told).encode(), PLAIN)
    in_response = error_of_response(code, {}, json.dumps(told).encode())
    assert type(in_event.value) is type(in_response) is CODES[code]
    assert str(in_event.value) == str(in_response)


BODIES = [
    (b'{"error": "Unauthorized"}', "401: Unauthorized"),
    (b'{"detail": "Not Found"}', "401"),
    (b"<html>", "401"),
    (b"", "401"),
    (b"null", "401"),
    (b"\xff", "401"),
]


@pytest.mark.parametrize(("body", "told"), BODIES)
def test_any_body_of_an_error_can_be_read(body, told):
    assert str(error_of_response(401, {}, body)) == f"the engine refuses the API key ({told})"


def test_an_error_event_of_any_shape_is_an_engine_error():
    for error in (None, "text", {"message": "m"}, {"code": "x"}, []):
        with pytest.raises(EngineError, match="the engine failed"):
            delta_of(json.dumps({"error": error}).encode(), PLAIN)


def test_a_long_message_is_cut():
    refused = error_of_response(400, {}, json.dumps({"error": {"message": "x" * 5000}}).encode())
    assert len(str(refused)) == 300


@pytest.mark.parametrize(("header", "seconds"), [("3", 3.0), ("0.5", 0.5), ("-1", None), ("nan", None), ("Wed", None)])
def test_the_advice_is_read_where_it_is_a_number(header, seconds):
    overloaded = error_of_response(503, {"retry-after": header}, b"")
    assert isinstance(overloaded, EngineOverloadedError)
    assert overloaded.retry_after_s == seconds
