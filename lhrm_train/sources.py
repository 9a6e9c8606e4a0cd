"""Read problems and demonstrations from JSONL files, data sets and reasoning-gym tasks.

Nothing is guessed or left out: a row that cannot be taken as it stands ends the reading with a `DataError` that
names file, line, field and value. Columns and their names are described at `lhrm_train.config.Fields`.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass

from lhrm_train.config import ConfigError, DataConfig, Fields
from lhrm_train.format import ROLES, TAGS, THINK_CLOSE, THINK_OPEN, Message, Mode
from lhrm_train.problems import Demonstration, Problem
from lhrm_train.records import DataError as DataError  # what reading raises
from lhrm_train.records import Row, package, records

GYM_ITEMS = 500
# As the server takes them: `developer` is rendered as `system`.
RENDERED_ROLES = {**{role: role for role in ROLES}, "developer": "system"}
REASONING_FIELDS = ("reasoning", "reasoning_content", "thinking")
# Columns of that name hold reasoning in common data sets; one that `Fields` does not name would be lost in silence.
REASONING_COLUMNS = (*REASONING_FIELDS, "cot", "rationale", "chain_of_thought", "thoughts")


@dataclass(frozen=True)
class _Turn:
    """One message; `reasoning` stood beside its content or in a think block at the start of it."""

    message: Message
    reasoning: str = ""


@dataclass(frozen=True)
class _Conversation:
    """The turns up to the question, with the answers that a last assistant turn and a column give to it."""

    messages: tuple[Message, ...]
    spoken: _Turn | None
    column: _Turn | None

    @property
    def reference(self) -> str:
        """What answers are compared with; a column is meant for that, a whole turn only where there is none."""
        turn = self.column or self.spoken
        return turn.message.content if turn else ""


def normalise(text: str) -> str:
    """Return text by which questions are compared: NFKC, case folded, white space collapsed."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def question_key(messages: Sequence[Message]) -> str:
    """Return a stable hash (blake2b, 32 hex digits) of the normalised question and the turns before it."""
    turns = [[message.role, normalise(message.content)] for message in messages]
    return hashlib.blake2b(json.dumps(turns).encode(), digest_size=16).hexdigest()


def read_demonstrations(config: DataConfig) -> list[Demonstration]:
    """Read answers to learn from, in the order of the files.

    The answer is the last assistant turn or, without one, the `answer` column; with both, the column is the
    problem's reference. The mode is the `mode` column or, without one, think where there is reasoning.
    Raises DataError for a file or row that cannot be used, ConfigError for a source without demonstrations.
    """
    if config.source == "gym":
        raise ConfigError("source = 'gym' has problems only; demonstrations come from jsonl or datasets")
    return [_demonstration(row, config.fields) for row in records(config)]


def read_problems(config: DataConfig) -> list[Problem]:
    """Read questions with what their scorers need, in the order of the files.

    `reference` is the `answer` column (text as it is, any other JSON value as JSON) or, without one, the last
    assistant turn; it is empty where there is neither. Columns that `Fields` does not name go to `Problem.fields`.
    Raises DataError for a file or row that cannot be used, ConfigError for a source that cannot be read here.
    """
    if config.source == "gym":
        return [problem for task in config.files for problem in _gym_problems(task, config)]
    return [_problem(row, config.fields, _conversation(row, config.fields)) for row in records(config)]


def _gym_problems(task: str, config: DataConfig) -> Iterator[Problem]:
    gym = package("reasoning_gym", "gym")
    try:
        dataset = gym.create_dataset(task, size=config.limit or GYM_ITEMS, seed=config.seed)
    except (ValueError, AssertionError) as exc:
        raise ConfigError(f"files: {task!r} is no reasoning-gym task: {exc}") from exc
    for entry in dataset:
        messages = (Message("user", entry["question"].strip()),)  # some end in a new line
        difficulty = entry["metadata"].get("difficulty")
        yield Problem(
            messages=messages,
            reference="" if entry["answer"] is None else _json_text(entry["answer"]),
            scorer="gym",
            kind=task,
            # Most tasks describe their difficulty by a table of ranges, which is no level.
            level=round(difficulty) if isinstance(difficulty, int | float) else 0,
            key=question_key(messages),
            fields={"dataset": task, "entry": entry},
        )


def _json_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)


def _conversation(row: Row, fields: Fields) -> _Conversation:
    column = _answer_column(row, fields.answer)
    raw, spoken = row.get(fields.messages), None
    if raw is None:
        prompt = row.get(fields.prompt)
        if prompt is None:
            row.fail(f"{fields.messages} or {fields.prompt}", None, f"no question; columns: {', '.join(row.values)}")
        messages, place = [Message("user", row.text(fields.prompt, prompt))], fields.prompt
    else:
        if not isinstance(raw, list):
            row.fail(fields.messages, raw, "expected a list of messages")
        place = fields.messages
        turns = [_turn(row, f"{place}[{position}]", message) for position, message in enumerate(raw)]
        if turns and turns[-1].message.role == "assistant":
            spoken = turns.pop()
            if not spoken.message.content.strip():
                row.fail(f"{place}[{len(turns)}].content", raw[-1].get("content"), "the answer is empty")
        # Earlier reasoning is not rendered, as the server does not render it either.
        messages = [turn.message for turn in turns]
    if not messages or messages[-1].role != "user" or not messages[-1].content.strip():
        row.fail(place, row.get(place), "the last turn before the answer must be a user's, and not empty")
    return _Conversation(tuple(messages), spoken, column)


