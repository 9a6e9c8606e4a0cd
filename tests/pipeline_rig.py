"""A pipeline over a scripted engine, without HTTP: jobs in, events and what the wire makes of them out."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from gateway_fixtures import frames, load_tokenizer, scripted
from lhrm_server.accounting import RequestFacts, UsageRecord
from lhrm_server.answer_plan import AnswerPlan
from lhrm_server.chat import ChatEvent, ChatJob, ChatPipeline, Finished, Generated
from lhrm_server.control import Wish
from lhrm_server.deltas import AnswerDelta, ReasoningDelta, TokenLogprob, ToolCallDelta
from lhrm_server.engine_fake import FakeEngine
from lhrm_server.framer import StreamFramer
from lhrm_server.ledger import Ledger
from lhrm_server.metrics import Metrics
from lhrm_server.policy import ModePlan, Source
from lhrm_server.prompt import PromptBuilder
from lhrm_server.reply import Collector
from lhrm_server.request import SamplingFields
from lhrm_server.wire import ReplyForm

from lhrm_train.format import Message

TOKENIZER = load_tokenizer()


@dataclass(frozen=True)
class Plan(ModePlan):
    """A plan with every setting of the reasoning."""

    budget: int | None = None
    answer_reserve: int = 0
    retry_unanswered: bool = False


class Rig:
    """A pipeline with all that it wrote down."""

    def __init__(self, limit: int = 8, engine: Any = None, max_model_len: int = 512, **script: Any) -> None:
        self.engine = engine or FakeEngine(TOKENIZER, scripted(TOKENIZER, **script), max_model_len)
        self.records: list[UsageRecord] = []
        self.metrics = Metrics("m")
        ledger = Ledger(self.metrics, self.records.append)
        self.pipeline = ChatPipeline(self.engine, TOKENIZER, ledger, self.metrics, limit)

    async def run(self, *args: Any, **fields: Any) -> AsyncGenerator[ChatEvent, None]:
        if not await self.engine.healthy():
            await self.engine.start()
        return self.pipeline.run(job(*args, **fields))

    async def events(self, *args: Any, **fields: Any) -> list[ChatEvent]:
        return [event async for event in await self.run(*args, **fields)]

    async def body(self, asked: ChatJob, form: ReplyForm | None = None) -> dict[str, Any]:
        """Return the reply to a job."""
        return body_of(asked, await self.job(asked), form)

    async def chunks(self, asked: ChatJob, form: ReplyForm | None = None) -> list[Any]:
        """Return the chunks of the stream that answers a job."""
        return chunks_of(asked, await self.job(asked), form)

    async def job(self, asked: ChatJob) -> list[ChatEvent]:
        """Return the events of a job."""
        if not await self.engine.healthy():
            await self.engine.start()
        return [event async for event in self.pipeline.run(asked)]


def job(
    wish: Wish = Wish.AUTO,
    threshold: float = 0.5,
    max_tokens: int = 200,
    *,
    text: str = "hi",
    n: int = 1,
    answer: AnswerPlan | None = None,
    budget: int | None = None,
    answer_reserve: int = 0,
    retry_unanswered: bool = False,
    **sampling: Any,
) -> ChatJob:
    """Return a job."""
    prompt = PromptBuilder(TOKENIZER, 1 << 20).build((Message("user", text),), max_tokens)
    facts = RequestFacts("r", "c", "m", False, wish, prompt.prompt_tokens, max_tokens, time.monotonic(), n)
    source = Source.MODEL if wish is Wish.AUTO else Source.REQUEST
    plan = Plan(wish, source, threshold, budget, answer_reserve, retry_unanswered)
    return ChatJob(facts, plan, prompt, SamplingFields(**sampling), answer or AnswerPlan(), n)


def body_of(asked: ChatJob, events: list[ChatEvent], form: ReplyForm | None = None) -> dict[str, Any]:
    """Return what a reply makes of events."""
    collector = Collector(form or _form(asked), asked.n)
    for event in events:
        collector.take(event)
    assert collector.record is not None
    return collector.body(collector.record)


def chunks_of(asked: ChatJob, events: list[ChatEvent], form: ReplyForm | None = None) -> list[Any]:
    """Return what a stream makes of events."""
    framer = StreamFramer(asked.facts, form or _form(asked))
    return frames(b"".join(frame for event in events for frame in framer.frames(event)).decode())


def _form(asked: ChatJob) -> ReplyForm:
    return ReplyForm(logprobs=asked.answer.top_logprobs is not None)


def spelled(events: list[ChatEvent], kind: type, index: int = 0) -> str:
    """Return the text of one kind of delta of one choice."""
    return "".join(delta.text for delta in deltas(events, index) if isinstance(delta, kind))


def deltas(events: list[ChatEvent], index: int = 0) -> list[ReasoningDelta | AnswerDelta | ToolCallDelta]:
    """Return the deltas of one choice."""
    return [
        delta for event in events if isinstance(event, Generated) and event.index == index for delta in event.deltas
    ]


def entries(events: list[ChatEvent], index: int = 0) -> list[TokenLogprob]:
    """Return the log-probabilities of one choice."""
    return [entry for d in deltas(events, index) if isinstance(d, AnswerDelta) for entry in d.logprobs]


def record_of(events: list[ChatEvent]) -> UsageRecord:
    """Return the record of a request that finished."""
    assert isinstance(events[-1], Finished)
    return events[-1].record


def gathered(chunks: list[Any], index: int = 0) -> dict[str, Any]:
    """Return what a client makes of the chunks of one choice."""
    whole: dict[str, Any] = {"reasoning": "", "content": "", "logprobs": [], "calls": {}, "finish": []}
    for chunk in chunks:
        for choice in chunk["choices"]:
            if choice["index"] != index:
                continue
            delta = choice["delta"]
            assert delta.get("reasoning") == delta.get("reasoning_content")
            whole["reasoning"] += delta.get("reasoning") or ""
            whole["content"] += delta.get("content") or ""
            whole["logprobs"] += (choice["logprobs"] or {"content": []})["content"]
            for call in delta.get("tool_calls", []):
                known = whole["calls"].setdefault(call["index"], {"id": None, "name": None, "arguments": ""})
                known["id"] = known["id"] or call.get("id")
                known["name"] = known["name"] or call["function"].get("name")
                known["arguments"] += call["function"]["arguments"]
            if choice["finish_reason"]:
                whole["finish"].append((choice["finish_reason"], choice["stop_reason"], choice["lhrm"]))
    return whole


def same(asked: ChatJob, events: list[ChatEvent], form: ReplyForm | None = None) -> dict[str, Any]:
    """Assert that stream and reply agree on every choice; return the reply."""
    body, chunks = body_of(asked, events, form), chunks_of(asked, events, form)
    for choice in body["choices"]:
        message, seen = choice["message"], gathered(chunks, choice["index"])
        assert seen["content"] == (message["content"] or "")
        assert seen["reasoning"] == (message.get("reasoning") or "")
        assert seen["logprobs"] == (choice["logprobs"] or {"content": []})["content"]
        assert [(c["id"], c["name"], c["arguments"]) for c in seen["calls"].values()] == [
            (c["id"], c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls", [])
        ]
        assert seen["finish"] == [(choice["finish_reason"], choice["stop_reason"], choice["lhrm"])]
    finished = [chunk for chunk in chunks if any(choice["finish_reason"] for choice in chunk["choices"])]
    assert finished[-1]["lhrm"] == body["lhrm"]
    return body
