"""Which setting of malloc a command takes: by the vocabulary of what it loads."""

import json
import sys

import pytest
from conftest import NANO

from lhrm_train import __main__ as command
from lhrm_train.allocator import KEEP_ALL, KEEP_SMALL, VARIABLE


class StartedAnewError(Exception):
    pass


@pytest.fixture
def setting(monkeypatch):
    """Return what a command line sets before it starts itself anew."""

    def of(*arguments):
        def started(program, words):
            raise StartedAnewError

        monkeypatch.setattr("os.execv", started)
        monkeypatch.delenv(VARIABLE, raising=False)
        monkeypatch.setattr(sys, "argv", ["lhrm_train", *map(str, arguments)])
        with pytest.raises(StartedAnewError):
            command.main()
        return command.os.environ[VARIABLE]

    return of


@pytest.fixture
def large(tmp_path):
    """A folder that claims a large vocabulary, and is a checkpoint otherwise."""
    for name in ("lhrm.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((NANO / name).read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 49_152}))
    return tmp_path


def test_small_vocabularies_keep_all_freed_memory(setting):
    assert setting("run", "nano", "--out", "x") == KEEP_ALL
    assert setting("run", "nano", "--out", "x", "--hft", NANO) == KEEP_ALL
    assert setting("eval", "--model", NANO, "--data", "suite", "--out", "x") == KEEP_ALL


def test_large_and_unknown_ones_give_the_large_blocks_back(setting, large, tmp_path):
    assert setting("run", "smol-cpu", "--out", "x", "--set", f"base.path={large}") == KEEP_SMALL
    assert setting("run", "nano", "--out", "x", "--hft", large) == KEEP_SMALL
    assert setting("eval", "--model", large, "--data", "suite", "--out", "x") == KEEP_SMALL
    assert setting("init", "--base", tmp_path, "--out", "x", "--name", "y") == KEEP_SMALL
