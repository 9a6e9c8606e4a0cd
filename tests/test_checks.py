"""Checks take what their own JSON schema describes, and tell of what they refuse shortly."""

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lhrm_server.checks import boolean, integer, json_object, list_of, number, one_of, only, record, shown, text
from lhrm_server.errors import InvalidRequestError

CHECKS = {
    "text": text,
    "boolean": boolean,
    "object": json_object,
    "number": number(0, 2),
    "above": number(0, 1, above=True),
    "integer": integer(-1, 5),
    "one of": one_of(("a", "b")),
    "only": only(False, "no."),
    "list": list_of(integer(0, 3), low=1, high=2),
    "record": record({"a": integer(0, 3), "b": text}, required=("a",)),
}
numbers = st.integers(-3, 7) | st.sampled_from((-0.5, 0.0, 0.25, 0.5, 1.0, 1.5, 2.5))
plain = st.none() | st.booleans() | numbers | st.sampled_from(("a", "b", "c", ""))
names = st.sampled_from(("a", "b", "c"))
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3))


def takes(check, value):
    try:
        check("field", value)
    except InvalidRequestError:
        return False
    return True


@pytest.mark.parametrize("kind", CHECKS)
@given(value=values)
def test_a_check_takes_exactly_what_its_schema_describes(kind, value):
    check = CHECKS[kind]
    assert takes(check, value) == jsonschema.Draft202012Validator(check.schema).is_valid(value)


def test_a_record_leaves_out_null_and_names_its_members():
    check = record({"a": integer(0, 3), "b": text}, required=("a",))
    assert check("f", {"a": 1, "b": None, "other": []}) == {"a": 1}
    for value, param in (
        ({}, "f.a"),
        ({"a": None}, "f.a"),
        ({"a": 9}, "f.a"),
        ({"a": 1, "x" * 500: 1}, "f." + "x" * 100),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            check("f", value)
        assert caught.value.param == param


def test_the_place_in_a_list_is_named():
    with pytest.raises(InvalidRequestError) as caught:
        list_of(list_of(text))("f", [["a"], ["b", 3]])
    assert caught.value.param == "f[1][1]"


def test_a_further_step_sees_place_and_value():
    assert integer(0, 9).then(lambda param, value: (param, value + 1))("f", 4) == ("f", 5)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "null"),
        (True, "true"),
        (3, "3"),
        (0.5, "0.5"),
        (10**400, "a huge number"),
        ("abc", "'abc'"),
        ("x" * 61, f"'{'x' * 60}...'"),
        ([1], "a list"),
        ({"secret": 1}, "an object"),
    ],
)
def test_how_values_are_shown(value, words):
    assert shown(value) == words
