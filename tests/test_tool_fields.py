"""Tools, whether one must be called, and the grammar of a must."""

import json

import jsonschema
import pytest
from lhrm_server.answer_plan import ToolPlan
from lhrm_server.errors import InvalidRequestError
from lhrm_server.tool_fields import MOST_TOOLS, ToolUse, plan_tools, tool_choice, tools

TOWN = {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]}


def tool(name="weather", **function):
    return {"type": "function", "function": {"name": name, **function}}


def use(given, choice=None, parallel=None, trained=True):
    values = {"tools": tools("tools", given)}
    if choice is not None:
        values["tool_choice"] = tool_choice("tool_choice", choice)
    if parallel is not None:
        values["parallel_tool_calls"] = parallel
    return plan_tools(values, trained=trained)


def named(name):
    return {"type": "function", "function": {"name": name}}


def refused(*args, **kwargs):
    with pytest.raises(InvalidRequestError) as caught:
        use(*args, **kwargs)
    return caught.value


def test_a_definition():
    (told,) = use([tool(description="Tell it.", parameters=TOWN, strict=False)]).told
    assert (told.name, told.description, told.parameters) == ("weather", "Tell it.", TOWN)
    (bare,) = use([tool("now")]).told
    assert (bare.description, bare.parameters) == (None, {"type": "object", "properties": {}})


@pytest.mark.parametrize(
    ("given", "choice"), [([], None), ([], "auto"), ([], "none"), ([tool()], "none"), ([tool(strict=True)], "none")]
)
def test_what_asks_for_nothing(given, choice):
    assert use(given, choice, parallel=False, trained=False) == ToolUse()


def test_auto_is_the_default():
    for choice in (None, "auto"):
        found = use([tool()], choice)
        assert (found.plan, found.grammar) == (ToolPlan("auto"), None)
        assert [told.name for told in found.told] == ["weather"]


def test_a_model_that_was_not_trained_to_call_can_only_be_made_to():
    for choice in (None, "auto"):
        error = refused([tool()], choice, trained=False)
        assert (error.status, error.param) == (400, "tools")
        assert "not trained to call tools" in error.message
    assert use([tool()], "required", trained=False).plan == ToolPlan("required")
    assert use([tool()], named("weather"), trained=False).plan == ToolPlan("named", "weather")


def test_named():
    found = use([tool(parameters=TOWN), tool("now")], named("weather"))
    assert found.plan == ToolPlan("named", "weather")
    assert (found.grammar.kind, json.loads(found.grammar.value)) == ("json", TOWN)
    assert [told.name for told in found.told] == ["weather", "now"]


def test_required():
    found = use([tool(parameters=TOWN, strict=True), tool("now")], "required")
    assert json.loads(found.grammar.value) == {
        "type": "array",
        "minItems": 1,
        "items": {
            "anyOf": [
                {
                    "type": "object",
                    "properties": {"name": {"const": "weather"}, "parameters": TOWN},
                    "required": ["name", "parameters"],
                    "additionalProperties": False,
                },
                {
                    "type": "object",
                    "properties": {"name": {"const": "now"}, "parameters": {"type": "object", "properties": {}}},
                    "required": ["name", "parameters"],
                    "additionalProperties": False,
                },
            ]
        },
    }


def test_only_one_call():
    assert json.loads(use([tool()], "required", parallel=False).grammar.value)["maxItems"] == 1
    assert "maxItems" not in json.loads(use([tool()], "required", parallel=True).grammar.value)


def test_references_within_parameters_still_hold_in_the_list():
    parameters = {
        "type": "object",
        "properties": {"way": {"$ref": "#/$defs/way"}, "$ref": {"const": {"$ref": "#/untouched"}}},
        "$defs": {"way": {"anyOf": [{"type": "null"}, {"type": "array", "prefixItems": [{"$ref": "#/$defs/way"}]}]}},
    }
    schema = json.loads(use([tool("now"), tool("go", parameters=parameters)], "required").grammar.value)
    place = "#/$defs/go"
    assert schema["items"]["anyOf"][1]["properties"]["parameters"] == {"$ref": place}
    moved = schema["$defs"]["go"]
    assert moved["properties"] == {"way": {"$ref": f"{place}/$defs/way"}, "$ref": {"const": {"$ref": "#/untouched"}}}
    assert moved["$defs"]["way"]["anyOf"][1]["prefixItems"] == [{"$ref": f"{place}/$defs/way"}]
    jsonschema.validate([{"name": "go", "parameters": {"way": None}}], schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate([{"name": "go", "parameters": {"way": 3}}], schema)


@pytest.mark.parametrize(
    ("given", "choice", "parallel", "param"),
    [
        ("weather", None, None, "tools"),
        ([tool()] * (MOST_TOOLS + 1), None, None, "tools"),
        ([3], None, None, "tools[0]"),
        ([{"type": "web_search"}], None, None, "tools[0].type"),
        ([{"function": {"name": "f"}}], None, None, "tools[0].type"),
        ([{"type": "function"}], None, None, "tools[0].function"),
        ([tool("two words")], None, None, "tools[0].function.name"),
        ([tool("x" * 65)], None, None, "tools[0].function.name"),
        ([tool("")], None, None, "tools[0].function.name"),
        ([tool("a"), tool("b"), tool("a")], None, None, "tools[2].function.name"),
        ([tool(parameters=[1])], None, None, "tools[0].function.parameters"),
        ([tool(description=3)], None, None, "tools[0].function.description"),
        ([tool(examples=["x"])], None, None, "tools[0].function.examples"),
        ([tool(), tool("b", strict=True)], "auto", None, "tools[1].function.strict"),
        ([tool()], "auto", False, "parallel_tool_calls"),
        ([], "required", None, "tool_choice"),
        ([], named("weather"), None, "tool_choice"),
        ([tool()], "any", None, "tool_choice"),
        ([tool()], 3, None, "tool_choice"),
        ([tool()], {"type": "allowed_tools"}, None, "tool_choice.type"),
        ([tool()], {"type": "function"}, None, "tool_choice.function"),
        ([tool()], {"type": "function", "function": {}}, None, "tool_choice.function.name"),
        ([tool()], named("other"), None, "tool_choice.function.name"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(given, choice, parallel, param):
    assert refused(given, choice, parallel).param == param
