"""Replies recomputed from vLLM's own token ids: random requests over the real engine, streamed and not.

What is expected is worked out here from whole lists of ids, with none of the gateway's parsing, counting or holding
back: where the tags are, what the bytes between them spell, where a stop string ends, what each id's probability was.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from conftest import serve_on_socket
from lhrm_server.app import create_app
from lhrm_server.settings import Settings
from pipeline_rig import TOKENIZER

from lhrm_train.format import Message, encode_chat

pytestmark = pytest.mark.engine

TAGS, END = TOKENIZER.tags, TOKENIZER.turn_end_id
REQUESTS = 60
QUESTIONS = (
    "What is 48371+92615?",
    "What is the capital of France?",
    "Hello!",
    "What is 7+8?",
    "Reverse the letters of gateway.",
    "Start at 3, add 4, times 7, add 2. Last digit?",
    "Say ünïcödé \U0001f30d, please.",
)
SYSTEM = "You are a helpful assistant."
SCHEMA = {
    "type": "object",
    "properties": {"a": {"enum": [1, 22, 333]}},
    "required": ["a"],
    "additionalProperties": False,
}


@dataclass
class Call:
    """One call of the engine: what was asked, and everything that came back."""

    request: Any
    ids: list[int] = field(default_factory=list)
    rows: list[Any] = field(default_factory=list)
    ended: str | None = None


class Recorder:
    """The real engine; keeps every call."""

    def __init__(self, engine):
        self._engine = engine
        self.calls: list[Call] = []

    def __getattr__(self, name):
        return getattr(self._engine, name)

    async def generate(self, request):
        call = Call(request)
        self.calls.append(call)
        async with aclosing(self._engine.generate(request)) as deltas:
            async for delta in deltas:
                call.ids += delta.token_ids
                call.rows += delta.logprobs or ()
                call.ended = delta.stop_reason.value if delta.stop_reason else None
                yield delta


@pytest.fixture(scope="module")
def recorder(vllm_engine):
    return Recorder(vllm_engine)


@pytest.fixture(scope="module")
def api(recorder, loop_thread) -> Iterator[httpx.Client]:
    for url in serve_on_socket(create_app(Settings(model_name="lhrm-nano"), recorder, TOKENIZER), loop_thread):
        with httpx.Client(base_url=url, timeout=60) as client:
            yield client


def drawn(rng: random.Random) -> dict[str, Any]:
    """Return the body of a random request."""
    messages = [{"role": "user", "content": rng.choice(QUESTIONS)}]
    if rng.random() < 0.3:
        messages.insert(0, {"role": "system", "content": SYSTEM})
    seed = rng.randrange(1000)
    body: dict[str, Any] = {"model": "lhrm-nano", "messages": messages, **({"seed": seed} if seed % 2 else {})}
    body["temperature"] = rng.choice((0, 0.7, 1.0))
    options: list[dict[str, Any]] = [
        {"n": rng.choice((2, 3))},
        {"max_tokens": rng.choice((1, 2, 5, 20, 90, 200))},
        {"stop": rng.choice((["1"], ["s", "a"], [" "], ["09", "0"], ["never"]))},
        {"logprobs": True, "top_logprobs": rng.choice((0, 2))},
    ]
    # Those that ask for modes could contradict each other.
    modes: list[dict[str, Any]] = [
        {},
        {"reasoning_effort": rng.choice(("none", "low", "high"))},
        {"thinking_token_budget": rng.choice((1, 4, 30, 400))},
        {"think_threshold": rng.choice((0.0, 0.3, 1.0))},
    ]
    body |= rng.choice(modes)
    for option in options:
        if rng.random() < 0.35:
            body |= option
    if rng.random() < 0.15:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
    return body


@dataclass
class Expected:
    """What the ids of one choice say."""

    reasoning: str | None
    content: str
    reasoning_tokens: int
    answer_tokens: int
    completion_tokens: int
    finish: str
    stop_string: str | None
    reasoning_ended: str | None
    logprobs: list[tuple[bytes, float]]


def text(ids: list[int]) -> str:
    return b"".join(TOKENIZER.token_bytes(token) for token in ids).decode("utf-8", "replace")


def first_stop(answer: list[int], stops: list[str]) -> tuple[int, int, str] | None:
    """Return how many ids it takes to complete the first stop string, where it begins in the text, and which it is."""
    for count in range(1, len(answer) + 1):
        spelled = text(answer[:count])
        found = [(spelled.index(stop) + len(stop), spelled.index(stop), stop) for stop in stops if stop in spelled]
        if found:
            _, begin, stop = min(found)
            return count, begin, stop
    return None


def begins(answer: list[int]) -> list[int]:
    """Return for each id of an ASCII answer the character that it begins."""
    at, out = 0, []
    for token in answer:
        out.append(at)
        at += len(TOKENIZER.token_bytes(token))
    return out


def expected(calls: list[Call], mode: str, stops: list[str]) -> Expected | None:
    """Work out one choice from its calls, None when the model left the format or ASCII."""
    ids = [token for call in calls for token in call.ids]
    rows = [row for call in calls for row in call.rows or [None] * len(call.ids)]
    closing = TAGS.think_end if mode == "think" else TAGS.no_think_end
    by_budget = len(calls) > 1 and TAGS.think_end not in calls[0].ids
    if by_budget:
        at = len(calls[0].ids)
        ids, rows = [*ids[:at], closing, *ids[at:]], [*rows[:at], None, *rows[at:]]
    closed = ids.index(closing) if closing in ids else len(ids)
    begin, stop = (closed + 1, len(ids)) if mode == "think" else (0, closed)
    if END in ids:
        stop = min(stop, ids.index(END))
    reasoning, answer = ids[:closed] if mode == "think" else [], ids[begin:stop]
    if END in reasoning or any(not TOKENIZER.token_bytes(token).isascii() for token in answer):
        return None
    if {*reasoning, *answer} & {*(getattr(TAGS, name) for name in ("think", "no_think", "think_end", "no_think_end"))}:
        return None
    hit = first_stop(answer, stops)
    counted, content, total = len(answer), text(answer), len(ids)
    if hit:
        counted, content, total = hit[0], content[: hit[1]], begin + hit[0]
    finish = "stop" if hit or END in ids else "length"
    ended = None if mode != "think" else "budget" if by_budget else "model" if closing in ids else "length"
    places = begins(answer[:counted])
    entries = [
        (TOKENIZER.token_bytes(token), rows[begin + i][token])
        for i, token in enumerate(answer[:counted])
        if rows[begin + i] is not None and (hit is None or places[i] < hit[1])
    ]
    return Expected(
        text(reasoning) if mode == "think" else None,
        content,
        len(reasoning),
        counted,
        total,
        finish,
        hit[2] if hit else None,
        ended,
        entries,
    )


def ask(api: httpx.Client, recorder: Recorder, body: dict[str, Any]) -> tuple[dict[str, Any], list[Call]]:
    recorder.calls.clear()
    reply = api.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json(), list(recorder.calls)


def streamed(api: httpx.Client, recorder: Recorder, body: dict[str, Any]) -> tuple[dict[str, Any], list[Call]]:
    """Put the chunks of a stream together, in the form of a reply."""
    recorder.calls.clear()
    asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
    choices: dict[int, dict[str, Any]] = {}
    with api.stream("POST", "/v1/chat/completions", json=asked) as reply:
        frames = [line.removeprefix("data: ") for line in reply.iter_lines() if line.startswith("data: ")]
    assert frames.pop() == "[DONE]"
    chunks = [json.loads(frame) for frame in frames]
    for part in (choice for chunk in chunks for choice in chunk["choices"]):
        mine = choices.setdefault(part["index"], {"message": {"content": "", "reasoning": None}, "logprobs": None})
        for name in ("content", "reasoning"):
            if part["delta"].get(name) is not None:
                mine["message"][name] = (mine["message"][name] or "") + part["delta"][name]
        if part.get("logprobs"):
            mine["logprobs"] = mine["logprobs"] or {"content": []}
            mine["logprobs"]["content"] += part["logprobs"]["content"]
        if part["finish_reason"]:
            mine |= {name: part.get(name) for name in ("finish_reason", "stop_reason", "lhrm")}
    last = chunks[-1]
    return {"choices": [choices[i] for i in sorted(choices)], "usage": last["usage"], "lhrm": last["lhrm"]}, list(
        recorder.calls
    )


def check(body: dict[str, Any], reply: dict[str, Any], calls: list[Call]) -> bool:
    """Compare a reply with what its calls say; tell whether all of it could be worked out."""
    mode, messages = reply["lhrm"]["mode"], [Message(m["role"], m["content"]) for m in body["messages"]]
    prompt = encode_chat(TOKENIZER, messages, None)
    decide = [call for call in calls if call.request.request_id.endswith("-decide")]
    opener = TAGS.think if mode == "think" else TAGS.no_think
    assert len(decide) == reply["lhrm"]["decide_tokens"] == (reply["lhrm"]["p_think"] is not None)
    assert all(list(call.request.prompt_ids) == prompt for call in decide)
    whole, wanted = True, []
    for index in range(body.get("n", 1)):
        mine = [call for call in calls if f"-{index}-" in call.request.request_id]
        assert list(mine[0].request.prompt_ids) == [*prompt, opener]
        want = expected(mine, mode, body.get("stop", []))
        whole &= want is not None
        wanted.append(want)
    for got, want in zip(reply["choices"], wanted, strict=True):
        if want is not None:
            compare(body, got, want)
    if whole:
        totals = [want for want in wanted if want]
        usage = reply["usage"]
        assert usage["prompt_tokens"] == len(prompt) + 1
        assert usage["completion_tokens"] == sum(want.completion_tokens for want in totals)
        reasoning = sum(want.reasoning_tokens for want in totals)
        assert usage["completion_tokens_details"]["reasoning_tokens"] == reasoning == reply["lhrm"]["reasoning_tokens"]
        assert reply["lhrm"]["answer_tokens"] == sum(want.answer_tokens for want in totals)
    return whole


def compare(body: dict[str, Any], got: dict[str, Any], want: Expected) -> None:
    assert got["message"]["content"] == want.content
    assert got["message"]["reasoning"] == want.reasoning
    assert got["finish_reason"] == want.finish
    assert got["stop_reason"] == want.stop_string
    assert got["lhrm"]["reasoning_ended_by"] == want.reasoning_ended
    if body.get("logprobs"):
        entries = (got["logprobs"] or {"content": []})["content"]
        assert [bytes(entry["bytes"]) for entry in entries] == [data for data, _ in want.logprobs]
        assert [entry["logprob"] for entry in entries] == pytest.approx([value for _, value in want.logprobs])
        assert all(len(entry["top_logprobs"]) == body["top_logprobs"] for entry in entries)


def test_replies_are_what_the_ids_say(api, recorder):
    rng = random.Random(7)
    whole, seen = 0, set()
    for _ in range(REQUESTS):
        body = drawn(rng)
        for way in (ask, streamed):
            reply, calls = way(api, recorder, body)
            try:
                whole += check(body, reply, calls)
            except AssertionError as exc:
                raise AssertionError(f"{way.__name__} {json.dumps(body)}: {json.dumps(reply)}") from exc
            seen |= {reply["lhrm"]["mode"]} | {choice["finish_reason"] for choice in reply["choices"]}
            seen |= {choice["lhrm"]["reasoning_ended_by"] for choice in reply["choices"]}
    assert whole >= 0.8 * 2 * REQUESTS, "most requests must be worked out to the end"
    assert seen >= {"think", "no_think", "stop", "length", "budget", "model"}
