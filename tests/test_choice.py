"""The calls that one choice takes, and what its limits, budgets and constraints make of the script's ids."""

import asyncio

import pytest
from gateway_fixtures import think
from hypothesis import given
from hypothesis import strategies as st
from lhrm_server.accounting import Ending, ReasoningEnding
from lhrm_server.answer_plan import AnswerPlan, ToolPlan
from lhrm_server.choice import reasoning_budget
from lhrm_server.control import Wish
from lhrm_server.deltas import AnswerDelta, ReasoningDelta, ToolCallDelta
from lhrm_server.engine import (
    ANSWER_PRIORITY,
    DECIDE_PRIORITY,
    GENERATE_PRIORITY,
    Grammar,
    RequestRefusedError,
    Sampling,
)
from lhrm_server.policy import Source
from pipeline_rig import TOKENIZER, Plan, Rig, deltas, entries, job, record_of, spelled

TAGS, END = TOKENIZER.tags, TOKENIZER.turn_end_id
REASONING, ANSWER = tuple(TOKENIZER.encode_text("abcde")), tuple(TOKENIZER.encode_text("xy"))
BODY = (*REASONING, TAGS.think_end, *ANSWER, END)
NATURAL = len(REASONING)
assert NATURAL >= 3
JSON = AnswerPlan(grammar=Grammar("json", '{"type": "object"}'))


async def run(asked, **script):
    rig = Rig(**{"think_ids": BODY, **script})
    events = await rig.job(asked)
    return rig, events, record_of(events).choices[0]


def texts(events):
    return spelled(events, ReasoningDelta), spelled(events, AnswerDelta)


def figures(choice):
    return choice.reasoning, choice.answer, choice.overhead


async def test_a_plain_request_is_one_call_without_any_constraint():
    rig, events, choice = await run(job(Wish.THINK))
    (request,) = rig.engine.requests
    assert request.sampling == Sampling(200)
    assert texts(events) == ("abcde", "xy")
    assert figures(choice) == (NATURAL, len(ANSWER), 2)


@pytest.mark.parametrize("chunks", [(1,), (2, 3), (100,)])
async def test_an_answer_with_a_grammar_is_a_call_of_its_own_behind_the_reasoning(chunks):
    answer = tuple(TOKENIZER.encode_text('{"a":1}'))
    rig, events, choice = await run(
        job(Wish.THINK, temperature=0.5, seed=3, answer=JSON), grammar_ids=(*answer, END), chunks=chunks
    )
    first, second = rig.engine.requests
    assert first.sampling == Sampling(200, temperature=0.5, seed=3, stop_token_ids=(TAGS.think_end,))
    assert second.sampling == Sampling(200 - NATURAL - 1, temperature=0.5, seed=3, grammar=JSON.grammar)
    assert second.prompt_ids == (*first.prompt_ids, *REASONING, TAGS.think_end)
    assert second.priority == ANSWER_PRIORITY < first.priority == GENERATE_PRIORITY < DECIDE_PRIORITY
    assert texts(events) == ("abcde", '{"a":1}')
    assert figures(choice) == (NATURAL, len(answer), 2)
    assert (choice.ended_by, choice.reasoning_ended_by) == (Ending.STOP, ReasoningEnding.MODEL)


async def test_a_no_think_answer_with_constraints_is_one_call():
    bias = {40: 100.0}
    asked = job(Wish.NO_THINK, max_tokens=3, answer=AnswerPlan(top_logprobs=2, logit_bias=bias))
    rig, events, choice = await run(asked)
    (request,) = rig.engine.requests
    assert request.sampling == Sampling(3, top_logprobs=2, logit_bias=bias)
    assert spelled(events, AnswerDelta) == TOKENIZER.decode((40,) * 3)
    assert [entry.data for entry in entries(events)] == [TOKENIZER.token_bytes(40)] * 3
    assert figures(choice) == (0, 3, 0)


async def test_a_grammar_in_no_think_mode_leaves_the_closing_tag_out_and_that_is_no_anomaly():
    answer = tuple(TOKENIZER.encode_text("{}"))
    _, _, choice = await run(job(Wish.NO_THINK, answer=JSON), grammar_ids=(*answer, END))
    assert (figures(choice), choice.anomalies) == ((0, len(answer), 1), ())
    _, _, choice = await run(job(Wish.NO_THINK), no_think_ids=(*answer, END))
    assert choice.anomalies == ("unclosed",)


