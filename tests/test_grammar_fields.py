"""response_format and structured_outputs come to one grammar of the answer, or are refused by name."""

import json

import pytest
from lhrm_server.engine import Grammar
from lhrm_server.errors import InvalidRequestError
from lhrm_server.grammar_fields import MOST_NESTED, answer_grammar, response_format, structured_outputs

SCHEMA = {"type": "object", "properties": {"größe": {"type": "integer"}}}
SCHEMA_TEXT = '{"type":"object","properties":{"größe":{"type":"integer"}}}'


def schema_format(**changes):
    return {"type": "json_schema", "json_schema": {"name": "size", "schema": SCHEMA, **changes}}


def nested(levels):
    schema = {}
    for _ in range(levels - 1):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    ("value", "grammar"),
    [
        ({"type": "text"}, None),
        ({"type": "text", "json_schema": None}, None),
        ({"type": "json_object"}, Grammar("json", '{"type":"object"}')),
        (schema_format(), Grammar("json", SCHEMA_TEXT)),
        (schema_format(strict=True), Grammar("json", SCHEMA_TEXT)),
        (schema_format(strict=False, description=None), Grammar("json", SCHEMA_TEXT)),
    ],
)
def test_response_format(value, grammar):
    assert response_format("response_format", value) == grammar


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ("json", "response_format"),
        ({}, "response_format.type"),
        ({"type": "xml"}, "response_format.type"),
        ({"type": 3}, "response_format.type"),
        ({"type": "json_schema"}, "response_format.json_schema"),
        ({"type": "text", "json_schema": {"name": "n", "schema": {}}}, "response_format.json_schema"),
        ({"type": "json_schema", "json_schema": {"schema": {}}}, "response_format.json_schema.name"),
        ({"type": "json_schema", "json_schema": {"name": "n"}}, "response_format.json_schema.schema"),
        (schema_format(name="two words"), "response_format.json_schema.name"),
        (schema_format(schema="{}"), "response_format.json_schema.schema"),
        (schema_format(strict="yes"), "response_format.json_schema.strict"),
        (schema_format(description="A size."), "response_format.json_schema.description"),
        (schema_format(schema=nested(MOST_NESTED + 1)), "response_format.json_schema.schema"),
        ({"type": "text", "grammar": "x"}, "response_format.grammar"),
    ],
)
def test_formats_that_cannot_be_honoured(value, param):
    with pytest.raises(InvalidRequestError) as caught:
        response_format("response_format", value)
    assert caught.value.param == param


def test_the_deepest_schema_that_is_taken():
    assert response_format("r", schema_format(schema=nested(MOST_NESTED))) is not None


@pytest.mark.parametrize(
    ("value", "grammar"),
    [
        ({}, None),
        ({"json": None}, None),
        ({"json": SCHEMA}, Grammar("json", SCHEMA_TEXT)),
        ({"json": json.dumps(SCHEMA)}, Grammar("json", SCHEMA_TEXT)),
        ({"regex": "[a-z]+"}, Grammar("regex", "[a-z]+")),
        ({"choice": ["ja", "nö"]}, Grammar("choice", '["ja", "nö"]')),
        ({"grammar": 'root ::= "a"'}, Grammar("grammar", 'root ::= "a"')),
    ],
)
def test_structured_outputs(value, grammar):
    assert structured_outputs("structured_outputs", value) == grammar


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ([1], "structured_outputs"),
        ({"json": "{"}, "structured_outputs.json"),
        ({"json": "[1]"}, "structured_outputs.json"),
        ({"json": 3}, "structured_outputs.json"),
        ({"json": json.dumps(nested(MOST_NESTED + 1))}, "structured_outputs.json"),
        ({"regex": ""}, "structured_outputs.regex"),
        ({"regex": 3}, "structured_outputs.regex"),
        ({"choice": []}, "structured_outputs.choice"),
        ({"choice": ["a", 1]}, "structured_outputs.choice[1]"),
        ({"choice": ["a", ""]}, "structured_outputs.choice[1]"),
        ({"grammar": ["x"]}, "structured_outputs.grammar"),
        ({"structural_tag": "x"}, "structured_outputs.structural_tag"),
        ({"json": {}, "whitespace_pattern": " "}, "structured_outputs.whitespace_pattern"),
        ({"regex": "a", "choice": ["a"]}, "structured_outputs.regex, structured_outputs.choice"),
    ],
)
def test_structures_that_cannot_be_honoured(value, param):
    with pytest.raises(InvalidRequestError) as caught:
        structured_outputs("structured_outputs", value)
    assert caught.value.param == param


def test_one_grammar_at_most():
    grammar = Grammar("regex", "a")
    assert answer_grammar({}) == (None, None)
    assert answer_grammar({"response_format": None, "structured_outputs": grammar}) == (grammar, "structured_outputs")
    with pytest.raises(InvalidRequestError) as caught:
        answer_grammar({"response_format": grammar, "structured_outputs": grammar})
    assert caught.value.param == "response_format, structured_outputs"
