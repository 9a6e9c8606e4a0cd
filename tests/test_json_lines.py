"""Files of JSON lines."""

import json

import pytest

from lhrm_train.json_lines import read_json_lines


def test_separators_within_a_string_end_no_line(tmp_path):
    values = [{"text": "one\u2028two\u2029three\u0085four\nfive"}, 2, "é"]
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in values), encoding="utf-8")
    assert read_json_lines(path) == values


def test_what_is_no_json_is_an_error(tmp_path):
    (tmp_path / "x.jsonl").write_text("{}\n{\n")
    with pytest.raises(ValueError, match="Expecting property name"):
        read_json_lines(tmp_path / "x.jsonl")