async def test_bias_and_log_probabilities_never_touch_the_reasoning():
    answer = AnswerPlan(top_logprobs=1, logit_bias={40: 1.0})
    rig, events, choice = await run(job(Wish.THINK, answer=answer))
    first, second = rig.engine.requests
    assert (first.sampling.top_logprobs, first.sampling.logit_bias) == (None, {})
    assert (second.sampling.top_logprobs, second.sampling.logit_bias) == (1, {40: 1.0})
    found = entries(events)
    assert b"".join(entry.data for entry in found) == b"xy"
    assert len(found) == choice.answer
    assert [entry.top for entry in found] == [((entry.data, entry.logprob),) for entry in found]


@pytest.mark.parametrize("chunks", [(1,), (2, 3), (100,)])
@pytest.mark.parametrize("budget", range(1, NATURAL))
async def test_a_budget_below_the_natural_length_is_exact_to_the_token(budget, chunks):
    rig, events, choice = await run(job(Wish.THINK, budget=budget), chunks=chunks)
    first, second = rig.engine.requests
    assert first.sampling.max_tokens == budget
    assert second.prompt_ids == (*first.prompt_ids, *REASONING[:budget], TAGS.think_end)
    assert second.sampling == Sampling(200 - budget - 1)
    assert choice.reasoning_ended_by is ReasoningEnding.BUDGET
    assert figures(choice) == (budget, len(ANSWER), 2)
    assert texts(events) == (TOKENIZER.decode(REASONING[:budget]), "xy")
    assert choice.anomalies == ()


async def test_a_budget_that_equals_the_natural_length_ends_the_reasoning_before_its_tag_can_come():
    _, _, choice = await run(job(Wish.THINK, budget=NATURAL))
    assert (choice.reasoning, choice.reasoning_ended_by) == (NATURAL, ReasoningEnding.BUDGET)


@pytest.mark.parametrize("budget", [NATURAL + 1, NATURAL + 50])
async def test_a_budget_above_the_natural_length_changes_nothing(budget):
    rig, events, choice = await run(job(Wish.THINK, budget=budget))
    assert (choice.reasoning, choice.reasoning_ended_by) == (NATURAL, ReasoningEnding.MODEL)
    assert texts(events) == ("abcde", "xy")
    assert len(rig.engine.requests) == 2


@pytest.mark.parametrize("budget", [200, 10_000])
async def test_a_budget_that_the_limit_makes_void_costs_no_second_call(budget):
    rig, _, choice = await run(job(Wish.THINK, budget=budget))
    assert len(rig.engine.requests) == 1
    assert choice.reasoning_ended_by is ReasoningEnding.MODEL


async def test_a_budget_does_not_touch_no_think_mode():
    rig, _, _ = await run(job(Wish.NO_THINK, budget=2))
    assert [request.sampling for request in rig.engine.requests] == [Sampling(200)]


async def test_an_empty_budget_closes_the_reasoning_at_once():
    rig, events, choice = await run(job(Wish.THINK, budget=0))
    (request,) = rig.engine.requests
    assert request.prompt_ids[-2:] == (TAGS.think, TAGS.think_end)
    assert figures(choice) == (0, len(ANSWER), 2)
    assert texts(events) == ("", "xy")


@pytest.mark.parametrize(
    ("max_tokens", "fields", "counts", "reasoning"),
    [
        (2, {"budget": 1}, (1, 0, 1), ReasoningEnding.BUDGET),
        (1, {"budget": 0}, (0, 0, 1), ReasoningEnding.BUDGET),
        (NATURAL, {"answer": JSON}, (NATURAL, 0, 0), ReasoningEnding.LENGTH),
        (NATURAL + 1, {"answer": JSON}, (NATURAL, 0, 1), ReasoningEnding.MODEL),
        (NATURAL + 1, {"budget": NATURAL}, (NATURAL, 0, 1), ReasoningEnding.BUDGET),
    ],
)
async def test_nothing_left_for_the_answer_is_an_ending_by_length(max_tokens, fields, counts, reasoning):
    _, _, choice = await run(job(Wish.THINK, max_tokens=max_tokens, **fields))
    assert figures(choice) == counts
    assert (choice.ended_by, choice.reasoning_ended_by) == (Ending.LENGTH, reasoning)
    assert choice.answer_missing == "length"


@pytest.mark.parametrize(
    ("limit", "budget", "reserve", "expected"),
    [
        (100, None, 0, None),
        (100, 30, 0, 30),
        (100, 100, 0, None),
        (100, 99, 0, 99),
        (100, None, 20, 79),
        (100, 50, 20, 50),
        (100, 90, 20, 79),
        # The reserve is at most half of the limit.
        (100, None, 80, 49),
        (3, None, 9, 1),
        (2, None, 9, 0),
        (1, None, 9, 0),
    ],
)
def test_the_tighter_of_budget_and_reserve_counts(limit, budget, reserve, expected):
    plan = Plan(Wish.THINK, Source.REQUEST, 0.5, budget, reserve)
    assert reasoning_budget(plan, limit) == expected


