"""Bodies and chunks of the wire, on both endings of a request."""

import json

import pytest
from gateway_fixtures import gateway, load_tokenizer, scripted

LHRM_KEYS = {
    "mode",
    "source",
    "p_think",
    "threshold",
    "reasoning_tokens",
    "answer_tokens",
    "overhead_tokens",
    "decide_tokens",
    "ended_by",
    "reasoning_ended_by",
    "latency",
    "savings",
}
SHARED_KEYS = {"reasoning_tokens", "answer_tokens", "overhead_tokens", "ended_by", "reasoning_ended_by"}
CHOICE_KEYS = {*SHARED_KEYS, "answer_missing", "answer_retried"}
LATENCY_KEYS = {"queue_ms", "decide_ms", "first_token_ms", "first_answer_token_ms", "total_ms"}
TOKENIZER = load_tokenizer()


async def reply(script=None, **fields):
    async with gateway(script or scripted(TOKENIZER)) as rig:
        response = await rig.chat(**fields)
        assert response.status_code == 200, response.text
        return response.json(), rig


async def test_think_reply():
    body, rig = await reply(scripted(TOKENIZER, p_think=0.8))
    (choice,) = body["choices"]
    message = choice["message"]
    assert message["reasoning"] == message["reasoning_content"] == "Zwei plus drei, naïve 思考 🤔."
    assert (message["role"], message["content"], choice["finish_reason"]) == ("assistant", "5 ✓", "stop")
    lhrm = body["lhrm"]
    assert set(lhrm) == LHRM_KEYS
    assert set(lhrm["latency"]) == LATENCY_KEYS
    assert set(choice["lhrm"]) == CHOICE_KEYS
    assert (lhrm["mode"], lhrm["source"], lhrm["threshold"], lhrm["decide_tokens"]) == ("think", "model", 0.5, 1)
    assert lhrm["p_think"] == pytest.approx(0.8)
    assert (lhrm["ended_by"], lhrm["reasoning_ended_by"]) == ("stop", "model")
    assert all(isinstance(value, float) for value in lhrm["latency"].values())
    assert lhrm["savings"]["tokens"] == 0
    assert lhrm["savings"]["interval"] == [0, 0]
    assert body["object"] == "chat.completion"
    assert body["id"].startswith("chatcmpl-")
    assert rig.records[0].facts.completion_id == body["id"]


@pytest.mark.parametrize("p_think", [0.1, 0.9])
@pytest.mark.parametrize("max_tokens", [1, 4, 200])
async def test_counts_add_up_and_equal_the_ids_of_the_engine(p_think, max_tokens):
    script = scripted(TOKENIZER, p_think=p_think)
    body, rig = await reply(script, max_tokens=max_tokens)
    ids = (script.think_ids if p_think > 0.5 else script.no_think_ids)[:max_tokens]
    usage, lhrm = body["usage"], body["lhrm"]
    assert usage["completion_tokens"] == len(ids)
    assert usage["prompt_tokens"] == len(rig.engine.requests[-1].prompt_ids)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    parts = lhrm["reasoning_tokens"] + lhrm["answer_tokens"] + lhrm["overhead_tokens"]
    assert parts == usage["completion_tokens"]
    assert usage["completion_tokens_details"] == {"reasoning_tokens": lhrm["reasoning_tokens"]}
    assert "prompt_tokens_details" not in usage
    choice = body["choices"][0]["lhrm"]
    assert {key: lhrm[key] for key in SHARED_KEYS} == {key: choice[key] for key in SHARED_KEYS}


async def test_no_think_reply():
    body, _ = await reply(scripted(TOKENIZER, p_think=0.1))
    message = body["choices"][0]["message"]
    assert (message["content"], message["reasoning"], message["reasoning_content"]) == ("fünf ✓", None, None)
    lhrm = body["lhrm"]
    assert (lhrm["mode"], lhrm["reasoning_tokens"], lhrm["reasoning_ended_by"]) == ("no_think", 0, None)
    made = body["usage"]["completion_tokens"]
    assert lhrm["savings"] == {
        "tokens": 60 - made,
        "interval": [40 - made, 90 - made],
        "confidence": 0.9,
        "n": 120,
        "method": "calibration",
        "provenance": "modelled",
    }


async def test_forced_reply_claims_nothing_about_the_model():
    body, _ = await reply(reasoning_effort="none")
    lhrm = body["lhrm"]
    assert (lhrm["mode"], lhrm["source"], lhrm["decide_tokens"]) == ("no_think", "request", 0)
    assert lhrm["p_think"] is lhrm["threshold"] is lhrm["savings"] is lhrm["latency"]["decide_ms"] is None


async def test_empty_answer_has_its_reason():
    body, _ = await reply(scripted(TOKENIZER, p_think=0.9), max_tokens=2)
    message, lhrm = body["choices"][0]["message"], body["lhrm"]
    assert message["content"] == ""
    assert message["reasoning"]
    assert body["choices"][0]["finish_reason"] == "length"
    assert (lhrm["ended_by"], lhrm["reasoning_ended_by"]) == ("length", "length")
    assert body["choices"][0]["lhrm"]["answer_missing"] == "length"
    end = scripted(TOKENIZER, p_think=0.9, think_ids=(TOKENIZER.turn_end_id,))
    body, _ = await reply(end)
    assert body["choices"][0]["message"]["reasoning"] == body["choices"][0]["message"]["content"] == ""
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["lhrm"]["reasoning_ended_by"] == "eos"
    assert body["choices"][0]["lhrm"]["answer_missing"] == "eos"


async def test_replies_are_utf_8_and_strict_json():
    async with gateway() as rig:
        raw = (await rig.chat()).content
    assert "思考" in raw.decode("utf-8")
    json.loads(raw, parse_constant=lambda name: pytest.fail(name))
