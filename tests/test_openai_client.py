"""The official OpenAI client against the gateway over a scripted engine: its types and its error classes."""

from contextlib import contextmanager

import openai
import pytest
from conftest import serve_on_socket
from gateway_fixtures import MODEL, load_tokenizer, scripted
from lhrm_server.app import create_app
from lhrm_server.engine_fake import FakeEngine
from lhrm_server.settings import Settings

TOKENIZER = load_tokenizer()
FAILURES = [({"fail_at": 0}, 500), ({"fail_decide": True}, 500), ({"dead": True}, 503)]
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def client(loop_thread):
    @contextmanager
    def serving(*, dead=False, **script):
        engine = FakeEngine(TOKENIZER, scripted(TOKENIZER, **script))
        app = create_app(Settings(MODEL, max_body_bytes=100_000), engine, TOKENIZER)
        server = serve_on_socket(app, loop_thread)
        try:
            with openai.OpenAI(base_url=f"{next(server)}/v1", api_key="none", max_retries=0) as client:
                if dead:
                    engine.kill()
                yield client
        finally:
            next(server, None)

    return serving


def ask(client, **fields):
    return client.chat.completions.create(**{"model": MODEL, "messages": HELLO, **fields})


def test_reply_and_request_id(client):
    with client(p_think=0.9) as api:
        reply = ask(api, extra_headers={"X-Request-Id": "my-id"})
    assert reply._request_id == "my-id"
    assert reply.choices[0].message.content == "5 ✓"
    assert reply.choices[0].message.reasoning == "Zwei plus drei, naïve 思考 🤔."
    assert reply.usage.completion_tokens_details.reasoning_tokens == reply.lhrm["reasoning_tokens"] > 0


def test_stream(client):
    with client(p_think=0.9) as api:
        chunks = list(ask(api, stream=True, stream_options={"include_usage": True}))
    answer = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert answer == "5 ✓"
    assert chunks[0].lhrm["mode"] == "think"
    assert chunks[-1].usage.completion_tokens == sum(
        chunks[-1].lhrm[f"{kind}_tokens"] for kind in ("reasoning", "answer", "overhead")
    )


def test_models(client):
    with client() as api:
        assert [model.id for model in api.models.list()] == [MODEL, f"{MODEL}-think", f"{MODEL}-no-think"]
        assert api.models.retrieve(MODEL).lhrm["modes"] == ["think", "no_think"]
        with pytest.raises(openai.NotFoundError):
            api.models.retrieve("nope")


@pytest.mark.parametrize(
    ("fields", "kind", "status", "param"),
    [
        ({"n": 0}, openai.BadRequestError, 400, "n"),
        ({"extra_body": {"bogus": 1}}, openai.BadRequestError, 400, "bogus"),
        ({"reasoning_effort": "none", "extra_body": {"think_threshold": 0.1}}, openai.BadRequestError, 400, None),
        ({"max_tokens": 100_000}, openai.BadRequestError, 400, "messages"),
        ({"model": "gpt"}, openai.NotFoundError, 404, "model"),
        ({"user": "x" * 200_000}, openai.APIStatusError, 413, None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_client_errors(client, fields, kind, status, param, stream):
    with client() as api, pytest.raises(kind) as caught:
        ask(api, stream=stream, **fields)
    assert caught.value.status_code == status
    assert caught.value.type == "invalid_request_error"
    assert caught.value.code
    assert caught.value.request_id
    if param is not None:
        assert caught.value.param == param


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("script", "status"), [({"fail_at": 0}, 500), ({"fail_decide": True}, 500), ({"dead": True}, 503)]
)
def test_server_errors(client, script, status, stream):
    with client(**script) as api, pytest.raises(openai.InternalServerError) as caught:
        ask(api, stream=stream)
    assert (caught.value.status_code, caught.value.type) == (status, "server_error")


def test_failure_in_a_stream_is_raised_to_the_reader(client):
    with client(fail_at=2) as api:
        stream = ask(api, stream=True)
        assert next(stream).choices
        assert next(stream).choices
        with pytest.raises(openai.APIError, match="engine failed") as caught:
            next(stream)
    assert caught.value.code == "engine_error"


def test_unknown_route(client):
    with client() as api, pytest.raises(openai.NotFoundError, match="Unknown request URL"):
        api.completions.create(model=MODEL, prompt="x")


async def test_async_client(client):
    with client() as api:
        async with openai.AsyncOpenAI(base_url=api.base_url, api_key="none", max_retries=0) as other:
            reply = await other.chat.completions.create(model=f"{MODEL}-no-think", messages=HELLO)
            assert reply.choices[0].message.content == "fünf ✓"
            with pytest.raises(openai.BadRequestError):
                await other.chat.completions.create(model=MODEL, messages=HELLO, n=0)