async def test_the_reserve_keeps_room_for_an_answer():
    limit = NATURAL
    _, _, choice = await run(job(Wish.THINK, max_tokens=limit, answer_reserve=2))
    assert choice.reasoning == limit - 3
    assert choice.answer == 2
    assert choice.reasoning_ended_by is ReasoningEnding.BUDGET


@pytest.mark.parametrize(("max_tokens", "answer"), [(200, "xy"), (3, "x"), (2, "")])
async def test_half_a_character_at_the_budget_is_given_once(max_tokens, answer):
    emoji = tuple(TOKENIZER.encode_text("🤔"))
    assert len(emoji) > 1
    body = (*emoji, TAGS.think_end, *ANSWER, END)
    _, events, choice = await run(job(Wish.THINK, max_tokens=max_tokens, budget=1), think_ids=body)
    assert texts(events) == ("\ufffd", answer)
    assert (choice.reasoning, choice.completion) == (1, min(max_tokens, 2 + len(ANSWER) + 1))


EOS_BODY = (*REASONING, END)


@pytest.mark.parametrize("fields", [{}, {"budget": 50}, {"answer": JSON}])
async def test_an_end_of_turn_in_the_reasoning_is_stated(fields):
    _, events, choice = await run(job(Wish.THINK, **fields), think_ids=EOS_BODY)
    assert (choice.ended_by, choice.reasoning_ended_by, choice.answer_missing) == (
        Ending.STOP,
        ReasoningEnding.EOS,
        "eos",
    )
    assert (choice.answer_retried, choice.anomalies) == (False, ("unclosed",))
    assert texts(events) == ("abcde", "")


@pytest.mark.parametrize("fields", [{}, {"budget": 50}])
async def test_a_retry_asks_once_more_without_thinking(fields):
    retry = (*ANSWER, TAGS.no_think_end, END)
    rig, events, choice = await run(
        job(Wish.THINK, retry_unanswered=True, **fields), think_ids=EOS_BODY, no_think_ids=retry
    )
    first, second = rig.engine.requests
    assert second.prompt_ids == (*first.prompt_ids[:-1], TAGS.no_think)
    assert second.sampling == Sampling(200 - NATURAL - 1)
    assert texts(events) == ("abcde", "xy")
    assert figures(choice) == (NATURAL, len(ANSWER), 3)
    assert (choice.ended_by, choice.reasoning_ended_by) == (Ending.STOP, ReasoningEnding.EOS)
    assert (choice.answer_retried, choice.answer_missing) == (True, None)
    assert rig.metrics.registry.get_sample_value("lhrm_answers_retried_total", {"model": "m"}) == 1


async def test_half_a_character_of_the_reasoning_is_not_lost_in_a_retry():
    # Some engines end a sequence without an id for it.
    half = tuple(TOKENIZER.encode_text("é"))[:1]
    assert TOKENIZER.decode(half) == "\ufffd"
    retry = (*ANSWER, TAGS.no_think_end, END)
    _, events, choice = await run(
        job(Wish.THINK, retry_unanswered=True), think_ids=(*REASONING, *half), no_think_ids=retry
    )
    assert texts(events) == ("abcde\ufffd", "xy")
    kinds = [type(delta) for delta in deltas(events)]
    assert kinds.index(AnswerDelta) == kinds.count(ReasoningDelta)
    assert choice.answer_retried


async def test_a_retry_keeps_what_was_asked_of_the_answer_and_tries_only_once():
    answer = AnswerPlan(stop=("y",), grammar=JSON.grammar)
    rig, events, choice = await run(
        job(Wish.THINK, retry_unanswered=True, answer=answer),
        think_ids=EOS_BODY,
        grammar_ids=tuple(TOKENIZER.encode_text("xyz")),
    )
    assert rig.engine.requests[1].sampling.grammar == JSON.grammar
    assert (spelled(events, AnswerDelta), choice.stop_string) == ("x", "y")
    rig, _, choice = await run(job(Wish.THINK, retry_unanswered=True), think_ids=EOS_BODY, no_think_ids=(END,))
    assert (len(rig.engine.requests), choice.answer_missing) == (2, "empty")


