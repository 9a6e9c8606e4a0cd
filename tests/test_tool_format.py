import json

from lhrm_train.format import Message
from lhrm_train.tool_format import CALL_CLOSE, CALL_OPEN, Tool, ToolCall, render_tools, render_turn, with_tools

WEATHER = Tool("weather", "Tell the weather in a town.", {"type": "object", "properties": {"town": {"type": "string"}}})
NOW = Tool("now", None, {"type": "object", "properties": {}})


def test_definitions_are_one_json_object_in_each_line():
    text = render_tools([WEATHER, NOW])
    lines = text.split("<tools>\n")[1].split("\n</tools>")[0].splitlines()
    first, second = map(json.loads, lines)
    assert first == {
        "type": "function",
        "function": {"name": "weather", "description": WEATHER.description, "parameters": WEATHER.parameters},
    }
    assert second["function"] == {"name": "now", "parameters": NOW.parameters}
    assert text.count(CALL_OPEN) == text.count(CALL_CLOSE) == 1


def test_calls_follow_the_content_and_their_arguments_stay_as_they_were_written():
    calls = [ToolCall("weather", '{"town":  "Köln"}'), ToolCall("now", "{}")]
    assert render_turn("Let me see.", calls) == (
        "Let me see.\n"
        '<tool_call>\n{"name": "weather", "arguments": {"town":  "Köln"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    )
    assert render_turn("", calls[1:]).startswith(CALL_OPEN)
    assert (render_turn("only text", []), render_turn("", [])) == ("only text", "")


def test_tools_go_to_the_end_of_the_leading_system_message():
    user = Message("user", "hi")
    text = render_tools([NOW])
    assert with_tools([user], []) == (user,)
    assert with_tools([user], [NOW]) == (Message("system", text), user)
    assert with_tools([Message("system", "Be brief."), user], [NOW]) == (
        Message("system", f"Be brief.\n\n{text}"),
        user,
    )
    assert with_tools([Message("system", "")], [NOW]) == (Message("system", text),)
    assert with_tools([user, Message("system", "later")], [NOW])[0] == Message("system", text)
