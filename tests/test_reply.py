"""Replies and streams of the same events say the same; what each of them looks like."""

import asyncio

import pytest
from gateway_fixtures import texts, think
from hypothesis import given
from hypothesis import strategies as st
from lhrm_server.answer_plan import AnswerPlan, ToolPlan
from lhrm_server.control import Shown, Wish
from lhrm_server.engine import Grammar
from lhrm_server.wire import ReplyForm
from pipeline_rig import TOKENIZER, Rig, body_of, gathered, job, same

TAGS, END = TOKENIZER.tags, TOKENIZER.turn_end_id
BODY = think(TOKENIZER, "because", "yes 🤔")
CALL = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
AUTO = AnswerPlan(tools=ToolPlan("auto"))


PLANS = {
    "plain": None,
    "logprobs": AnswerPlan(top_logprobs=1),
    "stop": AnswerPlan(stop=("es",), top_logprobs=0),
    "tools": AUTO,
    "named": AnswerPlan(grammar=Grammar("json", "{}"), tools=ToolPlan("named", "g")),
}


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("shown", Shown)
@pytest.mark.parametrize("wish", [Wish.THINK, Wish.NO_THINK])
@pytest.mark.parametrize("answer", ["yes 🤔", f"ok {CALL}", ""])
async def test_stream_and_reply_agree(plan, shown, wish, answer):
    asked = job(wish, n=2, answer=PLANS[plan], budget=3)
    rig = Rig(
        think_ids=think(TOKENIZER, "because", answer),
        no_think_ids=(*TOKENIZER.encode_text(answer), TAGS.no_think_end, END),
        chunks=(2, 1),
    )
    form = ReplyForm(
        shown=shown, logprobs=asked.answer.top_logprobs is not None, include_usage=True, continuous_usage=True
    )
    same(asked, await rig.job(asked), form)


@given(
    st.integers(1, 30), st.none() | st.integers(0, 9), st.sampled_from(Shown), st.lists(st.integers(1, 5), min_size=1)
)
def test_they_agree_under_every_limit(limit, budget, shown, chunks):
    asked = job(Wish.THINK, max_tokens=limit, budget=budget)
    events = asyncio.run(Rig(think_ids=BODY, chunks=tuple(chunks)).job(asked))
    body = same(asked, events, ReplyForm(shown=shown))
    if shown is Shown.INLINE:
        separate = body_of(asked, events)["choices"][0]["message"]
        closed = body["lhrm"]["reasoning_ended_by"] in ("model", "budget")
        expected = f"<think>{separate['reasoning']}{'</think>' if closed else ''}{separate['content']}"
        assert body["choices"][0]["message"]["content"] == expected


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        (Shown.SEPARATE, {"content": "yes 🤔", "reasoning": "because", "reasoning_content": "because"}),
        (Shown.HIDDEN, {"content": "yes 🤔"}),
        (Shown.INLINE, {"content": "<think>because</think>yes 🤔"}),
    ],
)
async def test_where_the_reasoning_is_shown(shown, message):
    body = await Rig(think_ids=BODY).body(job(Wish.THINK), ReplyForm(shown=shown))
    assert body["choices"][0]["message"] == {"role": "assistant", "refusal": None, **message}
    count = len(TOKENIZER.encode_text("because"))
    assert body["usage"]["completion_tokens_details"] == {"reasoning_tokens": count}
    assert body["lhrm"]["reasoning_tokens"] == count


@pytest.mark.parametrize("shown", [Shown.HIDDEN, Shown.INLINE])
async def test_a_no_think_answer_is_plain_wherever_reasoning_would_be_shown(shown):
    rig = Rig(no_think_ids=(*TOKENIZER.encode_text("yes"), TAGS.no_think_end, END))
    body = await rig.body(job(Wish.NO_THINK), ReplyForm(shown=shown))
    assert body["choices"][0]["message"] == {"role": "assistant", "refusal": None, "content": "yes"}


