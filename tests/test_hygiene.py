import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhrm_train.config import ConfigError, DataConfig, Fields
from lhrm_train.format import Message, Mode
from lhrm_train.hygiene import CleaningReport, clean, decontaminate, deduplicate
from lhrm_train.problems import Demonstration, Problem
from lhrm_train.sources import DataError

THINK, NO_THINK = Mode.THINK, Mode.NO_THINK


def problem(question, *earlier):
    return Problem((*(Message("user", text) for text in earlier), Message("user", question)))


def shown(question, mode=NO_THINK, answer="2", reasoning=""):
    return Demonstration(problem(question), mode, reasoning, answer)


def kept(items, benchmark, ngram):
    """Return the positions of the items that stay."""
    left, removed = decontaminate(items, [problem(question) for question in benchmark], ngram)
    assert removed == len(items) - len(left)
    return [items.index(item) for item in left]


def test_equal_problems_leave_the_first():
    items = [problem("1 + 1?"), problem("2 + 2?"), problem(" 1 +\n1? "), problem("1+1?"), problem("2 + 2?")]
    assert deduplicate(items) == ([items[0], items[1], items[3]], 2)


def test_problems_that_are_written_otherwise_are_others():
    # A capital is another variable, a raised digit another number; only the encoding of an accent does not count.
    items = [problem("Is a = A?"), problem("Is A = a?"), problem("What is 3²?"), problem("What is 32?")]
    assert deduplicate(items) == (items, 0)
    assert deduplicate([problem("Caf\u00e9?"), problem("Cafe\u0301?")])[1] == 1


def test_the_same_words_after_another_turn_are_another_problem():
    items = [problem("And why?", "Is 2 even?"), problem("And why?", "Is 3 even?"), problem("And why? ", "Is 2  even?")]
    assert deduplicate(items) == (items[:2], 1)


def test_demonstrations_are_equal_by_question_mode_reasoning_and_answer():
    items = [
        shown("What?"),
        shown("What?", answer="3"),
        shown("What?", THINK, reasoning="r"),
        shown("What?", THINK, reasoning="another way to the same answer"),
        shown("WHAT?"),
        shown("What?", THINK, answer=" 2", reasoning="r\n"),
        shown(" What?", answer="2 "),
    ]
    assert deduplicate(items) == (items[:5], 2)


@given(st.lists(st.sampled_from("abcAB "), max_size=12))
def test_deduplication_leaves_one_of_each(letters):
    items = [problem(letter) for letter in letters]
    left, removed = deduplicate(items)
    assert {item.question.strip() for item in left} == {letter.strip() for letter in letters}
    assert len(left) == len({letter.strip() for letter in letters})
    assert len(left) + removed == len(items)
    assert deduplicate(left) == (left, 0)


BENCHMARK = ["How many legs do three black cats have?", "Why?"]


@pytest.mark.parametrize(
    ("question", "ngram", "stays"),
    [
        ("HOW many  legs do three black cats have?", 13, False),  # equal, though shorter than the run
        ("How many legs do three black cats have", 13, True),
        ("Tell me, how many legs, do four black cats have?", 4, False),  # how many legs do
        ("Tell me, how many legs, do four black cats have?", 5, True),
        ("black cats have", 3, False),
        ("black cats have", 4, True),
        ("blackcats have legs", 2, True),
        ("why?", 1, False),
        ("But why, then?", 13, True),
        ("But why, then?", 1, False),
        ("", 1, True),
    ],
)
def test_contamination_by_hand(question, ngram, stays):
    assert kept([problem(question)], BENCHMARK, ngram) == ([0] if stays else [])


