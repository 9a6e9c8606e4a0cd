import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhrm_train.config import ConfigError, DataConfig, Fields
from lhrm_train.format import Message, Mode
from lhrm_train.problems import Demonstration, Problem
from lhrm_train.sources import DataError, normalise, question_key, read_demonstrations, read_problems
from tests.record_files import assistant, config, user, write

THINK = "<think>\n1 and 1 make 2\n</think>\n\n2"


def one_demonstration(tmp_path, row, **more) -> Demonstration:
    (demonstration,) = read_demonstrations(config(write(tmp_path / "a.jsonl", row), **more))
    return demonstration


def one_problem(tmp_path, row, **more) -> Problem:
    (problem,) = read_problems(config(write(tmp_path / "a.jsonl", row), **more))
    return problem


@pytest.mark.parametrize(
    ("row", "mode", "reasoning", "answer"),
    [
        ({"prompt": "1+1?", "answer": "2"}, Mode.NO_THINK, "", "2"),
        ({"prompt": "1+1?", "answer": 2}, Mode.NO_THINK, "", "2"),
        ({"prompt": "1+1?", "answer": " 2\n"}, Mode.NO_THINK, "", " 2\n"),
        ({"prompt": "1+1?", "answer": "2", "reasoning": "one more\n"}, Mode.THINK, "one more", "2"),
        ({"prompt": "1+1?", "answer": "2", "reasoning": " \n"}, Mode.NO_THINK, "", "2"),
        ({"prompt": "1+1?", "answer": "2", "reasoning": None, "mode": None}, Mode.NO_THINK, "", "2"),
        ({"prompt": "1+1?", "answer": "2", "reasoning": "r", "mode": "think"}, Mode.THINK, "r", "2"),
        ({"prompt": "1+1?", "answer": "2", "mode": "no_think"}, Mode.NO_THINK, "", "2"),
        ({"prompt": "1+1?", "answer": THINK}, Mode.THINK, "1 and 1 make 2", "2"),
        ({"prompt": "1+1?", "answer": "\n<think>\n\n</think>\n\n2"}, Mode.NO_THINK, "", "2"),
        ({"messages": [user("1+1?"), assistant("2")]}, Mode.NO_THINK, "", "2"),
        ({"messages": [user("1+1?"), assistant(THINK)]}, Mode.THINK, "1 and 1 make 2", "2"),
        ({"messages": [user("1+1?"), assistant("2", reasoning="r")]}, Mode.THINK, "r", "2"),
        ({"messages": [user("1+1?"), assistant("2", reasoning_content="r")]}, Mode.THINK, "r", "2"),
        ({"messages": [user("1+1?"), assistant("2", thinking="r")]}, Mode.THINK, "r", "2"),
        # A server's reply has the same text twice.
        ({"messages": [user("1+1?"), assistant("2", reasoning="r", reasoning_content="r")]}, Mode.THINK, "r", "2"),
        ({"messages": [user("1+1?"), assistant("2")], "reasoning": "r"}, Mode.THINK, "r", "2"),
        ({"messages": [user("1+1?")], "reasoning": "r", "answer": "2"}, Mode.THINK, "r", "2"),
        ({"messages": [user("1+1?"), assistant([{"type": "text", "text": "2"}])]}, Mode.NO_THINK, "", "2"),
    ],
)
def test_where_answer_reasoning_and_mode_come_from(tmp_path, row, mode, reasoning, answer):
    found = one_demonstration(tmp_path, row)
    assert (found.mode, found.reasoning, found.answer) == (mode, reasoning, answer)
    assert found.problem.messages == (Message("user", "1+1?"),)
    assert found.problem.reference == answer


def test_a_last_turn_is_learnt_and_the_answer_column_is_its_reference(tmp_path):
    row = {"messages": [user("1+1?"), assistant("It is 2.", reasoning="r")], "answer": 2}
    found = one_demonstration(tmp_path, row)
    assert (found.answer, found.problem.reference) == ("It is 2.", "2")


def test_earlier_turns_are_kept_without_their_reasoning(tmp_path):
    turns = [
        {"role": "developer", "content": "Be brief."},
        user([{"type": "text", "text": "1+"}, {"type": "text", "text": "1?"}]),
        assistant(THINK, name=None, tool_calls=[]),
        user("And <think> 2+2?"),
        assistant("4"),
    ]
    assert one_demonstration(tmp_path, {"messages": turns}).problem.messages == (
        Message("system", "Be brief."),
        Message("user", "1+1?"),
        Message("assistant", "2"),
        Message("user", "And <think> 2+2?"),
    )


