"""The remote engine behind a proxy that re-cuts, rewrites, cuts off or holds back what the server answers."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise

import pytest
from conftest import collect
from gateway_fixtures import no_think
from lhrm_server.engine import (
    EngineError,
    EngineTimeoutError,
    EngineUnreachableError,
    GenerationRequest,
    StopReason,
    TokenDelta,
)
from lhrm_server.engine_fake import Script
from lhrm_server.engine_remote import RemoteEngine
from lhrm_server.remote_check import Served
from lhrm_server.remote_place import Timeouts
from remote_fixtures import QUICK, asked, fake_vllm, listening, remote_engine
from torture_proxy import PLAIN, Torture, TortureProxy

from lhrm_train.format import Message, Mode, encode_chat

QUICK_TO_TIRE = Timeouts(connect_s=2, first_event_s=0.15, idle_s=0.15, total_s=5, control_s=5, health_s=2)
ANSWER = "naïve 思考\u2028🤔 ✓"


@dataclass
class Rig:
    """An engine that reaches its server through the proxy."""

    engine: RemoteEngine
    proxy: TortureProxy
    served: Served

    async def tortured(self, request: GenerationRequest, torture: Torture) -> list[TokenDelta]:
        """Return what a call gives under `torture`."""
        # After a cut the engine would ask first which server this is: four exchanges for one.
        self.engine._served = self.served
        self.proxy.torture = torture
        try:
            return await collect(self.engine.generate(request))
        finally:
            self.proxy.torture = PLAIN


@asynccontextmanager
async def rig(tokenizer, url: str | None = None, timeouts: Timeouts = QUICK, chunks: tuple[int, ...] = (1,)):
    """Give an engine behind a proxy before `url`, or before a scripted server."""
    script = Script(no_think_ids=no_think(tokenizer, ANSWER), chunks=chunks, p_think=0.3, tag_mass=0.75)
    async with AsyncExitStack() as stack:
        target = url or await stack.enter_async_context(listening(fake_vllm(tokenizer, script)))
        proxy = await stack.enter_async_context(TortureProxy(target).running())
        engine = remote_engine(proxy.url, tokenizer, timeouts=timeouts)
        await engine.start()
        stack.push_async_callback(engine.close)
        assert engine._served is not None
        yield Rig(engine, proxy, engine._served)


def answering(tokenizer) -> GenerationRequest:
    prompt = tuple(encode_chat(tokenizer, [Message("user", "What is 2+3?")], Mode.NO_THINK))
    return asked(prompt, "answer", max_tokens=40, temperature=0.0)


def deciding(tokenizer, tokens: int = 1) -> GenerationRequest:
    """Return the call that decides; with more than one token it is streamed."""
    prompt = tuple(encode_chat(tokenizer, [Message("user", "What is 2+3?")], None))
    tags = (tokenizer.tags.think, tokenizer.tags.no_think)
    return asked(prompt, "decide", max_tokens=tokens, temperature=0.0, allowed_token_ids=tags, logprob_token_ids=tags)


def scoring(tokenizer) -> GenerationRequest:
    return deciding(tokenizer, 2)


REQUESTS = {"answer": answering, "score": scoring}


def merged(deltas: Sequence[TokenDelta]) -> tuple:
    """Return what does not depend on how the engine grouped its tokens."""
    ids = [i for delta in deltas for i in delta.token_ids]
    rows = [row for delta in deltas for row in delta.logprobs or ()]
    return ids, rows, [delta.stop_reason for delta in deltas if delta.stop_reason]


def each_byte(body: bytes) -> list[bytes]:
    return [body[i : i + 1] for i in range(len(body))]


def each_event(body: bytes) -> list[bytes]:
    return [event + b"\n\n" for event in body.split(b"\n\n")[:-1]]


def inside_characters(body: bytes) -> list[bytes]:
    """Cut before every byte that continues a character."""
    places = [0, *(i for i, byte in enumerate(body) if byte & 0xC0 == 0x80), len(body)]
    return [body[a:b] for a, b in pairwise(places)]


def commented(body: bytes) -> list[bytes]:
    """Put comments, other fields and empty lines wherever a line may stand."""
    noise = b": keep-alive\n\n:\nevent: x\nid: 7\nretry: 1\n"
    return [noise + event.replace(b"\n\n", b"\n: \n\n\n") for event in each_event(body)]


def halved_data(body: bytes) -> list[bytes]:
    """Spread each JSON object over two data lines, which a newline joins again."""
    return [event.replace(b',"choices"', b'\ndata: ,"choices"') for event in each_event(body)]


HARMLESS = {
    "one piece": lambda body: [body],
    "each byte alone": each_byte,
    "each event alone": each_event,
    "events melted two and two": lambda body: [body[i : i + 700] for i in range(0, len(body), 700)],
    "cut inside characters": inside_characters,
    "CRLF": lambda body: [body.replace(b"\n", b"\r\n")],
    "CRLF, each byte alone": lambda body: each_byte(body.replace(b"\n", b"\r\n")),
    "CR": lambda body: [body.replace(b"\n", b"\r")],
    "CR, each byte alone": lambda body: each_byte(body.replace(b"\n", b"\r")),
    "byte order mark": lambda body: [b"\xef\xbb", b"\xbf" + body],
    "comments": commented,
    "comments, each byte alone": lambda body: each_byte(b"".join(commented(body))),
    "two data lines": halved_data,
    "more after the end": lambda body: [body + b"data: {}\n\ndata: garbage"],
}


@pytest.mark.parametrize("framed", [True, False], ids=["chunks", "no framing"])
@pytest.mark.parametrize("name", HARMLESS)
async def test_harmless_torture_changes_nothing(nano_tokenizer, name, framed):
    async with rig(nano_tokenizer) as tortured:
        for make in REQUESTS.values():
            request = make(nano_tokenizer)
            plain = await tortured.tortured(request, PLAIN)
            assert await tortured.tortured(request, Torture(HARMLESS[name], framed=framed)) == plain


def test_the_tortures_do_something(nano_tokenizer):
    body = 'data: {"a":"思","choices":[]}\n\ndata: [DONE]\n\n'.encode()
    given = {name: [piece for piece in torture(body) if piece] for name, torture in HARMLESS.items()}
    assert [name for name, pieces in given.items() if pieces == [body]] == ["one piece", "events melted two and two"]
    assert len(given["cut inside characters"]) == 3
    assert given["two data lines"][0] == 'data: {"a":"思"\ndata: ,"choices":[]}\n\n'.encode()


@pytest.mark.parametrize("make", [scoring, deciding])
async def test_a_cut_into_two_at_every_offset_changes_nothing(nano_tokenizer, make):
    async with rig(nano_tokenizer) as tortured:
        request = make(nano_tokenizer)
        plain = await tortured.tortured(request, PLAIN)
        body = tortured.proxy.bodies[-1]
        assert len(body) > 300
        for place in range(1, len(body)):
            halves = Torture(lambda body, place=place: [body[:place], body[place:]])
            assert await tortured.tortured(request, halves) == plain, place


CUT = r"closed the stream before the end|nothing answers"


@pytest.mark.parametrize("framed", [True, False], ids=["chunks", "no framing"])
@pytest.mark.parametrize(
    ("name", "ending", "step"), [("score", "close", 1), ("answer", "close", 9), ("answer", "reset", 40)]
)
async def test_a_connection_cut_at_any_offset_is_an_error_and_never_a_short_answer(
    nano_tokenizer, name, ending, step, framed
):
    async with rig(nano_tokenizer) as tortured:
        request = REQUESTS[name](nano_tokenizer)
        plain = await tortured.tortured(request, PLAIN)
        body = tortured.proxy.bodies[-1]
        # From the last line end of the last delta on, the answer is complete whatever follows.
        complete = body.index(b"data: [DONE]")
        for place in (*range(0, complete - 2, step), complete - 2, complete - 1):
            cut = Torture(lambda body, place=place: [body[:place]], ending, framed)
            with pytest.raises(EngineError, match=CUT):
                await tortured.tortured(request, cut)
        for place in (complete, complete + 4, len(body)):
            cut = Torture(lambda body, place=place: [body[:place]], "close", framed)
            assert await tortured.tortured(request, cut) == plain, place


@pytest.mark.parametrize("framed", [True, False], ids=["chunks", "no framing"])
async def test_a_decision_cut_at_any_offset_is_an_error(nano_tokenizer, framed):
    async with rig(nano_tokenizer) as tortured:
        request = deciding(nano_tokenizer)
        await tortured.tortured(request, PLAIN)
        for place in range(len(tortured.proxy.bodies[-1])):
            cut = Torture(lambda body, place=place: [body[:place]], "close", framed)
            with pytest.raises(EngineError, match="closed the stream before the end" if framed else "not JSON"):
                await tortured.tortured(request, cut)


async def test_a_connection_closed_before_any_byte_is_tried_twice_more(nano_tokenizer):
    async with rig(nano_tokenizer) as tortured:
        request = answering(nano_tokenizer)
        plain = await tortured.tortured(request, PLAIN)
        tortured.proxy.dropped = 2
        assert await tortured.tortured(request, PLAIN) == plain
        tortured.proxy.dropped = 4
        with pytest.raises(EngineUnreachableError, match="nothing answers"):
            await tortured.tortured(request, PLAIN)
        assert tortured.proxy.dropped == 1


async def test_a_connection_cut_after_the_head_is_not_tried_again(nano_tokenizer):
    async with rig(nano_tokenizer) as tortured:
        request = answering(nano_tokenizer)
        await tortured.tortured(request, PLAIN)
        tortured.proxy.bodies.clear()
        with pytest.raises(EngineError, match="closed the stream"):
            await tortured.tortured(request, Torture(lambda body: [body[:1]], "close"))
        assert len(tortured.proxy.bodies) == 1


@pytest.mark.parametrize("place", [0, 10, 400, -20])
async def test_a_stream_that_falls_silent_is_a_time_out(nano_tokenizer, place):
    async with rig(nano_tokenizer, timeouts=QUICK_TO_TIRE) as tortured:
        request = answering(nano_tokenizer)
        await tortured.tortured(request, PLAIN)
        until = tortured.proxy.bodies[-1].index(b"data: [DONE]")
        silent = Torture(lambda body: [body[: place if place >= 0 else until + place]], "stall")
        with pytest.raises(EngineTimeoutError, match="did not answer in time"):
            await tortured.tortured(request, silent)


async def test_a_decision_that_falls_silent_is_a_time_out(nano_tokenizer):
    async with rig(nano_tokenizer, timeouts=QUICK_TO_TIRE) as tortured:
        with pytest.raises(EngineTimeoutError, match="did not answer in time"):
            await tortured.tortured(deciding(nano_tokenizer), Torture(lambda body: [body[:50]], "stall"))


async def test_silence_after_the_last_delta_does_not_lose_the_answer(nano_tokenizer):
    async with rig(nano_tokenizer, timeouts=QUICK_TO_TIRE) as tortured:
        request = answering(nano_tokenizer)
        plain = await tortured.tortured(request, PLAIN)
        silent = Torture(lambda body: [body[: body.index(b"data: [DONE]")]], "stall")
        assert await tortured.tortured(request, silent) == plain


async def test_comments_do_not_keep_a_silent_engine_alive(nano_tokenizer):
    async with rig(nano_tokenizer, timeouts=QUICK_TO_TIRE) as tortured:
        only_comments = Torture(lambda body: [b": keep-alive\n\n"] * 2000, "stall")
        with pytest.raises(EngineTimeoutError):
            await tortured.tortured(answering(nano_tokenizer), only_comments)


DAMAGE = {
    "ends without an end": lambda body: [b"".join(each_event(body)[:-2]) + b"data: [DONE]\n\n"],
    "empty": lambda body: [],
    "only the end": lambda body: [b"data: [DONE]\n\n"],
    "not JSON": lambda body: [body.replace(b"{", b"(")],
    "no ids": lambda body: [body.replace(b'"token_ids"', b'"tokens"')],
    "not UTF-8": lambda body: [body.replace("思".encode(), b"\xff\xfe").replace(b'"text":"', b'"text":"\xff')],
    "an event without end": lambda body: [b"data: " + b"x" * (17 << 20)],
}


@pytest.mark.parametrize("name", DAMAGE)
async def test_a_damaged_stream_is_an_engine_error(nano_tokenizer, name):
    async with rig(nano_tokenizer) as tortured:
        with pytest.raises(EngineError) as failure:
            await tortured.tortured(answering(nano_tokenizer), Torture(DAMAGE[name]))
        assert type(failure.value) is EngineError
        assert await tortured.engine.healthy()


async def test_concurrent_tortured_streams_do_not_mix(nano_tokenizer):
    async with rig(nano_tokenizer) as tortured:
        tortured.proxy.torture = Torture(each_byte)
        requests = [asked((40,), f"r{i}", max_tokens=8 + i, allowed_token_ids=(40 + i,)) for i in range(8)]
        answers = await asyncio.gather(*(collect(tortured.engine.generate(request)) for request in requests))
        assert [merged(deltas)[0] for deltas in answers] == [[40 + i] * (8 + i) for i in range(8)]


@pytest.mark.vllm_serve
@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_torture_of_the_real_server_changes_nothing(loop_thread, nano_tokenizer, vllm_server, name):
    async def compare():
        async with rig(nano_tokenizer, vllm_server) as tortured:
            for make in REQUESTS.values():
                request = make(nano_tokenizer)
                ids, rows, reasons = merged(await tortured.tortured(request, PLAIN))
                again = merged(await tortured.tortured(request, Torture(HARMLESS[name])))
                assert (again[0], again[2]) == (ids, reasons)
                assert reasons in ([StopReason.STOP], [StopReason.LENGTH])
                for row, expected in zip(again[1], rows, strict=True):
                    assert row == pytest.approx(expected, abs=0.05)

    loop_thread.run(compare())


@pytest.mark.vllm_serve
def test_the_real_server_cut_anywhere_is_an_error(loop_thread, nano_tokenizer, vllm_server):
    async def cut_everywhere():
        async with rig(nano_tokenizer, vllm_server) as tortured:
            request = scoring(nano_tokenizer)
            await tortured.tortured(request, PLAIN)
            for place in range(0, tortured.proxy.bodies[-1].index(b"data: [DONE]"), 17):
                for framed in (True, False):
                    cut = Torture(lambda body, place=place: [unfinished(body)[:place]], "close", framed)
                    with pytest.raises(EngineError, match="closed the stream before the end"):
                        await tortured.tortured(request, cut)

    loop_thread.run(cut_everywhere())


def unfinished(body: bytes) -> bytes:
    """Return a stream up to the last line end of its last delta; another one of the same answer may be longer."""
    return body[: body.index(b"data: [DONE]") - 1]
