"""Tool calls in answers: complete calls out, everything else given back, the same for every chunking."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lhrm_server.answer_plan import ToolPlan
from lhrm_server.deltas import AnswerDelta, ToolCallDelta
from lhrm_server.tool_calls import tool_reader

AUTO, REQUIRED, NAMED = ToolPlan("auto"), ToolPlan("required"), ToolPlan("named", "add")
ADD = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'


def read(plan, *pieces):
    """Return the content, the calls as (name, arguments), and (malformed, unfinished)."""
    reader = tool_reader(plan)
    deltas = [delta for piece in pieces for delta in reader.feed(piece)] + reader.finish()
    content = "".join(delta.text for delta in deltas if isinstance(delta, AnswerDelta))
    calls = {}
    for delta in deltas:
        if isinstance(delta, ToolCallDelta):
            calls.setdefault(delta.index, []).append(delta)
    assert list(calls) == list(range(len(calls)))
    assert len(calls) == reader.calls
    joined = []
    for parts in calls.values():
        assert re.fullmatch(r"call_[0-9a-f]{24}", parts[0].call_id)
        assert [(part.call_id, part.name) for part in parts[1:]] == [(None, None)] * (len(parts) - 1)
        joined.append((parts[0].name, "".join(part.arguments for part in parts)))
    return content, joined, (reader.malformed, reader.unfinished)


FINE = (0, False)
HERMES = {
    "no call": ("just text < 3", ("just text < 3", [], FINE)),
    "one": (ADD, ("", [("add", '{"a": 1}')], FINE)),
    "text around": (f"Well:\n{ADD}\nDone.", ("Well:\nDone.", [("add", '{"a": 1}')], FINE)),
    "two": (f"{ADD}\n\n{ADD}\n", ("", [("add", '{"a": 1}')] * 2, FINE)),
    "without arguments": ('<tool_call>{"name": "now"}</tool_call>', ("", [("now", "{}")], FINE)),
    "not JSON": ("x <tool_call>{oops</tool_call> y", ("x <tool_call>{oops</tool_call> y", [], (1, False))),
    "no name": (
        '<tool_call>{"arguments": {}}</tool_call>',
        ('<tool_call>{"arguments": {}}</tool_call>', [], (1, False)),
    ),
    "arguments are a list": (
        '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
        ('<tool_call>{"name": "f", "arguments": [1]}</tool_call>', [], (1, False)),
    ),
    "not a number of JSON": (
        '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>',
        ('<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>', [], (1, False)),
    ),
    "lone surrogate": (
        '<tool_call>{"name": "f", "arguments": {"a": "\\ud800"}}</tool_call>',
        ('<tool_call>{"name": "f", "arguments": {"a": "\\ud800"}}</tool_call>', [], (1, False)),
    ),
    "nested too deep": (
        f"<tool_call>{'[' * 100_000}</tool_call>",
        (f"<tool_call>{'[' * 100_000}</tool_call>", [], (1, False)),
    ),
    "bad, then good": (
        f"<tool_call>?</tool_call>{ADD}",
        ("<tool_call>?</tool_call>", [("add", '{"a": 1}')], (1, False)),
    ),
    "never closed": ('ok <tool_call>{"name": "f"}', ('ok <tool_call>{"name": "f"}', [], (0, True))),
    "never opened": ("ok <tool_ca", ("ok <tool_ca", [], FINE)),
    "closing tag in an argument": (
        '<tool_call>{"name": "f", "arguments": {"t": "a</tool_call>b"}}</tool_call>!',
        ("!", [("f", '{"t": "a</tool_call>b"}')], FINE),
    ),
    "line break in a string": (
        '<tool_call>{"name": "f", "arguments": {"t": "a\nb"}}</tool_call>',
        ("", [("f", '{"t": "a\\nb"}')], FINE),
    ),
    "letters beyond ASCII": (
        '<tool_call>{"name": "f", "arguments": {"t": "思考"}}</tool_call>',
        ("", [("f", '{"t": "思考"}')], FINE),
    ),
    "blanks alone": (" \n ", (" \n ", [], FINE)),
}


@pytest.mark.parametrize("name", HERMES)
def test_hermes_blocks(name):
    text, expected = HERMES[name]
    assert read(AUTO, text) == expected
    if len(text) < 1000:
        assert read(AUTO, *text) == expected


def test_text_is_given_out_at_once_and_a_call_with_its_last_character():
    reader = tool_reader(AUTO)
    assert reader.feed("Hello <to") == [AnswerDelta("Hello")]
    assert reader.feed("p> ") == [AnswerDelta(" <top>")]
    assert reader.feed(ADD[:-1]) == []
    (call,) = reader.feed(">")
    assert (call.index, call.name) == (0, "add")


LIST = {
    "one": ('[{"name": "f", "parameters": {"a": 1}}]', ("", [("f", '{"a": 1}')], FINE)),
    "two": (
        '[{"name":"f","parameters":{}},\n {"name":"g","parameters":{"t":"}]"}}]',
        ("", [("f", "{}"), ("g", '{"t": "}]"}')], FINE),
    ),
    "empty": ("[]", ("", [], FINE)),
    "cut": ('[{"name":"f","parameters":{}},{"na', ('{"na', [("f", "{}")], (0, True))),
    "cut at once": ("[", ("", [], (0, True))),
    "no call": ('[{"x": 1}]', ('{"x": 1}', [], (1, False))),
}


@pytest.mark.parametrize("name", LIST)
def test_lists(name):
    text, expected = LIST[name]
    assert read(REQUIRED, text) == expected
    assert read(REQUIRED, *text) == expected


def test_an_element_of_a_list_is_given_out_when_it_is_complete():
    reader = tool_reader(REQUIRED)
    assert reader.feed('[{"name":"f","parameters":{"a":1}') == []
    (call,) = reader.feed("},")
    assert (call.name, call.arguments) == ("f", '{"a": 1}')


@pytest.mark.parametrize("text", ['{"a": 1}', '{"a": "', ""])
def test_the_arguments_of_a_named_function_are_passed_on_as_they_come(text):
    expected = ("", [("add", text)] if text else [], FINE)
    assert read(NAMED, text) == expected
    assert read(NAMED, *text) == expected


def test_a_named_plan_needs_its_name():
    with pytest.raises(ValueError, match="name"):
        tool_reader(ToolPlan("named"))


PIECES = st.lists(
    st.sampled_from(
        [
            ADD,
            "<tool_call>",
            "</tool_call>",
            '{"name": "f"}',
            " ",
            "\n",
            "a",
            "<",
            "<tool",
            '"',
            "{",
            "}",
            "[",
            "]",
            ",",
        ]
    ),
    max_size=12,
).map("".join)


@given(st.sampled_from([AUTO, REQUIRED, NAMED]), PIECES, st.lists(st.integers(0, 150), max_size=6))
def test_any_split_gives_the_same(plan, text, cuts):
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    whole = read(plan, text)
    assert read(plan, *[text[a:b] for a, b in pairwise(edges)]) == whole
    assert read(plan, *text) == whole


def solid(text):
    return "".join(text.split())


BODIES = {"add": '{"name":"add","arguments":{"a":1}}', "f": '{"name":"f"}'}


@given(PIECES)
def test_nothing_but_blanks_around_calls_is_lost(text):
    content, calls, _ = read(AUTO, text)
    blocks = sum(len(f"<tool_call>{BODIES[name]}</tool_call>") for name, _ in calls)
    assert len(solid(text)) == len(solid(content)) + blocks
    if not calls:
        assert content == text