def test_columns_of_a_problem(tmp_path):
    row = {"prompt": "1+1?", "answer": "2", "scorer": "numeric", "kind": "sums", "level": 3, "mode": "x", "id": [7]}
    assert one_problem(tmp_path, row) == Problem(
        messages=(Message("user", "1+1?"),),
        reference="2",
        scorer="numeric",
        kind="sums",
        level=3,
        key=question_key([Message("user", "1+1?")]),
        fields={"id": [7]},
    )


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("7", "7"),
        (7, "7"),
        (0.5, "0.5"),
        (False, "false"),
        ({"ä": [1, None]}, '{"ä": [1, null]}'),
        (THINK, "2"),
        (None, ""),
    ],
)
def test_reference_of_a_problem(tmp_path, answer, reference):
    assert one_problem(tmp_path, {"prompt": "q", "answer": answer}).reference == reference


def test_a_problem_needs_no_answer_and_may_end_with_one(tmp_path):
    assert one_problem(tmp_path, {"prompt": "q"}).reference == ""
    spoken = one_problem(tmp_path, {"messages": [user("q"), assistant(THINK)]})
    assert (spoken.reference, spoken.question) == ("2", "q")


@pytest.mark.parametrize(("level", "expected"), [(2, 2), (2.0, 2), ("2", 2), (-1, -1), (None, 0)])
def test_levels(tmp_path, level, expected):
    assert one_problem(tmp_path, {"prompt": "q", "level": level}).level == expected


def test_other_column_names(tmp_path):
    names = Fields(prompt="problem", answer="solution", messages="", level="")
    problem = one_problem(tmp_path, {"problem": "q", "solution": 4, "level": "Level 5", "answer": "a"}, fields=names)
    assert (problem.question, problem.reference, problem.level) == ("q", "4", 0)
    assert problem.fields == {"level": "Level 5", "answer": "a"}


def test_a_prompt_beside_messages_is_kept_as_another_column(tmp_path):
    problem = one_problem(tmp_path, {"messages": [user("q")], "prompt": "p", "answer": "a"})
    assert (problem.question, dict(problem.fields)) == ("q", {"prompt": "p"})


