"""LangChain's ChatOpenAI against a running server: arguments are its URL and model."""

import sys
from importlib.metadata import version
from typing import Literal

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

EASY, HARD = "What is the capital of France?", "What is 48371+92615?"


class Verdict(BaseModel):
    """Whether a number is even."""

    even: bool


@tool
def weather(days: Literal[1, 2, 3]) -> str:
    """Tell the weather of the next days."""
    return f"sunny for {days} days"


def main(url: str, model: str) -> None:
    def chat(name: str = model, **fields) -> ChatOpenAI:
        return ChatOpenAI(model=name, base_url=f"{url}/v1", api_key="none", temperature=0, max_retries=0, **fields)

    easy, hard = chat().invoke(EASY), chat().invoke(HARD)
    assert (easy.content, hard.content) == ("Paris", "140986")
    assert hard.usage_metadata["output_token_details"]["reasoning"] > 0
    assert easy.usage_metadata["output_token_details"]["reasoning"] == 0
    # It drops fields that it does not know, so the mode is read from the headers and asked for by the model's name.
    told = chat(include_response_headers=True).invoke(HARD)
    assert told.response_metadata["headers"]["x-lhrm-mode"] == "think"
    forced = chat(f"{model}-no-think").invoke(HARD)
    assert forced.usage_metadata["output_token_details"]["reasoning"] == 0
    assert chat(reasoning_effort="high").invoke(EASY).usage_metadata["output_token_details"]["reasoning"] > 0
    streamed = list(chat(stream_usage=True).stream(HARD))
    assert "".join(chunk.content for chunk in streamed) == "140986"
    assert isinstance(chat().with_structured_output(Verdict, method="json_schema").invoke("Is 4 even?"), Verdict)
    called = chat().bind_tools([weather], tool_choice="weather").invoke("How will it be?")
    (call,) = called.tool_calls
    assert isinstance(call["args"]["days"], int)
    turns = [HumanMessage("How will it be?"), called, ToolMessage("sunny", tool_call_id=call["id"]), HumanMessage(EASY)]
    assert isinstance(chat().invoke(turns), AIMessage)


if __name__ == "__main__":
    main(*sys.argv[1:])
    print(f"langchain-openai {version('langchain-openai')}: as expected")