async def test_no_retry_where_nothing_is_left_or_the_reasoning_was_closed():
    rig, _, choice = await run(job(Wish.THINK, max_tokens=NATURAL + 1, retry_unanswered=True), think_ids=EOS_BODY)
    assert (len(rig.engine.requests), choice.answer_missing) == (1, "eos")
    rig, _, choice = await run(job(Wish.THINK, retry_unanswered=True), think_ids=think(TOKENIZER, "r", ""))
    assert (len(rig.engine.requests), choice.answer_missing) == (1, "empty")
    rig, _, choice = await run(job(Wish.NO_THINK, retry_unanswered=True), no_think_ids=(END,))
    assert (len(rig.engine.requests), choice.answer_missing) == (1, "empty")


@pytest.mark.parametrize("chunks", [(1,), (3,), (100,)])
async def test_a_stop_string_cuts_the_answer_and_aborts_the_call(chunks):
    body = think(TOKENIZER, "a STOP b", "one STOP two")
    rig, events, choice = await run(job(Wish.THINK, answer=AnswerPlan(stop=("STOP",))), think_ids=body, chunks=chunks)
    assert texts(events) == ("a STOP b", "one ")
    assert (choice.ended_by, choice.stop_string, choice.answer_missing) == (Ending.STOP, "STOP", None)
    answer = TOKENIZER.encode_text("one STOP two")
    until = next(n for n in range(len(answer)) if "STOP" in TOKENIZER.decode(answer[:n]))
    assert figures(choice) == (len(TOKENIZER.encode_text("a STOP b")), until, 1)
    assert rig.engine.active == 0
    if chunks != (100,):
        assert rig.engine.aborted == 1
    assert choice.anomalies == ()


async def test_an_answer_that_is_cut_at_once_says_so():
    _, events, choice = await run(job(Wish.THINK, answer=AnswerPlan(stop=("x",))))
    assert (spelled(events, AnswerDelta), choice.answer_missing) == ("", "stop")


@pytest.mark.parametrize("stop", ["</think>", "<think>", "</no_think>"])
async def test_a_tag_as_stop_string_matches_text_of_the_answer_only(stop):
    answer = AnswerPlan(stop=(stop,))
    _, events, choice = await run(job(Wish.THINK, answer=answer), think_ids=think(TOKENIZER, "r", f"a{stop}b"))
    assert (texts(events), choice.stop_string) == (("r", "a"), stop)
    _, events, choice = await run(job(Wish.THINK, answer=answer))
    assert (texts(events), choice.stop_string) == (("abcde", "xy"), None)


CALL = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'


@pytest.mark.parametrize("wish", [Wish.THINK, Wish.NO_THINK])
async def test_tool_calls_end_a_choice_their_own_way(wish):
    rig = Rig(
        think_ids=think(TOKENIZER, "r", CALL), no_think_ids=(*TOKENIZER.encode_text(CALL), TAGS.no_think_end, END)
    )
    events = await rig.events(wish, answer=AnswerPlan(tools=ToolPlan("auto")))
    (call,) = [delta for delta in deltas(events) if isinstance(delta, ToolCallDelta)]
    assert (call.name, call.arguments) == ("f", '{"a": 1}')
    choice = record_of(events).choices[0]
    assert (choice.ended_by, choice.answer_missing, choice.anomalies) == (Ending.TOOL_CALLS, None, ())
    assert len(rig.engine.requests) == 1


async def test_a_call_written_into_the_reasoning_is_no_call():
    _, events, choice = await run(
        job(Wish.THINK, answer=AnswerPlan(tools=ToolPlan("auto"))), think_ids=think(TOKENIZER, CALL, "a")
    )
    assert (texts(events), choice.ended_by) == ((CALL, "a"), Ending.STOP)


@pytest.mark.parametrize(
    ("plan", "written", "ended_by"),
    [
        (ToolPlan("required"), '[{"name": "f", "parameters": {"a": 1}}]', Ending.TOOL_CALLS),
        (ToolPlan("named", "f"), '{"a": 1}', Ending.STOP),
    ],
)
async def test_required_and_named_tools_come_out_of_a_grammar(plan, written, ended_by):
    answer = AnswerPlan(grammar=Grammar("json", "{}"), tools=plan)
    rig, events, choice = await run(job(Wish.THINK, answer=answer), grammar_ids=(*TOKENIZER.encode_text(written), END))
    calls = [delta for delta in deltas(events) if isinstance(delta, ToolCallDelta)]
    assert (calls[0].name, "".join(call.arguments for call in calls)) == ("f", '{"a": 1}')
    assert (choice.ended_by, choice.answer_missing, len(rig.engine.requests)) == (ended_by, None, 2)


