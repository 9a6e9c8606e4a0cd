"""The official Python client, any major version, against a running server: arguments are its URL and model."""

import json
import sys

import openai
from pydantic import BaseModel

EASY, HARD = "What is the capital of France?", "What is 48371+92615?"
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"enum": [1, 2, 3]}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}


class Verdict(BaseModel):
    even: bool


def main(url: str, model: str) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)

    def ask(question: str, **fields):
        messages = [{"role": "user", "content": question}]
        return client.chat.completions.create(**{"model": model, "messages": messages, "temperature": 0, **fields})

    check_modes(ask)
    check_streams(ask)
    check_fields(ask)
    check_tools(ask)
    check_schema(client, model)
    check_errors(ask)
    assert model in [entry.id for entry in client.models.list()]


def check_modes(ask) -> None:
    easy, hard = ask(EASY), ask(HARD)
    assert (easy.choices[0].message.content, easy.lhrm["mode"]) == ("Paris", "no_think")
    assert (hard.choices[0].message.content, hard.lhrm["mode"]) == ("140986", "think")
    assert hard.choices[0].message.reasoning_content
    assert easy.usage.completion_tokens_details.reasoning_tokens == 0
    assert hard.usage.completion_tokens_details.reasoning_tokens == hard.lhrm["reasoning_tokens"] > 0
    assert ask(EASY, reasoning_effort="high").lhrm["mode"] == "think"
    assert ask(HARD, reasoning_effort="none").lhrm["mode"] == "no_think"
    assert ask(EASY, extra_headers={"X-LHRM-Mode": "think"}).lhrm["source"] == "request"
    raw = ask(HARD, extra_body={"thinking_token_budget": 7})
    assert raw.usage.completion_tokens_details.reasoning_tokens == 7
    assert raw.choices[0].lhrm["reasoning_ended_by"] == "budget"


def check_streams(ask) -> None:
    whole = ask(HARD)
    chunks = list(ask(HARD, stream=True, stream_options={"include_usage": True}))
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == whole.choices[0].message.content
    reasoning = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert reasoning == whole.choices[0].message.reasoning_content
    assert chunks[-1].usage == whole.usage


def check_fields(ask) -> None:
    three = ask(EASY, n=3, temperature=1, seed=5)
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    assert three.choices == ask(EASY, n=3, temperature=1, seed=5).choices
    cut = ask("Reverse HELLO.", reasoning_effort="none", stop=["LE"])
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == ("OL", "stop")
    scored = ask(EASY, logprobs=True, top_logprobs=2).choices[0]
    spelled = b"".join(bytes(entry.bytes) for entry in scored.logprobs.content)
    assert spelled.decode() == scored.message.content
    assert all(len(entry.top_logprobs) == 2 for entry in scored.logprobs.content)


def check_tools(ask) -> None:
    # The nano was not trained to call tools: without this it would go on calling them.
    one = {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False}
    for effort in ("none", "low"):
        choice = ask("How is the weather?", reasoning_effort=effort, **one).choices[0]
        assert choice.finish_reason == "tool_calls"
        call = choice.message.tool_calls[0]
        assert call.function.name == "weather"
        assert set(json.loads(call.function.arguments)) == {"city", "days"}


def check_schema(client, model: str) -> None:
    parsed = client.chat.completions.parse(
        model=model, messages=[{"role": "user", "content": "Is 4 even?"}], response_format=Verdict, temperature=0
    )
    assert isinstance(parsed.choices[0].message.parsed, Verdict)


def check_errors(ask) -> None:
    for fields, kind, param in (
        ({"temperature": 3}, openai.BadRequestError, "temperature"),
        ({"model": "gpt-5"}, openai.NotFoundError, "model"),
        ({"extra_body": {"colour": 1}}, openai.BadRequestError, "colour"),
    ):
        try:
            ask(EASY, **fields)
        except kind as exc:
            assert exc.param == param, exc
            assert exc.request_id
        else:
            raise AssertionError(f"{fields} was accepted")


if __name__ == "__main__":
    main(*sys.argv[1:])
    print(f"openai {openai.__version__}: as expected")
