"""The text of a completion does not depend on how its ids are cut into chunks."""

from itertools import combinations, pairwise

import pytest
from gateway_fixtures import load_tokenizer, no_think, think
from hypothesis import given
from hypothesis import strategies as st
from lhrm_server.deltas import AnswerDelta, ReasoningDelta
from lhrm_server.engine import EngineError
from lhrm_server.parser import AnswerParser, anomalies

from lhrm_train.format import Mode

TOKENIZER = load_tokenizer()
TAGS = TOKENIZER.tags
END = TOKENIZER.turn_end_id
EMOJI = tuple(TOKENIZER.encode_text("é🤔"))


def parse(mode, *chunks):
    parser = AnswerParser(TOKENIZER, mode)
    deltas = [delta for chunk in chunks for delta in parser.feed(chunk)] + parser.finish()
    assert all(delta.text for delta in deltas)
    reasoning = "".join(delta.text for delta in deltas if isinstance(delta, ReasoningDelta))
    answer = "".join(delta.text for delta in deltas if isinstance(delta, AnswerDelta))
    kinds = [type(delta) for delta in deltas]
    assert kinds == sorted(kinds, key=[ReasoningDelta, AnswerDelta].index), "reasoning after the answer began"
    counts = (parser.reasoning_tokens, parser.answer_tokens, parser.overhead_tokens)
    assert sum(counts) == parser.completion_tokens == sum(map(len, chunks))
    return reasoning, answer, counts, parser.unclosed, parser.stray_tags, parser.has_answer


FIXTURES = {
    "think": (Mode.THINK, think(TOKENIZER, "naïve 思考 🤔", "5 ✓")),
    "no_think": (Mode.NO_THINK, no_think(TOKENIZER, "fünf ✓")),
    "cut in reasoning": (Mode.THINK, EMOJI[:-1]),
    "cut in answer": (Mode.NO_THINK, EMOJI[:-1]),
    "reasoning ends within a character": (Mode.THINK, (*EMOJI[:-1], TAGS.think_end, *EMOJI, END)),
    "end of turn in reasoning": (Mode.THINK, (*EMOJI, END)),
    "tags after the answer began": (
        Mode.THINK,
        (TAGS.think_end, TAGS.think_end, *EMOJI, TAGS.think, TAGS.no_think_end, END),
    ),
    "closing tag inside a no-think answer": (Mode.NO_THINK, (TAGS.no_think_end, *EMOJI, TAGS.no_think_end, END)),
    "closing tag, then cut": (Mode.NO_THINK, (*EMOJI, TAGS.no_think_end)),
    "closing tag twice": (Mode.NO_THINK, (*EMOJI, TAGS.no_think_end, TAGS.no_think_end, END)),
    "no closing tag": (Mode.NO_THINK, (*EMOJI, END)),
    "nothing but the end": (Mode.NO_THINK, (TAGS.no_think_end, END)),
}


def test_texts_and_counts_of_a_think_answer():
    reasoning, answer, counts, unclosed, stray, _ = parse(*FIXTURES["think"])
    assert (reasoning, answer, unclosed, stray) == ("naïve 思考 🤔", "5 ✓", False, 0)
    assert counts[0] == len(TOKENIZER.encode_text(reasoning))
    assert counts[1] == len(TOKENIZER.encode_text(answer))
    assert counts[2] == 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("no_think", ("", "fünf ✓")),
        ("cut in reasoning", ("é\ufffd", "")),
        ("cut in answer", ("", "é\ufffd")),
        ("reasoning ends within a character", ("é\ufffd", "é🤔")),
        ("end of turn in reasoning", ("é🤔", "")),
        ("tags after the answer began", ("", "</think>é🤔<think></no_think>")),
        ("closing tag inside a no-think answer", ("", "</no_think>é🤔")),
        ("closing tag, then cut", ("", "é🤔")),
        ("closing tag twice", ("", "é🤔</no_think>")),
        ("no closing tag", ("", "é🤔")),
        ("nothing but the end", ("", "")),
    ],
)
def test_texts(name, expected):
    assert parse(*FIXTURES[name])[:2] == expected


@pytest.mark.parametrize("name", FIXTURES)
def test_every_one_and_two_cut_split_gives_the_same(name):
    mode, ids = FIXTURES[name]
    whole = parse(mode, ids)
    for first, second in combinations(range(len(ids) + 1), 2):
        assert parse(mode, ids[:first], ids[first:second], ids[second:]) == whole
    assert parse(mode, *[(token,) for token in ids]) == whole


CLOSERS = st.sampled_from([TAGS.think, TAGS.think_end, TAGS.no_think, TAGS.no_think_end])
IDS = st.lists(st.integers(0, TOKENIZER.vocab_size + 3).filter(lambda i: i != END) | CLOSERS, max_size=40)


@given(st.sampled_from(Mode), IDS, st.booleans(), st.lists(st.integers(0, 41), max_size=6))
def test_any_ids_in_any_chunks_give_the_same(mode, ids, ends, cuts):
    ids = [*ids, END] if ends else ids
    edges = [0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]
    chunks = [tuple(ids[a:b]) for a, b in pairwise(edges)]
    assert parse(mode, *chunks) == parse(mode, tuple(ids))


@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=40))
def test_token_bytes_spell_what_the_tokenizer_decodes(ids):
    assert b"".join(map(TOKENIZER.token_bytes, ids)).decode("utf-8", "replace") == TOKENIZER.decode(ids)


@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1).filter(lambda i: i not in (END, TAGS.no_think_end))))
def test_answer_text_is_what_the_tokenizer_decodes(ids):
    assert parse(Mode.NO_THINK, *[(token,) for token in ids])[1] == TOKENIZER.decode(ids)


@given(st.text())
def test_any_text_survives_encoding_and_parsing(text):
    assert parse(Mode.THINK, *[(i,) for i in think(TOKENIZER, text, text)])[:2] == (text, text)


def test_ids_after_the_end_of_turn_are_an_engine_error():
    parser = AnswerParser(TOKENIZER, Mode.NO_THINK)
    parser.feed((END,))
    with pytest.raises(EngineError, match="after the end of turn"):
        parser.feed((9,))


@pytest.mark.parametrize(
    ("mode", "ids", "stopped", "expected"),
    [
        (Mode.THINK, think(TOKENIZER, "a", "b"), True, ()),
        (Mode.NO_THINK, no_think(TOKENIZER, "b"), True, ()),
        (Mode.NO_THINK, (9, END), True, ("unclosed",)),
        (Mode.THINK, (9, END), True, ("unclosed",)),
        (Mode.THINK, (9,), False, ()),
        (Mode.THINK, (TAGS.think, 9), False, ("stray_tag",)),
        (Mode.NO_THINK, (TAGS.no_think, 9, TAGS.no_think_end, END), True, ("stray_tag",)),
    ],
)
def test_anomalies(mode, ids, stopped, expected):
    parser = AnswerParser(TOKENIZER, mode)
    parser.feed(ids)
    parser.finish()
    assert anomalies(parser, stopped=stopped) == expected