async def test_a_malformed_call_is_text_and_an_anomaly_but_a_cut_one_only_text():
    tools = AnswerPlan(tools=ToolPlan("auto"))
    broken = "<tool_call>?</tool_call>"
    _, events, choice = await run(job(Wish.THINK, answer=tools), think_ids=think(TOKENIZER, "r", broken))
    assert (texts(events)[1], choice.anomalies) == (broken, ("malformed_tool_call",))
    body = think(TOKENIZER, "r", CALL)
    _, events, choice = await run(job(Wish.THINK, max_tokens=len(body) - 3, answer=tools), think_ids=body)
    assert CALL.startswith(texts(events)[1])
    assert (choice.ended_by, choice.anomalies) == (Ending.LENGTH, ())


async def test_a_grammar_that_the_engine_refuses_is_told_apart():
    rig = Rig(think_ids=BODY)
    with pytest.raises(RequestRefusedError, match="malformed"):
        await rig.events(Wish.NO_THINK, answer=AnswerPlan(grammar=Grammar("json", "{")))
    assert [(record.ended_by.value, record.failure.value) for record in rig.records] == [("error", "refused")]


async def test_literal_tags_in_an_answer_stay_text_when_it_is_a_call_of_its_own():
    ids = (TAGS.think_end, TAGS.think, *ANSWER, TAGS.no_think_end, END)
    _, events, _ = await run(job(Wish.THINK, answer=AnswerPlan(top_logprobs=0)), think_ids=(9, TAGS.think_end, *ids))
    assert spelled(events, AnswerDelta) == "</think><think>xy</no_think>"
    assert b"".join(entry.data for entry in entries(events)).decode() == "</think><think>xy</no_think>"


@given(
    st.integers(1, NATURAL + 6), st.none() | st.integers(0, NATURAL + 6), st.integers(0, 6), st.booleans(), st.data()
)
def test_counts_are_the_ids_and_never_above_the_limit(limit, budget, reserve, own_call, data):
    chunks = tuple(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    answer = AnswerPlan(logit_bias={1: 1.0}) if own_call else None
    asked = job(Wish.THINK, max_tokens=limit, budget=budget, answer_reserve=reserve, answer=answer)

    async def go():
        return await run(asked, chunks=chunks)

    rig, events, choice = asyncio.run(go())
    forced = choice.reasoning_ended_by is ReasoningEnding.BUDGET
    assert choice.completion == rig.engine.emitted_tokens + forced <= limit
    if budget is not None:
        assert choice.reasoning <= budget
    assert choice.completion == sum(figures(choice))
    # Whatever the limits, what comes out begins like what the model wrote.
    reasoning, text = texts(events)
    assert "abcde".startswith(reasoning)
    assert "xy".startswith(text)


PLAIN_IDS = st.lists(
    st.integers(0, TOKENIZER.vocab_size - 1).filter(lambda i: i not in (END, TAGS.think_end, TAGS.no_think_end)),
    max_size=8,
).map(tuple) | st.text(max_size=4).map(lambda text: tuple(TOKENIZER.encode_text(text)))


def as_text(ids):
    return b"".join(map(TOKENIZER.token_bytes, ids)).decode("utf-8", "replace")


@given(
    PLAIN_IDS,
    PLAIN_IDS,
    st.integers(1, 24),
    st.none() | st.integers(0, 12),
    st.sampled_from([None, AnswerPlan(logit_bias={1: 1.0}), AnswerPlan(top_logprobs=0), AnswerPlan(stop=("\n\n\n",))]),
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
)
def test_whatever_the_model_writes_comes_out_once_and_in_its_place(thought, said, limit, budget, answer, chunks):
    bound = budget is not None and budget < limit
    reasoning = thought[: min(budget if bound else limit, limit)]
    forced = bound and len(thought) >= budget
    closed = forced or len(thought) < limit
    room = limit - len(reasoning) - closed
    spoken = said[:room] if closed else ()
    asked = job(Wish.THINK, max_tokens=limit, budget=budget, answer=answer)
    script = {"think_ids": (*thought, TAGS.think_end, *said, END), "chunks": tuple(chunks)}
    _, events, choice = asyncio.run(run(asked, **script))
    if "\n\n\n" not in as_text(spoken):
        assert texts(events) == (as_text(reasoning), as_text(spoken))
        assert figures(choice) == (len(reasoning), len(spoken), closed + (closed and room > len(said)))
    if answer is not None and answer.top_logprobs is not None:
        assert [entry.data for entry in entries(events)] == [TOKENIZER.token_bytes(token) for token in spoken]
    expected = ReasoningEnding.BUDGET if forced else ReasoningEnding.MODEL if closed else ReasoningEnding.LENGTH
    assert choice.reasoning_ended_by is expected