QUESTION = {"prompt": "q"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**QUESTION, "answer": "a", "mode": "fast"}, "mode = 'fast': expected think or no_think"),
        ({**QUESTION, "answer": "a", "mode": ["think"]}, "mode = ['think']: expected think or no_think"),
        ({**QUESTION, "answer": "a", "mode": "think"}, "mode = 'think': there is no reasoning"),
        ({**QUESTION, "answer": THINK, "mode": "no_think"}, "mode = 'no_think': there is reasoning"),
        (
            {**QUESTION, "answer": THINK, "reasoning": "other"},
            "reasoning = ['1 and 1 make 2', 'other']: the reasoning is",
        ),
        ({**QUESTION, "answer": "a", "reasoning": 1}, "reasoning = 1: expected text"),
        ({**QUESTION}, "answer = None: neither this column nor a last assistant turn holds an answer: prompt"),
        ({**QUESTION, "answer": " "}, "answer = ' ': the answer is empty"),
        ({**QUESTION, "answer": "<think>r</think>\n"}, "answer = '<think>r</think>\\n': the answer is empty"),
        ({**QUESTION, "answer": "<think>r"}, "answer = '<think>r': <think> is not closed by </think>"),
        ({**QUESTION, "answer": "r</think>a"}, "answer = 'r</think>a': holds the tag </think>; only one"),
        (
            {**QUESTION, "answer": "<no_think>a</no_think>"},
            "answer = '<no_think>a</no_think>': holds the tag <no_think>",
        ),
        ({**QUESTION, "answer": "a", "reasoning": "<think>r</think>"}, "reasoning = '<think>r</think>': holds the tag"),
        ({**QUESTION, "answer": ["a"]}, "answer = ['a']: expected text or a number to learn"),
        ({**QUESTION, "answer": "\ud800"}, "answer = '\\ud800': half of a surrogate pair"),
        ({"answer": "a", "text": "q"}, "messages or prompt = None: no question; columns: answer, text"),
        ({"prompt": 5, "answer": "a"}, "prompt = 5: expected text"),
        ({"prompt": [user("q")], "answer": "a"}, "prompt = [{'role': 'user', 'content': 'q'}]: expected text"),
        (
            {"prompt": " ", "answer": "a"},
            "prompt = ' ': the last turn before the answer must be a user's, and not empty",
        ),
        ({"messages": [], "answer": "a"}, "messages = []: the last turn before the answer must be a user's"),
        (
            {"messages": [user("q"), assistant("a"), assistant("b")]},
            "messages = [{'role': 'user', 'content': 'q'}, {'role",
        ),
        ({"messages": [{"role": "system", "content": "q"}], "answer": "a"}, "messages = [{'role': 'system', 'content'"),
        ({"messages": [assistant("a")]}, "messages = [{'role': 'assistant', 'content': 'a'}]: the last turn before"),
        ({"messages": "q", "answer": "a"}, "messages = 'q': expected a list of messages"),
        ({"messages": ["q"], "answer": "a"}, "messages[0] = 'q': expected an object with role and content"),
        (
            {"messages": [{"role": "human", "content": "q"}], "answer": "a"},
            "messages[0].role = 'human': unknown role; known: system, user, assistant, tool, developer",
        ),
        ({"messages": [{"content": "q"}], "answer": "a"}, "messages[0].role = None: unknown role"),
        ({"messages": [{"role": ["user"], "content": "q"}]}, "messages[0].role = ['user']: unknown role"),
        ({"messages": [user(None)], "answer": "a"}, "messages[0].content = None: expected text"),
        (
            {"messages": [user([{"type": "image_url", "image_url": "x"}])], "answer": "a"},
            "messages[0].content[0] = {'type': 'image_url', 'image_url': 'x'}: only text parts can be taken",
        ),
        ({"messages": [user(["x"])], "answer": "a"}, "messages[0].content[0] = 'x': only text parts can be taken"),
        ({"messages": [user([{"type": "text"}])]}, "messages[0].content[0].text = None: expected text"),
        ({"messages": [user("q"), assistant("")], "answer": "a"}, "messages[1].content = '': the answer is empty"),
        (
            {"messages": [user("q"), assistant("a", tool_calls=[{"id": "1"}])]},
            "messages[1].tool_calls = [{'id': '1'}]: this field of a message would be lost",
        ),
        ({"messages": [{**user("q"), "reasoning": "r"}], "answer": "a"}, "messages[0].reasoning = 'r': this field"),
        ({"messages": [user("q"), assistant("a", reasoning=3)]}, "messages[1].reasoning = 3: expected text"),
        (
            {"messages": [user("q"), assistant("a", reasoning="r", thinking="s")]},
            "messages[1] = ['r', 's']: the reasoning is given more than once, and differs",
        ),
        ({**QUESTION, "answer": "a", "kind": 1}, "kind = 1: expected text"),
        ({**QUESTION, "answer": "a", "scorer": []}, "scorer = []: expected text"),
        ({**QUESTION, "answer": "a", "level": 1.5}, "level = 1.5: expected a whole number"),
        ({**QUESTION, "answer": "a", "level": True}, "level = True: expected a whole number"),
        ({**QUESTION, "answer": "a", "level": "Level 5"}, "level = 'Level 5': expected a whole number"),
        ({**QUESTION, "answer": "a", "level": [1]}, "level = [1]: expected a whole number"),
    ],
)
def test_a_bad_row_is_named_with_line_field_and_value(tmp_path, row, message):
    path = write(tmp_path / "a.jsonl", {"prompt": "fine", "answer": "yes"}, row)
    with pytest.raises(DataError) as caught:
        read_demonstrations(config(path))
    assert str(caught.value).startswith(f"{path}:2: {message}")


COLUMNS_OF_REASONING = (
    "reasoning_content", "thinking", "cot", "rationale", "chain_of_thought", "thoughts",
)  # fmt: skip


@pytest.mark.parametrize("value", ["1 and 1 make 2", ["1 and 1", "make 2"]])
@pytest.mark.parametrize("column", COLUMNS_OF_REASONING)
def test_a_column_of_reasoning_that_no_field_names_is_an_error(tmp_path, column, value):
    row = {"prompt": "1+1?", "answer": "2", column: value}
    with pytest.raises(DataError) as caught:
        one_demonstration(tmp_path, row)
    assert str(caught.value) == (
        f"{tmp_path / 'a.jsonl'}:1: {column} = {value!r}: reasoning is read from the column 'reasoning'; "
        f"set fields.reasoning = {column!r}, or to '' to learn without reasoning columns"
    )
    # Beside the column that is read it would be lost as well; problems keep it for their scorers.
    with pytest.raises(DataError, match=f"{column} = "):
        one_demonstration(tmp_path, {**row, "reasoning": "r"})
    assert one_problem(tmp_path, row).fields == {column: value}


