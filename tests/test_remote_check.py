"""What the start of a remote engine finds out: one clear line for each thing that can be wrong with a server."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from conftest import collect
from fake_vllm import error
from lhrm_server.engine import EngineError, EngineTimeoutError, EngineUnreachableError, TokenDelta
from lhrm_server.engine_fake import FakeEngine, Script
from lhrm_server.remote_place import Timeouts
from remote_fixtures import asked, fake_vllm, free_port, listening, remote_engine
from starlette.responses import JSONResponse, PlainTextResponse, Response

IMPATIENT = Timeouts(connect_s=0.5, control_s=0.3, health_s=0.3, first_event_s=0.5)


async def failure_of(server, tokenizer, **options) -> EngineError:
    """Start an engine on a server that is not in order; return the error."""
    async with listening(server) as url:
        engine = remote_engine(url, tokenizer, **options)
        with pytest.raises(EngineError) as failure:
            await engine.start()
        assert not await engine.healthy()
        assert "\n" not in str(failure.value)
        assert url in str(failure.value) or "API key" in str(failure.value)
        return failure.value


@asynccontextmanager
async def raw_server(handler) -> AsyncIterator[str]:
    """Serve connections with `handler`; give the URL."""
    over = asyncio.Event()

    async def handle(reader, writer):
        await handler(reader, writer)
        writer.close()
        await writer.wait_closed()
        over.set()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    await over.wait()


async def test_a_good_server_is_described(nano_tokenizer):
    async with listening(fake_vllm(nano_tokenizer)) as url:
        engine = remote_engine(url, nano_tokenizer)
        await engine.start()
        await engine.start()
        info = engine.info
        await engine.close()
    assert (info.kind, info.version, info.max_model_len) == ("remote", "0.32.0", 1024)
    assert info.details == {"model": "lhrm-nano"}
    assert info.recovers


async def test_nothing_listens(nano_tokenizer):
    engine = remote_engine(f"http://127.0.0.1:{free_port()}", nano_tokenizer)
    with pytest.raises(EngineUnreachableError, match="nothing answers at http://"):
        await engine.start()


async def test_what_listens_says_nothing(nano_tokenizer):
    async def silent(reader, writer):
        await reader.read()

    async with raw_server(silent) as url:
        with pytest.raises(EngineTimeoutError, match=f"{url} did not answer in time"):
            await remote_engine(url, nano_tokenizer, timeouts=IMPATIENT).start()


async def test_what_listens_does_not_speak_http(nano_tokenizer):
    async def ssh(reader, writer):
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        await writer.drain()

    async with raw_server(ssh) as url:
        with pytest.raises(EngineError, match=url):
            await remote_engine(url, nano_tokenizer, timeouts=IMPATIENT).start()


HTML = PlainTextResponse("<html>", 200, media_type="text/html")
GONE = JSONResponse({"detail": "Not Found"}, 404)
NOT_VLLM = {
    "no health": ("/health", GONE, "is not a vLLM server: GET /health gives 404"),
    "the engine inside is dead": ("/health", Response(status_code=503), "is up, but its engine is not"),
    "no models": ("/v1/models", GONE, "GET /v1/models: .*404"),
    "a page for everything": ("/v1/models", HTML, "GET /v1/models gives no JSON"),
    "a list": ("/v1/models", JSONResponse([]), "gives no JSON object"),
    "an empty list": ("/v1/models", JSONResponse({"data": []}), "lists no model"),
    "models of another kind": ("/v1/models", JSONResponse({"data": "x"}), "lists no model"),
    "a model without a length": ("/v1/models", JSONResponse({"data": [{"id": "x"}]}), "tells no max_model_len"),
    "no version": ("/version", GONE, "GET /version: .*404"),
    "no tokenizer": ("/tokenize", GONE, "POST /tokenize: .*404"),
    "a failing tokenizer": ("/tokenize", error("x", 500, "T"), "POST /tokenize: .*500: x"),
    "ids of another shape": ("/tokenize", JSONResponse({}), "another vocabulary"),
    "a redirect": ("/v1/models", Response(status_code=307, headers={"Location": "/"}), "GET /v1/models: .*307"),
}


@pytest.mark.parametrize("name", NOT_VLLM)
async def test_what_listens_is_something_else(nano_tokenizer, name):
    path, answer, words = NOT_VLLM[name]
    server = fake_vllm(nano_tokenizer)
    server.answers[path] = answer
    failure = await failure_of(server, nano_tokenizer)
    with pytest.raises(EngineError, match=words):
        raise failure


def cards(*names: str, parent: str | None = None) -> JSONResponse:
    listed = [{"id": name, "max_model_len": 1024, "parent": None} for name in names]
    if parent:
        listed.append({"id": "adapter", "max_model_len": None, "parent": parent})
    return JSONResponse({"object": "list", "data": listed})


async def test_the_model_is_chosen_by_name_or_by_being_alone(nano_tokenizer):
    server = fake_vllm(nano_tokenizer)
    server.answers["/v1/models"] = cards("lhrm-nano", "other")
    told = await failure_of(server, nano_tokenizer)
    assert str(told).endswith("serves several models, name one of them: lhrm-nano, other")
    told = await failure_of(server, nano_tokenizer, model="third")
    assert str(told).endswith("does not serve the model 'third'; it serves: lhrm-nano, other")
    async with listening(server) as url:
        engine = remote_engine(url, nano_tokenizer, model="lhrm-nano")
        await engine.start()
        await engine.close()
        server.answers["/v1/models"] = cards("lhrm-nano", parent="lhrm-nano")
        alone = remote_engine(url, nano_tokenizer)
        await alone.start()
        await alone.close()
    assert engine.info.details == alone.info.details == {"model": "lhrm-nano"}


async def test_another_vocabulary_is_refused(nano_tokenizer):
    server = fake_vllm(nano_tokenizer)
    ids = nano_tokenizer.encode_template("anything")
    server.answers["/tokenize"] = JSONResponse({"count": len(ids), "max_model_len": 1024, "tokens": ids})
    told = await failure_of(server, nano_tokenizer)
    assert "serves 'lhrm-nano' with another vocabulary" in str(told)


async def test_a_context_shorter_than_promised_is_refused_and_a_longer_one_cut(nano_tokenizer):
    told = await failure_of(fake_vllm(nano_tokenizer), nano_tokenizer, max_model_len=1025)
    assert "serves a context of 1024 tokens, 1025 are needed" in str(told)
    async with listening(fake_vllm(nano_tokenizer)) as url:
        engine = remote_engine(url, nano_tokenizer, max_model_len=100)
        await engine.start()
        assert engine.info.max_model_len == 100
        with pytest.raises(EngineError, match="the limit is 100"):
            await collect(engine.generate(asked((40,) * 60, max_tokens=41)))
        await engine.close()


class Altered(FakeEngine):
    """An engine that gives other log-probabilities than asked for."""

    def __init__(self, tokenizer, alter) -> None:
        super().__init__(tokenizer, Script(p_think=0.4, tag_mass=0.9), max_model_len=1024)
        self._alter = alter

    async def generate(self, request):
        async for delta in super().generate(request):
            rows = None if delta.logprobs is None else tuple(self._alter(request, dict(row)) for row in delta.logprobs)
            yield TokenDelta(delta.token_ids, rows, delta.stop_reason)


def masked(request, row):
    """``--logprobs-mode processed_logprobs``: what is not allowed has no probability."""
    return {i: value if i in request.sampling.allowed_token_ids else -9999.0 for i, value in row.items()}


def without_one(request, row):
    row.popitem()
    return row


ALTERED = {
    "processed log-probabilities": (masked, "--logprobs-mode raw_logprobs"),
    "logits": (lambda request, row: {i: value + 9 for i, value in row.items()}, "--logprobs-mode raw_logprobs"),
    "one missing": (without_one, "no log-probability of the ids"),
}


@pytest.mark.parametrize("name", ALTERED)
async def test_log_probabilities_that_do_not_serve_are_refused(nano_tokenizer, name):
    alter, words = ALTERED[name]
    server = fake_vllm(nano_tokenizer)
    server.engine = Altered(nano_tokenizer, alter)
    async with listening(server) as url:
        with pytest.raises(EngineError, match=words):
            await remote_engine(url, nano_tokenizer).start()


async def test_a_server_without_priorities_is_used_without_them(nano_tokenizer, caplog):
    server = fake_vllm(nano_tokenizer)
    server.takes_priority = False
    async with listening(server) as url:
        engine = remote_engine(url, nano_tokenizer)
        with caplog.at_level(logging.WARNING, "lhrm_server"):
            await engine.start()
        assert "takes no priorities" in caplog.text
        server.bodies.clear()
        await collect(engine.generate(asked((40,), priority=1, max_tokens=1)))
        await engine.close()
    assert "priority" not in server.bodies[0]


async def test_a_server_that_refuses_the_call_that_decides_says_why(nano_tokenizer):
    server = fake_vllm(nano_tokenizer)
    server.answers["/v1/completions"] = error("logprob_token_ids: unknown", 400, "BadRequestError")
    told = await failure_of(server, nano_tokenizer)
    assert "refuses the call that decides: logprob_token_ids: unknown" in str(told)
