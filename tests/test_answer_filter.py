"""Log-probabilities, stop strings and tools on the ids of one answer, for every chunking."""

import math
from itertools import pairwise

import pytest
from gateway_fixtures import load_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from lhrm_server.answer_filter import AnswerFilter, answer_filter
from lhrm_server.answer_plan import AnswerPlan, ToolPlan
from lhrm_server.deltas import AnswerDelta, TokenLogprob, ToolCallDelta
from lhrm_server.engine import EngineError, Grammar

TOKENIZER = load_tokenizer()
PLAIN = AnswerPlan(top_logprobs=0)


def ids(text):
    return tuple(TOKENIZER.encode_text(text))


def row(token):
    return {token: -0.5, 7: -1.0, 8: -2.0} if token not in (7, 8) else {7: -1.0, 8: -2.0}


def run(plan, tokens, *cuts, rows=None):
    """Feed ids in chunks as the pipeline does, one by one up to a stop; return text, entries, calls and the stop."""
    taken = AnswerFilter(TOKENIZER, plan)
    edges = [0, *sorted(min(cut, len(tokens)) for cut in cuts), len(tokens)]
    deltas = []
    for chunk in [tokens[a:b] for a, b in pairwise(edges)]:
        taken.expect(rows or [row(token) for token in chunk])
        for token in chunk:
            if taken.stopped is None:
                deltas += taken.feed((token,))
    deltas += taken.finish()
    text = "".join(delta.text for delta in deltas if isinstance(delta, AnswerDelta))
    entries = [entry for delta in deltas if isinstance(delta, AnswerDelta) for entry in delta.logprobs]
    return text, entries, [d.arguments for d in deltas if isinstance(d, ToolCallDelta)], taken.stopped


def test_plans_without_a_need_have_no_filter():
    assert answer_filter(TOKENIZER, AnswerPlan()) is None
    assert answer_filter(TOKENIZER, AnswerPlan(logit_bias={1: 2.0}, grammar=Grammar("regex", "a"))) is None
    for plan in (AnswerPlan(stop=("a",)), PLAIN, AnswerPlan(tools=ToolPlan("auto"))):
        assert answer_filter(TOKENIZER, plan) is not None


def test_entries_spell_the_text_and_have_the_asked_number_of_candidates():
    tokens = ids("Café 🤔 ok")
    for top in (0, 1, 2, 3):
        text, entries, _, _ = run(AnswerPlan(top_logprobs=top), tokens)
        assert text == "Café 🤔 ok"
        assert b"".join(entry.data for entry in entries).decode() == text
        assert [entry.data for entry in entries] == [TOKENIZER.token_bytes(token) for token in tokens]
        assert all(entry.logprob == -0.5 for entry in entries)
        first = [(TOKENIZER.token_bytes(tokens[0]), -0.5), (TOKENIZER.token_bytes(7), -1.0)]
        assert list(entries[0].top)[:2] == first[:top]
        assert len(entries[0].top) == top


def test_the_sampled_token_need_not_be_among_the_best():
    tokens = ids("a")
    (entry,) = run(AnswerPlan(top_logprobs=1), tokens, rows=[{tokens[0]: -3.0, 9: -0.1}])[1]
    assert entry == TokenLogprob(b"a", -3.0, ((TOKENIZER.token_bytes(9), -0.1),))


def test_infinity_becomes_a_number_that_json_has():
    tokens = ids("a")
    (entry,) = run(AnswerPlan(top_logprobs=1), tokens, rows=[{tokens[0]: -math.inf}])[1]
    assert (entry.logprob, entry.top) == (-9999.0, ((b"a", -9999.0),))


@pytest.mark.parametrize("rows", [[], [{}]])
def test_an_engine_that_gives_no_log_probability_is_an_error(rows):
    taken = AnswerFilter(TOKENIZER, PLAIN)
    taken.expect(rows)
    with pytest.raises(EngineError, match="no log-probability"):
        taken.feed(ids("a"))


