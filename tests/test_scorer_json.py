import pytest
from referencing.exceptions import Unresolvable

from lhrm_train.rewards import ScoreError
from tests.scoring import score


@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    [
        ('{"a": 1, "b": [true, null]}', '{"b": [true, null], "a": 1}', 1),
        ('{"a": 1}', ' {"a": 1.0}\n', 1),
        ('{"a": 1}', '{"a": 2}', 0),
        ('{"a": 1}', '{"a": true}', 0),
        ('{"a": 1}', '{"a": "1"}', 0),
        ("[1, 2]", "[2, 1]", 0),
        ("[0, 1]", "[false, true]", 0),
        ("0.1", "0.10", 1),
        ("9007199254740993", "9007199254740992", 0),  # equal as floats
        ("null", "", 0),
        ("null", "null", 1),
        ('{"a": 1}', '```json\n{"a": 1}\n```', 1),
        ('{"a": 1}', 'Here:\n```\n{"a": 1}\n```\nDone.', 1),
        ('{"a": 1}', '```json\n{"a": 2}\n```\n```json\n{"a": 1}\n```', 1),
        ('{"a": 1}', '```JSON \n{"a": 1}```', 1),
        ('{"a": 1}', '```python\n{"a": 1}\n```', 0),
        ('{"a": 1}', '```python\nx\n```\n```json\n{"a": 1}\n```', 1),
        ('{"a": 1}', '```json\n{"a": 1}', 0),
        ('{"a": 1}', 'Here: {"a": 1}', 0),
        ('{"a": 1}', "{'a': 1}", 0),
        ('{"a": 1}', '{"a": NaN}', 0),
        ('{"a": 1}', '{"a": 1', 0),
        ("1", "1e99999999999999999999", 0),
        ("1", "1" * 5000, 0),
        ("1", "[" * 100_000, 0),
    ],
)
def test_json(reference, answer, expected):
    assert score("json", reference, answer) == expected


@pytest.mark.parametrize("reference", ["", "{a}", "NaN"])
def test_json_needs_json_in_the_reference(reference):
    with pytest.raises(ScoreError, match="is not JSON"):
        score("json", reference, "1")


SCHEMA = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "minimum": 1}}}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('{"n": ' + "1" * 5000 + "}", 0),
        ('{"n": NaN}', 0),
        ('{"n": 1}', 1),
        ('{"n": 2, "x": 0}', 1),
        ('{"n": 0}', 0),
        ("{}", 0),
        ("n", 0),
    ],
)
def test_json_schema(answer, expected):
    assert score("json", "ignored", answer, json_schema=SCHEMA) == expected


@pytest.mark.parametrize(
    ("schema", "message"), [({"type": "intr"}, "is not a JSON Schema"), ("{}", "is not a mapping")]
)
def test_json_refuses_a_bad_schema(schema, message):
    with pytest.raises(ScoreError, match=message):
        score("json", "", "1", json_schema=schema)


def test_a_json_schema_is_not_fetched(monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **kwargs: pytest.fail("fetched"))
    with pytest.raises(Unresolvable, match=r"example\.invalid"):
        score("json", "", "1", json_schema={"$ref": "https://example.invalid/schema"})