async def test_hidden_reasoning_sends_no_chunk_and_no_field():
    chunks = await Rig(think_ids=BODY).chunks(job(Wish.THINK), ReplyForm(shown=Shown.HIDDEN))
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert not any(key.startswith("reasoning") for delta in deltas for key in delta)
    assert deltas[0]["role"] == "assistant"
    assert texts(chunks) == ("", "yes 🤔")


async def test_inline_reasoning_that_was_cut_stays_open_and_an_empty_one_is_shown():
    rig = Rig(think_ids=BODY)
    cut = await rig.body(job(Wish.THINK, max_tokens=2), ReplyForm(shown=Shown.INLINE))
    assert cut["choices"][0]["message"]["content"] == f"<think>{TOKENIZER.decode(BODY[:2])}"
    empty = await rig.body(job(Wish.THINK, budget=0), ReplyForm(shown=Shown.INLINE))
    assert empty["choices"][0]["message"]["content"] == "<think></think>yes 🤔"


async def test_tool_calls_in_a_reply():
    body = await Rig(think_ids=think(TOKENIZER, "r", CALL)).body(job(Wish.THINK, answer=AUTO))
    (choice,) = body["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    (call,) = choice["message"]["tool_calls"]
    assert call["id"].startswith("call_")
    assert {**call, "id": ""} == {"id": "", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    assert body["lhrm"]["ended_by"] == "tool_calls"


async def test_tool_calls_in_a_stream():
    body = think(TOKENIZER, "r", f"ok {CALL}{CALL}")
    chunks = await Rig(think_ids=body).chunks(job(Wish.THINK, answer=AUTO))
    calls = [call for chunk in chunks for choice in chunk["choices"] for call in choice["delta"].get("tool_calls", [])]
    assert [call["index"] for call in calls] == [0, 1]
    assert all(set(call) == {"index", "id", "type", "function"} for call in calls)
    assert len({call["id"] for call in calls}) == 2
    assert texts(chunks) == ("r", "ok")


async def test_a_named_call_streams_its_arguments():
    plan = AnswerPlan(grammar=Grammar("json", "{}"), tools=ToolPlan("named", "g"))
    rig = Rig(think_ids=BODY, grammar_ids=(*TOKENIZER.encode_text('{"a": 1}'), END))
    chunks = await rig.chunks(job(Wish.THINK, answer=plan))
    seen = gathered(chunks)
    assert [(c["name"], c["arguments"]) for c in seen["calls"].values()] == [("g", '{"a": 1}')]
    assert [finish for finish, _, _ in seen["finish"]] == ["stop"]
    assert len([chunk for chunk in chunks if chunk["choices"][0]["delta"].get("tool_calls")]) > 1


async def test_log_probabilities_on_the_wire():
    plan = AnswerPlan(top_logprobs=2)
    body = await Rig(think_ids=BODY).body(job(Wish.THINK, answer=plan))
    entries = body["choices"][0]["logprobs"]["content"]
    assert body["choices"][0]["logprobs"]["refusal"] is None
    assert bytes(byte for entry in entries for byte in entry["bytes"]).decode() == "yes 🤔"
    assert [set(entry) for entry in entries] == [{"token", "logprob", "bytes", "top_logprobs"}] * len(entries)
    first = entries[0]
    assert first["token"].encode() == bytes(first["bytes"])
    assert (first["logprob"], [top["logprob"] for top in first["top_logprobs"]]) == (-0.25, [-0.25, -1.25])
    plain = await Rig(think_ids=BODY).body(job(Wish.THINK))
    assert plain["choices"][0]["logprobs"] is None


async def test_a_stop_string_on_the_wire():
    body = await Rig(think_ids=BODY).body(job(Wish.THINK, answer=AnswerPlan(stop=(" ",))))
    (choice,) = body["choices"]
    assert (choice["finish_reason"], choice["stop_reason"], choice["message"]["content"]) == ("stop", " ", "yes")
    plain = await Rig(think_ids=BODY).body(job(Wish.THINK))
    assert plain["choices"][0]["stop_reason"] is None


async def test_several_choices_on_the_wire():
    asked = job(Wish.AUTO, n=3)
    body = await Rig(think_ids=BODY, p_think=0.9).body(asked)
    single = (await Rig(think_ids=BODY, p_think=0.9).body(job(Wish.AUTO)))["choices"][0]["lhrm"]
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert all(choice["lhrm"] == single for choice in body["choices"])
    for key in ("reasoning_tokens", "answer_tokens", "overhead_tokens"):
        assert body["lhrm"][key] == 3 * single[key]
    assert body["usage"]["completion_tokens"] == 3 * len(BODY)
    assert body["usage"]["prompt_tokens"] == asked.facts.prompt_tokens
    assert body["lhrm"]["savings"]["tokens"] == 0
    unknown = await Rig(p_think=0.1).body(job(Wish.AUTO, n=3))
    assert unknown["lhrm"]["savings"] is None


async def test_the_chunks_of_several_choices():
    asked = job(Wish.AUTO, n=3)
    chunks = await Rig(think_ids=BODY, p_think=0.9, chunks=(2, 1)).chunks(asked, ReplyForm(include_usage=True))
    *chunks, usage = chunks
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 3 * len(BODY))
    firsts = [next(c for c in chunks if c["choices"][0]["index"] == index) for index in range(3)]
    assert [first["choices"][0]["delta"].get("role") for first in firsts] == ["assistant"] * 3
    assert sum("role" in chunk["choices"][0]["delta"] for chunk in chunks) == 3
    with_lhrm = [chunk for chunk in chunks if "lhrm" in chunk]
    assert with_lhrm == [chunks[0], chunks[-1]]
    assert set(chunks[0]["lhrm"]) == {"mode", "source", "p_think", "threshold"}
    assert sorted(c["choices"][0]["index"] for c in chunks if c["choices"][0]["finish_reason"]) == [0, 1, 2]
    for index in range(3):
        last = [chunk for chunk in chunks if chunk["choices"][0]["index"] == index][-1]
        assert last["choices"][0]["finish_reason"] == "stop"


async def test_continuous_usage_counts_up_to_the_final_figures():
    asked = job(Wish.THINK, n=2)
    chunks = await Rig(think_ids=BODY).chunks(asked, ReplyForm(continuous_usage=True))
    made = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert made == sorted(made)
    assert (made[0], made[-1]) == (1, 2 * len(BODY))
    reasoned = chunks[-1]["usage"]["completion_tokens_details"]["reasoning_tokens"]
    assert reasoned == 2 * len(TOKENIZER.encode_text("because")) == chunks[-1]["lhrm"]["reasoning_tokens"]
    assert all(chunk["choices"] for chunk in chunks), "the final usage chunk was not asked for"


async def test_a_retry_is_marked_on_its_choice():
    rig = Rig(think_ids=(9, END), no_think_ids=(*TOKENIZER.encode_text("yes"), TAGS.no_think_end, END))
    body = await rig.body(job(Wish.THINK, retry_unanswered=True))
    (choice,) = body["choices"]
    assert (choice["lhrm"]["answer_retried"], choice["lhrm"]["reasoning_ended_by"]) == (True, "eos")
    assert (choice["message"]["content"], choice["lhrm"]["answer_missing"]) == ("yes", None)


async def test_continuous_usage_keeps_the_reasoning_of_a_choice_that_is_asked_again():
    rig = Rig(think_ids=(9, 9, 9, END), no_think_ids=(*TOKENIZER.encode_text("yes"), TAGS.no_think_end, END))
    chunks = await rig.chunks(job(Wish.THINK, retry_unanswered=True), ReplyForm(continuous_usage=True))
    reasoned = [chunk["usage"]["completion_tokens_details"]["reasoning_tokens"] for chunk in chunks]
    assert reasoned == sorted(reasoned)
    assert reasoned[-1] == 3
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks][-1] == rig.engine.emitted_tokens
