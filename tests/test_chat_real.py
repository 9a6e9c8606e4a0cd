"""The pipeline over stock vLLM and the shipped nano: budgets, constraints, choices and counts, checked by its ids."""

import asyncio
import json
import math
from contextlib import aclosing
from dataclasses import replace

import pytest
from conftest import collect
from lhrm_server.accounting import Ending
from lhrm_server.answer_plan import AnswerPlan, ToolPlan
from lhrm_server.chat import Generated
from lhrm_server.control import Wish
from lhrm_server.engine import GenerationRequest, Grammar, RequestRefusedError, Sampling
from pipeline_rig import TOKENIZER, Rig, entries, job, record_of, same

from lhrm_train.format import Mode

pytestmark = pytest.mark.engine

QUESTION = "What is 48371+92615?"
TAGS, END = TOKENIZER.tags, TOKENIZER.turn_end_id


class Watched:
    """The real engine; it keeps every call with the ids that it gave, and counts the calls that run."""

    def __init__(self, engine):
        self._engine = engine
        self.calls = []
        self.running = 0

    async def healthy(self):
        return await self._engine.healthy()

    async def release(self, session_id):
        await self._engine.release(session_id)

    async def generate(self, request):
        ids = []
        self.calls.append((request, ids))
        self.running += 1
        try:
            async with aclosing(self._engine.generate(request)) as deltas:
                async for delta in deltas:
                    ids += delta.token_ids
                    yield delta
        finally:
            self.running -= 1


@pytest.fixture
def ask(loop_thread, vllm_engine):
    """Run a job; return the reply, which its stream equals, its events, and the calls."""

    def run(wish, text=QUESTION, **fields):
        asked = job(wish, text=text, **{"temperature": 0.0, **fields})
        watched = Watched(vllm_engine)
        events = loop_thread.run(Rig(engine=watched).job(asked))
        assert watched.running == 0
        return same(asked, events), events, watched.calls

    return run


def message(body, index=0):
    return body["choices"][index]["message"]


@pytest.fixture
def natural(ask):
    """The reasoning of QUESTION as the model itself ends it: text and length."""
    body, _, _ = ask(Wish.THINK)
    assert body["lhrm"]["reasoning_ended_by"] == "model"
    return message(body)["reasoning"], body["lhrm"]["reasoning_tokens"]


def test_a_budget_is_exact_to_the_token_at_every_length(ask, natural):
    reasoning, length = natural
    assert length > 8
    for budget in range(1, length):
        body, _, calls = ask(Wish.THINK, budget=budget)
        assert body["lhrm"]["reasoning_tokens"] == budget
        assert body["lhrm"]["reasoning_ended_by"] == "budget"
        assert reasoning.startswith(message(body)["reasoning"].rstrip("\ufffd"))
        (_, thought), (answer_call, answered) = calls
        assert len(thought) == budget
        assert answer_call.prompt_ids[-budget - 1 :] == (*thought, TAGS.think_end)
        assert body["usage"]["completion_tokens"] == budget + 1 + len(answered)
    for budget in (length + 1, length + 40):
        body, _, _ = ask(Wish.THINK, budget=budget)
        assert (body["lhrm"]["reasoning_tokens"], message(body)["reasoning"]) == (length, reasoning)
        assert body["lhrm"]["reasoning_ended_by"] == "model"


def test_a_budget_leaves_the_answer_as_long_as_it_wants_to_be(ask, natural):
    plain, _, _ = ask(Wish.THINK)
    bounded, _, _ = ask(Wish.THINK, budget=natural[1] + 1)
    assert message(bounded)["content"] == message(plain)["content"]
    assert bounded["usage"] == plain["usage"]


def test_a_reserve_gives_an_answer_where_thinking_alone_would_fill_the_limit(ask, natural):
    limit = natural[1] - 2
    without, _, _ = ask(Wish.THINK, max_tokens=limit)
    assert (message(without)["content"], without["choices"][0]["lhrm"]["answer_missing"]) == ("", "length")
    body, _, _ = ask(Wish.THINK, max_tokens=limit, answer_reserve=4)
    assert message(body)["content"]
    assert body["lhrm"]["reasoning_tokens"] == limit - min(4, limit // 2) - 1
    assert body["usage"]["completion_tokens"] <= limit


SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "integer", "minimum": 0, "maximum": 999999}, "sure": {"type": "boolean"}},
    "required": ["answer", "sure"],
    "additionalProperties": False,
}
JSON = AnswerPlan(grammar=Grammar("json", json.dumps(SCHEMA)))