def test_a_column_of_reasoning_may_be_named_empty_or_switched_off(tmp_path):
    row = {"prompt": "1+1?", "answer": "2", "cot": "r"}
    assert one_demonstration(tmp_path, row, fields=Fields(reasoning="cot")).reasoning == "r"
    off = one_demonstration(tmp_path, row, fields=Fields(reasoning=""))
    assert (off.mode, off.problem.fields) == (Mode.NO_THINK, {"cot": "r"})
    for value in (None, "", " \n", [], True, 3):  # flags and counts are no reasoning
        assert one_demonstration(tmp_path, {**row, "cot": value}).mode is Mode.NO_THINK
    # The name that counts by default counts as well when another one is set.
    with pytest.raises(DataError, match="reasoning = 's': reasoning is read from the column 'cot'"):
        one_demonstration(tmp_path, {**row, "reasoning": "s"}, fields=Fields(reasoning="cot"))
    # A column that another field names is not lost, and a worked solution is an answer.
    assert one_demonstration(tmp_path, row, fields=Fields(answer="cot")).answer == "r"
    assert one_demonstration(tmp_path, {"prompt": "q", "answer": "2", "solution": "so 2"}).mode is Mode.NO_THINK


def test_a_long_value_is_cut_in_the_message(tmp_path):
    path = write(tmp_path / "a.jsonl", {"prompt": "q", "answer": "a", "mode": "x" * 1000})
    with pytest.raises(DataError) as caught:
        read_demonstrations(config(path))
    assert str(caught.value) == f"{path}:1: mode = '{'x' * 119}...: expected think or no_think"


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])).filter(str.strip), min_size=1, max_size=4))
def test_any_text_is_read_as_it_was_written(texts):
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "a.jsonl", *({"prompt": text} for text in texts))
        assert [problem.question for problem in read_problems(config(path))] == texts


def test_the_key_ignores_spelling_and_sees_the_conversation():
    def key(*turns):
        return question_key([Message(role, content) for role, content in turns])

    plain = key(("user", "What is ﬁve?"))
    # From `printf '[["user", "what is five?"]]' | b2sum -l 128`; it must not change between versions.
    assert plain == "6a6b412a5794b2c00826a62707d7ac37"
    assert key(("user", " what\nIS  five? ")) == plain
    assert key(("user", "What is six?")) != plain
    assert key(("system", "Be brief."), ("user", "What is five?")) != plain


def test_normalise():
    assert normalise("  \uff37hat\t is\u00a0STRASSE, straße? ") == "what is strasse, strasse?"
    # A sign that is written with capitals, and a letter whose capital has no single character.
    assert normalise("\u2121 \u0390") == normalise("tel \u03aa\u0301") == "tel \u0390"


def test_a_source_that_is_read_elsewhere():
    for read in (read_demonstrations, read_problems):
        with pytest.raises(ConfigError, match="source = 'suite' is drawn by"):
            read(DataConfig())
    with pytest.raises(ConfigError, match="source = 'gym' has problems only"):
        read_demonstrations(DataConfig(source="gym", files=("chain_sum",)))


def test_gym_tasks(reasoning_gym):
    problems = read_problems(DataConfig(source="gym", files=("chain_sum", "gsm_symbolic"), limit=3, seed=5))
    entries = list(reasoning_gym.create_dataset("chain_sum", size=3, seed=5))
    assert [problem.kind for problem in problems] == ["chain_sum"] * 3 + ["gsm_symbolic"] * 3
    for problem, entry in zip(problems, entries, strict=False):
        assert problem == Problem(
            messages=(Message("user", entry["question"]),),
            reference=entry["answer"],
            scorer="gym",
            kind="chain_sum",
            key=question_key([Message("user", entry["question"])]),
            fields={"dataset": "chain_sum", "entry": entry},
        )
    assert [problem.level for problem in problems[3:]] == [1, 1, 1]


def test_gym_defaults_and_a_task_without_a_reference(reasoning_gym):
    assert len(read_problems(DataConfig(source="gym", files=("chain_sum",)))) == 500
    (problem,) = read_problems(DataConfig(source="gym", files=("rubiks_cube",), limit=1))
    assert problem.reference == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"files": ("chain_summ",)}, "files: 'chain_summ' is no reasoning-gym task"),
        ({"files": ("chain_sum",), "limit": -1}, "limit = -1"),
    ],
)
def test_gym_settings_that_cannot_be_used(reasoning_gym, settings, message):
    with pytest.raises(ConfigError, match=message):
        read_problems(DataConfig(source="gym", **settings))
