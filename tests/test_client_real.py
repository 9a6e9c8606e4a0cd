"""Both clients against stock vLLM and the shipped nano: leaving stops the engine, models are filled in."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest
from client_shell import Shell
from gateway_fixtures import eventually
from lhrm_client import AsyncLHRM, Finished, ModeChosen, ReasoningDelta, tool_result
from pydantic import BaseModel, Field

pytestmark = pytest.mark.engine

# A chain far longer than any it was trained on keeps the model busy for hundreds of tokens.
LONG = "Start at 4" + ", add 3" * 100 + ". Last digit?"


class Capital(BaseModel):
    """The capital of a country."""

    city: Literal["Paris", "Tokyo", "Rome"]
    sure: bool


class Add(BaseModel):
    """Add two numbers."""

    a: int = Field(ge=0, le=99)
    b: int = Field(ge=0, le=99)


@pytest.fixture(params=["sync", "async"])
def live(request, real_gateway) -> Shell:
    return Shell(request.param == "async", real_gateway)


def test_the_model_decides_and_a_stream_adds_up(live):
    easy = live.chat(None, "What is the capital of France?", temperature=0)
    assert (easy.answer, easy.mode, easy.source, easy.reasoning) == ("Paris", "no_think", "model", None)
    low, high = easy.savings.interval
    assert low <= easy.savings.tokens <= high
    first, *deltas, _, last = live.stream(None, "What is 48371+92615?", temperature=0)
    assert isinstance(first, ModeChosen)
    assert isinstance(last, Finished)
    assert (last.result.answer, last.result.mode, last.result.savings.tokens) == ("140986", "think", 0)
    assert "".join(delta.text for delta in deltas) == last.result.reasoning + last.result.answer
    assert len(deltas) > 10


def test_closing_a_stream_stops_the_engine(live, vllm_engine):
    with live.session() as lhrm:
        stream = lhrm.get("stream", LONG, mode="think", max_tokens=500)
        assert isinstance(stream.next(), ModeChosen)
        assert isinstance(stream.next(), ReasoningDelta)
        assert vllm_engine._running
        stream.do("close")
        eventually(lambda: not vllm_engine._running)


async def test_cancelling_a_whole_answer_stops_the_engine(real_gateway, vllm_engine):
    async with AsyncLHRM(real_gateway) as lhrm:
        task = asyncio.create_task(lhrm.chat(LONG, mode="think", max_tokens=500))
        await asyncio.to_thread(eventually, lambda: vllm_engine._running)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(eventually, lambda: not vllm_engine._running)


@pytest.mark.parametrize("mode", ["think", "no_think"])
def test_an_answer_fills_a_model(live, mode):
    result = live.chat(None, "What is the capital of France?", answer_type=Capital, mode=mode, max_tokens=200)
    assert isinstance(result.answer_as(Capital), Capital)
    assert bool(result.reasoning) == (mode == "think")


def test_a_tool_is_called_and_its_result_taken_up(live):
    with live.session() as lhrm:
        conversation = lhrm.get("conversation", mode="no_think", max_tokens=200)
        events = conversation.do("stream", "What is 2+3?", tools=[Add], tool_choice=Add)
        (call,) = events[-1].result.tool_calls
        filled = call.arguments_as(Add)
        assert 0 <= filled.a <= 99
        assert conversation.do("chat", [tool_result(call, filled.a + filled.b)]).ended_by == "stop"