@pytest.mark.parametrize("wish", [Wish.THINK, Wish.NO_THINK])
def test_a_schema_binds_the_answer_and_leaves_the_reasoning_alone(ask, natural, wish):
    body, _, _ = ask(wish, answer=JSON)
    value = json.loads(message(body)["content"])
    assert set(value) == {"answer", "sure"}
    assert (type(value["answer"]), type(value["sure"])) == (int, bool)
    assert message(body)["reasoning"] == (natural[0] if wish is Wish.THINK else None)
    assert (body["lhrm"]["ended_by"], body["choices"][0]["finish_reason"]) == ("stop", "stop")


@pytest.mark.parametrize("wish", [Wish.THINK, Wish.NO_THINK])
def test_a_choice_and_a_regular_expression(ask, natural, wish):
    body, _, _ = ask(wish, answer=AnswerPlan(grammar=Grammar("choice", '["alpha", "beta"]')))
    assert message(body)["content"] in ("alpha", "beta")
    body, _, _ = ask(wish, answer=AnswerPlan(grammar=Grammar("regex", "[a-c]{3}-[0-9]{2}")))
    first, _, second = message(body)["content"].partition("-")
    assert (len(first), len(second)) == (3, 2)
    assert set(first) <= set("abc")
    assert second.isdigit()


def test_a_schema_that_cannot_be_compiled_is_refused(ask):
    with pytest.raises(RequestRefusedError):
        ask(Wish.NO_THINK, answer=AnswerPlan(grammar=Grammar("json", '{"type": "nonsense"}')))


CALLS = {
    "type": "array",
    "minItems": 1,
    "maxItems": 2,
    "items": {
        "type": "object",
        "properties": {
            "name": {"enum": ["add"]},
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}},
                "required": ["a"],
                "additionalProperties": False,
            },
        },
        "required": ["name", "parameters"],
        "additionalProperties": False,
    },
}


@pytest.mark.parametrize("wish", [Wish.THINK, Wish.NO_THINK])
def test_required_and_named_tools_are_called(ask, natural, wish):
    required = AnswerPlan(grammar=Grammar("json", json.dumps(CALLS)), tools=ToolPlan("required"))
    body, _, _ = ask(wish, answer=required)
    calls = message(body)["tool_calls"]
    assert 1 <= len(calls) <= 2
    for call in calls:
        assert call["function"]["name"] == "add"
        assert set(json.loads(call["function"]["arguments"])) == {"a"}
    assert (body["choices"][0]["finish_reason"], message(body)["content"]) == ("tool_calls", None)
    schema = json.dumps(CALLS["items"]["properties"]["parameters"])
    named = AnswerPlan(grammar=Grammar("json", schema), tools=ToolPlan("named", "add"))
    body, _, _ = ask(wish, answer=named)
    (call,) = message(body)["tool_calls"]
    assert set(json.loads(call["function"]["arguments"])) == {"a"}
    assert body["choices"][0]["finish_reason"] == "stop"
    assert message(body)["reasoning"] == (natural[0] if wish is Wish.THINK else None)


@pytest.mark.parametrize("wish", [Wish.THINK, Wish.NO_THINK])
def test_every_part_of_an_answer_can_stop_it(ask, wish):
    plain, _, _ = ask(wish)
    content = message(plain)["content"]
    assert len(content) > 3
    for start in range(len(content) - 1):
        stop = content[start : start + 2]
        body, _, _ = ask(wish, answer=AnswerPlan(stop=(stop,)))
        assert message(body)["content"] == content[: content.index(stop)]
        assert message(body)["reasoning"] == message(plain)["reasoning"]
        assert (body["choices"][0]["stop_reason"], body["choices"][0]["finish_reason"]) == (stop, "stop")
        assert body["usage"]["completion_tokens"] < plain["usage"]["completion_tokens"]


def test_a_stop_string_in_the_reasoning_has_no_effect(ask, natural):
    plain, _, _ = ask(Wish.THINK)
    only_there = next(
        natural[0][i : i + 3]
        for i in range(len(natural[0]) - 2)
        if natural[0][i : i + 3] not in message(plain)["content"]
    )
    body, _, _ = ask(Wish.THINK, answer=AnswerPlan(stop=(only_there,)))
    assert body["choices"][0]["message"] == plain["choices"][0]["message"]
    assert body["choices"][0]["stop_reason"] is None