@pytest.mark.parametrize(
    ("question", "benchmark", "longest"),
    [
        # The longest run in characters, spaces and punctuation left out, that a question shares with the benchmark.
        ("请问小明有三个苹果吗", "小明有三个苹果。小红有几个", 7),
        ("りんごを3個買いました", "みかんを3個買います", 6),
        ("เมืองหลวงของไทยคือ", "บอกเมืองหลวงของไทย", 15),
        # Words and characters mix: "what", "is", two characters.
        ("What is 北京 in English?", "Say what is 北京.", 4),
        ("서울은 어디에 있나요", "서울은 어디에 있습니까", 2),  # Korean has spaces: words count
    ],
)
def test_text_without_spaces_is_compared_by_characters(question, benchmark, longest):
    assert kept([problem(question)], [benchmark], longest) == []
    assert kept([problem(question)], [benchmark], longest + 1) == [0]


def test_contamination_keeps_order_and_looks_at_the_last_question_only():
    items = [problem("Why?"), problem("b", "Why?"), problem("a"), problem("Why?", "c")]
    assert kept(items, BENCHMARK, 13) == [1, 2]
    assert kept([shown("c"), shown("why?")], BENCHMARK, 13) == [0]


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=6), max_size=5), st.integers(1, 4))
def test_contamination_equals_the_slow_definition(questions, ngram):
    benchmark = ["a b c a", "b b"]
    texts = [" ".join(words) for words in questions]

    def shares(text):
        runs = [text.split()[i : i + ngram] for i in range(len(text.split()) - ngram + 1)]
        return any(f" {' '.join(run)} " in f" {other} " for run in runs for other in benchmark)

    expected = [text for text in texts if text not in benchmark and not shares(text)]
    left, _ = decontaminate([problem(text) for text in texts], [problem(text) for text in benchmark], ngram)
    assert [item.question for item in left] == expected


def test_a_run_needs_a_word():
    with pytest.raises(ConfigError, match="decontaminate_ngram = 0"):
        decontaminate([problem("a")], [], 0)


def test_time_grows_with_the_number_of_words_only():
    items = [problem(" ".join(f"w{i * j % 997}" for j in range(40))) for i in range(4000)]
    started = time.perf_counter()
    decontaminate(items, items[::2], 13)
    assert time.perf_counter() - started < 10  # 8 million pairs would take minutes


def settings(tmp_path, *rows, **more):
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataConfig(source="jsonl", files=("unused.jsonl",), decontaminate=(str(path),), **more)


ITEMS = [problem("a"), problem(" a"), problem("b"), problem("b"), problem("c")]


def test_cleaning_counts_duplicates_first(tmp_path):
    config = settings(tmp_path, {"prompt": "B"}, {"messages": [{"role": "user", "content": "d"}]})
    assert clean(ITEMS, config) == ([ITEMS[0], ITEMS[4]], CleaningReport(5, 2, 1, 2))


def test_cleaning_can_be_switched_off(tmp_path):
    config = settings(tmp_path, {"prompt": "b"}, deduplicate=False)
    assert clean(ITEMS, config) == ([ITEMS[0], ITEMS[1], ITEMS[4]], CleaningReport(5, 0, 2, 3))
    untouched = DataConfig(source="jsonl", files=("unused.jsonl",), deduplicate=False)
    assert clean(ITEMS, untouched) == (ITEMS, CleaningReport(5, 0, 0, 5))


def test_a_benchmark_names_its_questions_as_the_data_does_and_nothing_else_of_it_counts(tmp_path):
    row = {"question": "b", "level": "Level 5", "answer": "", "mode": "fast", "kind": 3}
    config = settings(tmp_path, row, fields=Fields(prompt="question"))
    assert clean(ITEMS, config)[1] == CleaningReport(5, 2, 1, 2)
    with pytest.raises(DataError, match=r"test\.jsonl:1: messages or prompt = None"):
        clean(ITEMS, settings(tmp_path, row))


def test_settings_of_the_data_do_not_cut_the_benchmark(tmp_path):
    config = settings(tmp_path, {"prompt": "z"}, {"prompt": "b"}, limit=1)
    assert clean(ITEMS, config)[1].contaminated == 1
