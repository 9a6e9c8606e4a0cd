"""LiteLLM as a library in front of a running server: arguments are its URL and model."""

import json
import sys
from importlib.metadata import version

import litellm

EASY, HARD = "What is the capital of France?", "What is 48371+92615?"
TOOL = {
    "type": "function",
    "function": {
        "name": "pick",
        "parameters": {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]},
    },
}


def main(url: str, model: str) -> None:
    for provider in ("openai", "hosted_vllm"):

        def ask(question: str, name: str = model, provider: str = provider, **fields):
            return litellm.completion(
                model=f"{provider}/{name}",
                api_base=f"{url}/v1",
                api_key="none",
                messages=[{"role": "user", "content": question}],
                temperature=0,
                **fields,
            )

        check(ask, model)


def check(ask, model: str) -> None:
    easy, hard = ask(EASY), ask(HARD)
    assert easy.choices[0].message.content == "Paris"
    assert hard.choices[0].message.content == "140986"
    assert hard.choices[0].message.reasoning_content
    assert hard.usage.completion_tokens_details.reasoning_tokens > 0
    assert ask(HARD, name=f"{model}-no-think").usage.completion_tokens_details.reasoning_tokens == 0
    assert ask(EASY, name=f"{model}-think").choices[0].message.reasoning_content
    assert not getattr(ask(HARD, extra_body={"reasoning_effort": "none"}).choices[0].message, "reasoning_content", None)
    chunks = list(ask(HARD, stream=True))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == "140986"
    reasoning = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert reasoning == hard.choices[0].message.reasoning_content
    call = ask("Which city?", tools=[TOOL], tool_choice="required").choices[0].message.tool_calls[0]
    assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")
    try:
        ask(EASY, extra_body={"colour": 1})
    except litellm.BadRequestError as exc:
        assert "colour" in str(exc)
    else:
        raise AssertionError("an unknown field was accepted")


if __name__ == "__main__":
    main(*sys.argv[1:])
    print(f"litellm {version('litellm')}: as expected")