@pytest.mark.parametrize("wish", [Wish.THINK, Wish.NO_THINK])
@pytest.mark.parametrize("top", [0, 3])
def test_log_probabilities_spell_the_answer_and_are_the_engines_own(ask, loop_thread, vllm_engine, natural, wish, top):
    plain, _, _ = ask(wish)
    body, events, calls = ask(wish, answer=AnswerPlan(top_logprobs=top))
    assert message(body) == message(plain)
    assert body["usage"] == plain["usage"]
    found = entries(events)
    assert b"".join(entry.data for entry in found).decode() == message(body)["content"]
    request, ids = calls[-1]
    sampling = replace(request.sampling, top_logprobs=5)
    truth = loop_thread.run(collect(vllm_engine.generate(GenerationRequest("truth", request.prompt_ids, sampling))))
    rows = [row for delta in truth for row in delta.logprobs]
    assert [i for delta in truth for i in delta.token_ids] == ids
    assert len(found) == body["lhrm"]["answer_tokens"]
    for entry, token, row in zip(found, ids, rows, strict=False):
        assert entry.data == TOKENIZER.token_bytes(token)
        assert entry.logprob == pytest.approx(row[token], abs=0.05)
        best = sorted(row.values(), reverse=True)[:top]
        assert [value for _, value in entry.top] == pytest.approx(best, abs=0.05)
    assert all(entry.logprob <= 0 and math.isfinite(entry.logprob) for entry in found)


def test_a_bias_moves_the_answer_only(ask, natural):
    body, _, _ = ask(Wish.THINK, max_tokens=natural[1] + 8, answer=AnswerPlan(logit_bias={40: 100.0}))
    assert message(body)["reasoning"] == natural[0]
    assert message(body)["content"] == TOKENIZER.decode([40] * 7)


@pytest.mark.parametrize("wish", list(Wish))
def test_several_choices_are_what_single_requests_with_their_seeds_give(ask, wish):
    text = "Reverse the word planet, please, and tell me a story."
    fields = {"temperature": 2.0, "max_tokens": 60}
    body, _, calls = ask(wish, text, n=3, seed=11, **fields)
    singles = [ask(wish, text, seed=11 + index, **fields)[0] for index in range(3)]
    for index, single in enumerate(singles):
        assert message(body, index) == message(single)
        assert body["choices"][index]["lhrm"] == single["choices"][0]["lhrm"]
    assert len({json.dumps(message(body, index)) for index in range(3)}) > 1
    reasoning = sum(single["lhrm"]["reasoning_tokens"] for single in singles)
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == reasoning
    generated = [ids for request, ids in calls if not request.request_id.endswith("decide")]
    assert body["usage"]["completion_tokens"] == sum(map(len, generated))
    assert len([1 for request, _ in calls if request.request_id.endswith("decide")]) == (wish is Wish.AUTO)


def test_reasoning_counts_the_same_chosen_and_forced(ask):
    chosen, _, _ = ask(Wish.AUTO)
    forced, _, _ = ask(Wish.THINK)
    assert (chosen["lhrm"]["mode"], chosen["lhrm"]["source"]) == ("think", "model")
    assert chosen["usage"] == forced["usage"]
    assert message(chosen) == message(forced)


def test_a_disconnect_aborts_every_choice(loop_thread, vllm_engine):
    watched = Watched(vllm_engine)
    rig = Rig(engine=watched)
    asked = job(Wish.NO_THINK, n=4, max_tokens=900, answer=AnswerPlan(logit_bias={40: 100.0}))

    async def leave_early():
        async with aclosing(rig.pipeline.run(asked)) as events:
            seen = set()
            async for event in events:
                if isinstance(event, Generated):
                    seen.add(event.index)
                if len(seen) == 4:
                    break
            assert watched.running == 4
        running = watched.running
        # The slots are free again: a request of worse priority is served at once.
        request = GenerationRequest("after", asked.prompt.ids, Sampling(2, allowed_token_ids=(41,)), priority=9)
        async with asyncio.timeout(5):
            return running, await collect(vllm_engine.generate(request))

    running, deltas = loop_thread.run(leave_early())
    assert running == 0
    assert [i for delta in deltas for i in delta.token_ids] == [41] * 2
    (record,) = rig.records
    assert record.ended_by is Ending.ABORT
    assert [choice.ended_by for choice in record.choices] == [Ending.ABORT] * 4


def test_a_retry_answers_what_ended_in_the_reasoning(loop_thread, vllm_engine):
    class EndsEarly(Watched):
        """The model is made to end its turn within the reasoning."""

        async def generate(self, request):
            if request.prompt_ids[-1] == TAGS.think:
                sampling = replace(request.sampling, max_tokens=1, allowed_token_ids=(END,))
                request = replace(request, sampling=sampling)
            async with aclosing(super().generate(request)) as deltas:
                async for delta in deltas:
                    yield delta

    asked = job(Wish.THINK, text="What is the capital of France?", retry_unanswered=True, temperature=0.0)
    events = loop_thread.run(Rig(engine=EndsEarly(vllm_engine)).job(asked))
    body = same(asked, events)
    assert message(body)["content"].strip(" .") == "Paris"
    assert body["choices"][0]["lhrm"]["answer_retried"] is True
    choice = record_of(events).choices[0]
    assert (choice.reasoning, choice.anomalies) == (0, ("unclosed",))
    assert asked.prompt.opened(TOKENIZER, Mode.NO_THINK)[-1] == TAGS.no_think
