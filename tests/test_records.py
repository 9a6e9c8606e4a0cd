"""Files and data sets, read record by record."""

import gzip
import sys

import pytest

from lhrm_train.config import ConfigError, DataConfig
from lhrm_train.format import Mode
from lhrm_train.records import DataError
from lhrm_train.sources import read_demonstrations, read_problems
from tests.record_files import assistant, config, user


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": ', "not valid JSON: "),
        ('{"prompt": "q", "level": NaN}', "not valid JSON: NaN is not JSON"),
        ("[" * 100_000, "not valid JSON: "),
        ('["q"]', "expected a JSON object, found '[\"q\"]'"),
        ('"q"', "expected a JSON object, found '\"q\"'"),
    ],
)
def test_lines_that_are_no_record(tmp_path, line, message):
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "q"}\n\n' + line + "\n")
    with pytest.raises(DataError) as caught:
        read_problems(config(str(path)))
    assert str(caught.value).startswith(f"{path}:3: {message}")


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "q"}\n{"prompt": "\xe4"}\n')
    (tmp_path / "broken.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "q"}\n' * 50)[:-20])
    (tmp_path / "plain.jsonl.gz").write_bytes(b'{"prompt": "q"}\n')
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "a.json").write_text("{}")
    for name, message in (
        ("none.jsonl", "cannot be read: "),
        ("latin.jsonl", "not UTF-8 after line "),
        ("broken.jsonl.gz", "cannot be read: "),
        ("plain.jsonl.gz", "cannot be read: "),
        ("empty.jsonl", "holds no rows"),
        ("a.json", "expected a .jsonl or .jsonl.gz file"),
    ):
        with pytest.raises(DataError) as caught:
            read_problems(config(str(tmp_path / name)))
        assert str(caught.value).startswith(f"{tmp_path / name}: {message}")


def test_order_limit_and_compression(tmp_path):
    # With a byte order mark, as some tools write it.
    (tmp_path / "b.jsonl").write_text("\ufeff" + "".join(f'{{"prompt": "b{i}"}}\n' for i in range(4)), "utf-8")
    first, second = str(tmp_path / "b.jsonl"), tmp_path / "a.jsonl.gz"
    second.write_bytes(gzip.compress('\ufeff{"prompt": "a0"}\n\n{"prompt": "a1"}\n'.encode()))

    def questions(limit):
        return [problem.question for problem in read_problems(config(first, str(second), limit=limit))]

    assert questions(0) == ["b0", "b1", "b2", "b3", "a0", "a1"]
    assert questions(2) == ["b0", "b1", "a0", "a1"]
    assert questions(1) == ["b0", "a0"]
    with pytest.raises(ConfigError, match="limit = -1"):
        questions(-1)


ROWS = [{"prompt": "1+1?", "answer": 2, "note": None}, {"prompt": "2+2?", "answer": 4, "note": "n"}]


@pytest.fixture
def data_sets(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return datasets


def numbers(name, split="train", **more):
    problems = read_problems(DataConfig(source="datasets", files=(str(name),), split=split, **more))
    return [int(problem.reference) for problem in problems]


def test_data_sets_on_disk(tmp_path, data_sets):
    table = data_sets.Dataset.from_list(ROWS)
    table.save_to_disk(tmp_path / "saved")
    data_sets.DatasetDict(train=table, test=table.select([1])).save_to_disk(tmp_path / "splits")
    table.to_parquet(tmp_path / "files" / "train.parquet")
    assert numbers(tmp_path / "saved") == [2, 4]
    assert numbers(tmp_path / "splits", "test") == [4]
    assert numbers(tmp_path / "files") == [2, 4]
    assert numbers(tmp_path / "files" / "train.parquet", "test") == [2, 4]
    assert numbers(tmp_path / "saved", limit=1) == [2]


def test_absent_fields_of_a_data_set_are_null(tmp_path, data_sets):
    turns = [[user("q"), assistant("a", reasoning="r")], [user("q"), assistant("a")]]
    data_sets.Dataset.from_list([{"messages": m} for m in turns]).save_to_disk(tmp_path / "saved")
    found = read_demonstrations(DataConfig(source="datasets", files=(str(tmp_path / "saved"),)))
    assert [(d.mode, d.reasoning, d.answer) for d in found] == [(Mode.THINK, "r", "a"), (Mode.NO_THINK, "", "a")]


def test_data_sets_that_cannot_be_loaded(tmp_path, data_sets):
    data_sets.DatasetDict(train=data_sets.Dataset.from_list(ROWS)).save_to_disk(tmp_path / "splits")
    with pytest.raises(DataError, match=r"splits: split 'test' cannot be loaded: it has train"):
        numbers(tmp_path / "splits", "test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: split 'train' cannot be loaded: "):
        numbers(tmp_path / "empty")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.json").write_text("{")
    with pytest.raises(DataError, match=r"bad: split 'train' cannot be loaded: "):
        numbers(tmp_path / "bad")


def test_a_bad_row_of_a_data_set_is_named(tmp_path, data_sets):
    data_sets.Dataset.from_list([*ROWS, {"prompt": " ", "answer": 6}]).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError) as caught:
        numbers(tmp_path / "saved")
    assert str(caught.value).startswith(f"{tmp_path / 'saved'}[train]:2: prompt = ' ': the last turn")


@pytest.mark.parametrize("answer", [float("nan"), b"2", {"a": {1}}])
def test_an_answer_that_json_does_not_know(monkeypatch, data_sets, answer):
    monkeypatch.setattr(data_sets, "load_dataset", lambda *a, split: [{"prompt": "q", "answer": answer}])
    with pytest.raises(DataError) as caught:
        numbers("a/b")
    assert str(caught.value) == f"a/b[train]:0: answer = {answer!r}: expected text, a number or another JSON value"


@pytest.mark.parametrize(("name", "expected"), [("a/b", ("a/b", None)), ("a/b:main", ("a/b", "main"))])
def test_the_name_of_a_data_set_may_hold_a_subset(monkeypatch, data_sets, name, expected):
    asked = []
    monkeypatch.setattr(data_sets, "load_dataset", lambda *a, split: asked.append((*a, split)) or ROWS)
    assert numbers(name, "test") == [2, 4]
    assert asked == [(*expected, "test")]


@pytest.mark.parametrize(
    ("source", "package", "extra"), [("gym", "reasoning_gym", "gym"), ("datasets", "datasets", "train")]
)
def test_a_missing_package_is_named(monkeypatch, source, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"needs the package {package}: pip install 'lhrm\[{extra}\]'"):
        read_problems(DataConfig(source=source, files=("x",)))