def test_entries_go_out_with_the_text_they_begin():
    emoji = ids("🤔")
    assert len(emoji) == 4, "this test is about a character of several tokens"
    taken = AnswerFilter(TOKENIZER, PLAIN)
    taken.expect([row(token) for token in emoji])
    assert [taken.feed((token,)) for token in emoji[:3]] == [[], [], []]
    (delta,) = taken.feed(emoji[3:])
    assert (delta.text, len(delta.logprobs)) == ("🤔", 4)


@pytest.mark.parametrize(
    ("text", "stop", "kept", "spelled"),
    [
        ("ab cd", " ", "ab", b"ab"),
        ("ab🤔cd", "🤔", "ab", b"ab"),
        ("a🤔b", "b", "a🤔", "a🤔".encode()),
        ("ab", "a", "", b""),
    ],
)
def test_entries_in_and_behind_a_stop_string_are_dropped(text, stop, kept, spelled):
    given_out, entries, _, stopped = run(AnswerPlan(stop=(stop,), top_logprobs=0), ids(text))
    assert (given_out, stopped) == (kept, stop)
    assert b"".join(entry.data for entry in entries) == spelled


def test_a_token_that_begins_in_front_of_the_cut_is_kept_whole():
    both = (TOKENIZER.token_bytes(token).decode("latin-1") for token in range(TOKENIZER.vocab_size))
    token, first, last = next(
        (token, *text) for token, text in enumerate(both) if len(text) == 2 and text.isalpha() and text.isascii()
    )
    text, entries, _, _ = run(AnswerPlan(stop=(last,), top_logprobs=0), (token,))
    assert (text, [entry.data for entry in entries]) == (first, [f"{first}{last}".encode()])


def test_half_characters_in_front_of_a_stop_string_keep_their_entries():
    tokens = (*ids("🤔")[:2], *ids("xy"))
    text, entries, _, stopped = run(AnswerPlan(stop=("x",), top_logprobs=0), tokens)
    assert (text, stopped) == ("\ufffd", "x")
    assert [entry.data for entry in entries] == [TOKENIZER.token_bytes(token) for token in tokens[:2]]


def test_an_unfinished_character_at_the_end_is_given_with_its_entries():
    tokens = ids("🤔")[:3]
    text, entries, _, _ = run(PLAIN, tokens)
    assert text == "\ufffd"
    assert len(entries) == 3


def test_tool_calls_come_out_and_entries_cover_the_answer_as_generated():
    written = 'x <tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
    text, entries, calls, _ = run(AnswerPlan(top_logprobs=0, tools=ToolPlan("auto")), ids(written))
    assert (text, calls) == ("x", ['{"a": 1}'])
    assert b"".join(entry.data for entry in entries).decode() == written


def test_a_stop_string_cuts_before_tools_are_read():
    written = '<tool_call>{"name": "f"}</tool_call>STOP<tool_call>{"name": "g"}</tool_call>'
    plan = AnswerPlan(stop=("STOP",), tools=ToolPlan("auto"))
    assert run(plan, ids(written)) == ("", [], ["{}"], "STOP")


TOKENS = st.lists(st.integers(0, TOKENIZER.vocab_size + 2), max_size=30) | st.text(max_size=12).map(ids)


@given(
    TOKENS.map(tuple),
    st.lists(st.text("abe t\ufffd", min_size=1, max_size=3), max_size=3).map(tuple),
    st.sampled_from([None, 0, 2]),
    st.lists(st.integers(0, 30), max_size=5),
)
def test_any_split_gives_the_same(tokens, stops, top, cuts):
    plan = AnswerPlan(stop=stops, top_logprobs=top)
    whole = run(plan, tokens)
    assert run(plan, tokens, *cuts) == whole
    assert run(plan, tokens, *range(len(tokens))) == whole
    text, entries, _, stopped = whole
    spelled = b"".join(entry.data for entry in entries).decode("utf-8", "replace")
    if top is not None:
        assert spelled.startswith(text)
        if stopped is None:
            assert spelled == text
    all_text = b"".join(map(TOKENIZER.token_bytes, tokens)).decode("utf-8", "replace")
    assert all_text.startswith(text)
    if stopped is not None:
        assert all_text[len(text) :].startswith(stopped)
    assert not any(stop in text for stop in stops)
