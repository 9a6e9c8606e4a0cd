"""A disk that fills, or a process that dies, leaves the old file and nothing beside it."""

import errno
import os

import pytest

from lhrm_train.atomic import replace_directory, write_bytes, write_json, write_text
from lhrm_train.format import Manifest
from lhrm_train.rows import ContextRow, context_log, read_context_rows, write_rows

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fills(*_):
    raise FULL


@pytest.mark.parametrize("where", ["fsync", "replace"])
@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_bytes(path, b"new"),
        lambda path: write_text(path, "new"),
        lambda path: write_json(path, {"new": 1}),
        lambda path: write_rows(path, [ROW]),
    ],
)
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, where, write):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(f"lhrm_train.atomic.os.{where}", fills)
    with pytest.raises(OSError, match="No space left"):
        write(path)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("file", b"old")]


def test_what_is_written(tmp_path):
    write_text(tmp_path / "deep" / "text", "é\n")
    assert (tmp_path / "deep" / "text").read_bytes() == b"\xc3\xa9\n"
    write_json(tmp_path / "json", {"a": ["é", None]})
    assert (tmp_path / "json").read_text() == '{\n "a": [\n  "é",\n  null\n ]\n}\n'
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["deep", "json", "text"]


def test_a_manifest_survives_a_full_disk(tmp_path, monkeypatch, nano_tokenizer):
    manifest = nano_tokenizer.manifest
    manifest.save(tmp_path)
    monkeypatch.setattr("lhrm_train.atomic.os.replace", fills)
    with pytest.raises(OSError, match="No space left"):
        Manifest("other", manifest.tags).save(tmp_path)
    assert Manifest.load(tmp_path) == manifest
    assert [p.name for p in tmp_path.iterdir()] == ["lhrm.json"]


ROW = ContextRow("bare", "add", 1, "k", 0.5, (1.0,), 0)


def test_packed_rows_that_have_not_changed_are_not_written(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl.gz"
    write_rows(path, [ROW])
    monkeypatch.setattr("lhrm_train.atomic.os.replace", fills)
    write_rows(path, [ROW])
    assert read_context_rows(path) == [ROW]


def test_half_a_row_on_a_full_disk_is_cut_by_the_next_call(tmp_path):
    log = context_log(tmp_path / "rows.jsonl")
    log.append([ROW])
    with log.path.open("ab") as file:
        file.write(b'{"variant":"ba')
    assert log.read() == [ROW]
    log.keep(log.read())
    log.append([ROW])
    assert log.read() == [ROW, ROW]


def test_a_directory_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / "target"

    def write(fresh, text):
        (fresh / "file").write_text(text)
        if text == "bad":
            raise FULL

    replace_directory(target, lambda fresh: write(fresh, "old"))
    with pytest.raises(OSError, match="No space left"):
        replace_directory(target, lambda fresh: write(fresh, "bad"))
    assert (target / "file").read_text() == "old"
    replace_directory(target, lambda fresh: write(fresh, "new"))
    assert (target / "file").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["target"]