def _turn(row: Row, place: str, raw: object) -> _Turn:
    if not isinstance(raw, Mapping):
        row.fail(place, raw, "expected an object with role and content")
    role = raw.get("role")
    if not isinstance(role, str) or role not in RENDERED_ROLES:
        row.fail(f"{place}.role", role, f"unknown role; known: {', '.join(RENDERED_ROLES)}")
    content = _content(row, f"{place}.content", raw.get("content"))
    reasonings = []
    for name, value in raw.items():
        if name in ("role", "content") or value is None or value in ("", [], {}):
            continue
        if name not in REASONING_FIELDS or role != "assistant":
            row.fail(f"{place}.{name}", value, "this field of a message would be lost")
        reasonings.append(row.text(f"{place}.{name}", value))
    if role != "assistant":
        return _Turn(Message(RENDERED_ROLES[role], content))
    return _answer_turn(row, place, content, reasonings)


def _content(row: Row, place: str, value: object) -> str:
    if not isinstance(value, list):
        return row.text(place, value)
    texts = []
    for position, part in enumerate(value):
        if not isinstance(part, Mapping) or part.get("type") != "text":
            row.fail(f"{place}[{position}]", part, "only text parts can be taken")
        texts.append(row.text(f"{place}[{position}].text", part.get("text")))
    return "".join(texts)


def _answer_turn(row: Row, place: str, content: str, reasonings: Sequence[str] = ()) -> _Turn:
    """Take a think block off the start of an answer."""
    block = ""
    opened = content.lstrip()
    if opened.startswith(THINK_OPEN):
        block, closed, rest = opened.removeprefix(THINK_OPEN).partition(THINK_CLOSE)
        if not closed:
            row.fail(place, content, f"{THINK_OPEN} is not closed by {THINK_CLOSE}")
        content = rest.strip()
    return _Turn(Message("assistant", content), _one_reasoning(row, place, [*reasonings, block]))


def _one_reasoning(row: Row, place: str, texts: Sequence[str]) -> str:
    distinct = sorted({text.strip() for text in texts} - {""})
    if len(distinct) > 1:
        row.fail(place, distinct, "the reasoning is given more than once, and differs")
    return distinct[0] if distinct else ""


def _answer_column(row: Row, column: str) -> _Turn | None:
    value = row.get(column)
    if value is None:
        return None
    try:
        text = _json_text(value)
    except (TypeError, ValueError):
        row.fail(column, value, "expected text, a number or another JSON value")
    turn = _answer_turn(row, column, row.text(column, text))
    if not turn.message.content.strip():
        row.fail(column, value, "the answer is empty")
    return turn


def _problem(row: Row, fields: Fields, conversation: _Conversation) -> Problem:
    named = {*astuple(fields)}
    if row.get(fields.messages) is not None and fields.prompt != fields.messages:
        named.discard(fields.prompt)  # not read, so it is kept like any other column
    scorer, kind = row.get(fields.scorer), row.get(fields.kind)
    return Problem(
        messages=conversation.messages,
        reference=conversation.reference,
        scorer="" if scorer is None else row.text(fields.scorer, scorer),
        kind="all" if kind is None else row.text(fields.kind, kind),
        level=_level(row, fields.level),
        key=question_key(conversation.messages),
        fields={column: value for column, value in row.values.items() if column not in named},
    )


def _level(row: Row, column: str) -> int:
    value = row.get(column)
    if value is None:
        return 0
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not re.fullmatch(r"-?[0-9]{1,9}", str(value)):
        row.fail(column, value, "expected a whole number")
    return int(value)


def _demonstration(row: Row, fields: Fields) -> Demonstration:
    conversation = _conversation(row, fields)
    turn = conversation.spoken or conversation.column
    place = fields.messages if conversation.spoken else fields.answer
    if turn is None:
        row.fail(place, None, f"neither this column nor a last assistant turn holds an answer: {', '.join(row.values)}")
    value = row.get(fields.answer)
    if conversation.spoken is None and not isinstance(value, str | int | float):
        row.fail(place, value, "expected text or a number to learn")
    _no_other_reasoning(row, fields)
    given = row.get(fields.reasoning)
    beside = "" if given is None else row.text(fields.reasoning, given)
    reasoning = _one_reasoning(row, fields.reasoning, [beside, turn.reasoning])
    answer = turn.message.content
    for name, text in ((place, answer), (fields.reasoning, reasoning)):
        if tag := next((tag for tag in TAGS if tag in text), None):
            row.fail(name, text, f"holds the tag {tag}; only one think block at the start of an answer is read")
    return Demonstration(_problem(row, fields, conversation), _mode(row, fields, reasoning), reasoning, answer)


def _no_other_reasoning(row: Row, fields: Fields) -> None:
    """Refuse a column of reasoning that no field names, unless `fields.reasoning` is switched off."""
    named = astuple(fields)
    for column in REASONING_COLUMNS if fields.reasoning else ():
        value = row.get(column)
        empty = not value.strip() if isinstance(value, str) else not isinstance(value, list | dict) or not value
        if column not in named and not empty:
            row.fail(
                column,
                value,
                f"reasoning is read from the column {fields.reasoning!r}; set fields.reasoning = {column!r}, or to '' "
                "to learn without reasoning columns",
            )


def _mode(row: Row, fields: Fields, reasoning: str) -> Mode:
    derived = Mode.THINK if reasoning else Mode.NO_THINK
    given = row.get(fields.mode)
    if given is None:
        return derived
    names = [mode.value for mode in Mode]
    if given not in names:
        row.fail(fields.mode, given, f"expected {' or '.join(names)}")
    if given != derived.value:
        row.fail(fields.mode, given, "there is reasoning" if reasoning else "there is no reasoning")
    return derived
