"""How a checkpoint asks to be sampled."""

import json
from pathlib import Path

import pytest
from conftest import NANO
from lhrm_server.checkpoint_sampling import checkpoint_sampling
from lhrm_server.engine import EngineError

WRITTEN = {
    "nothing": ({}, {}),
    "greedy": ({"do_sample": False, "eos_token_id": 2}, {"temperature": 0.0}),
    "sampled": ({"do_sample": True, "temperature": 0.7, "top_k": 20}, {"temperature": 0.7, "top_k": 20}),
    "greedy before a temperature": ({"do_sample": False, "temperature": 0.7}, {"temperature": 0.0}),
    "null is nothing": ({"temperature": None}, {}),
    "a length is no sampling": ({"max_new_tokens": 3}, {}),
}


@pytest.mark.parametrize(("written", "expected"), WRITTEN.values(), ids=WRITTEN.keys())
def test_what_the_file_says(tmp_path: Path, written, expected):
    (tmp_path / "generation_config.json").write_text(json.dumps(written))
    assert checkpoint_sampling(tmp_path) == expected


def test_a_checkpoint_without_the_file_says_nothing(tmp_path: Path):
    assert checkpoint_sampling(tmp_path) == {}
    assert checkpoint_sampling(NANO)["temperature"] == 0.0


@pytest.mark.parametrize("text", ["{", "[]", "\ufeff{}"])
def test_a_broken_file_is_named(tmp_path: Path, text):
    path = tmp_path / "generation_config.json"
    path.write_text(text)
    with pytest.raises(EngineError, match=r"cannot read .*generation_config\.json"):
        checkpoint_sampling(tmp_path)
