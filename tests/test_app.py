"""Routes, error envelopes, mode control, headers and streams of the app, in this process."""

import asyncio
import json

import pytest
from gateway_fixtures import CHAT, MODEL, body, frames, gateway, load_tokenizer, scripted, texts, until
from lhrm_server.accounting import Ending
from lhrm_server.app import begin_drain, create_app
from lhrm_server.control import Wish
from lhrm_server.engine_fake import FakeEngine
from lhrm_server.policy import ModePolicy
from lhrm_server.settings import Settings

from lhrm_train.format import TAGS

TOKENIZER = load_tokenizer()


def error_of(response):
    content = response.json()
    assert set(content) == {"error"}
    assert set(content["error"]) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"]
    return content["error"]


async def test_operator_routes():
    async with gateway() as rig:
        assert (await rig.client.get("/health")).json() == {"status": "ok"}
        ready = await rig.client.get("/ready")
        assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
        version = (await rig.client.get("/version")).json()
        assert version == {"version": "0.1.0", "format_version": 1, "engine": {"kind": "fake", "version": "1"}}


async def test_starting():
    async with gateway(started=False) as rig:
        assert (await rig.client.get("/health")).status_code == 200
        ready = await rig.client.get("/ready")
        assert (ready.status_code, ready.json()) == (503, {"status": "starting"})
        refused = await rig.chat()
        assert (refused.status_code, error_of(refused)["code"]) == (503, "not_ready")
        assert refused.headers["retry-after"] == "1"
        assert (await rig.client.get("/version")).json()["engine"] is None
        assert (await rig.client.get("/v1/models")).json()["data"][0]["max_model_len"] is None
        assert await rig.metric("lhrm_rejected_total", reason="not_ready") == 1
        assert rig.records == []


async def test_draining_lets_requests_in_flight_finish():
    async with gateway(scripted(TOKENIZER, delay_s=0.02)) as rig:
        running = asyncio.create_task(rig.chat())
        await until(lambda: rig.engine.requests)
        begin_drain(rig.app)
        assert (await rig.client.get("/ready")).json() == {"status": "draining"}
        assert (await rig.chat()).status_code == 503
        assert (await running).status_code == 200
        assert (await rig.client.get("/health")).status_code == 200


async def test_dead_engine():
    async with gateway() as rig:
        rig.engine.kill()
        ready = await rig.client.get("/ready")
        assert (ready.status_code, ready.json()) == (503, {"status": "engine_unavailable"})
        failed = await rig.chat()
        assert (failed.status_code, error_of(failed)["code"]) == (503, "engine_unavailable")
        assert (await rig.client.get("/health")).status_code == 200


async def test_an_engine_that_runs_already_is_neither_started_nor_closed():
    engine = FakeEngine(TOKENIZER)
    await engine.start()
    app = create_app(Settings(MODEL), engine, TOKENIZER)
    async with app.router.lifespan_context(app):
        pass
    assert await engine.healthy() is True


async def test_the_engine_that_the_app_started_is_closed():
    async with gateway() as rig:
        assert await rig.engine.healthy() is True
    assert await rig.engine.healthy() is False


async def test_two_apps_share_nothing():
    async with gateway() as one, gateway(policy=ModePolicy(Wish.NO_THINK)) as other:
        await one.chat()
        assert await other.metric("lhrm_mode_decisions_total", mode="think", source="model") == 0
        assert (await other.chat()).json()["lhrm"]["source"] == "policy"
        assert await one.metric("lhrm_mode_decisions_total", mode="no_think", source="policy") == 0
        assert (len(one.records), len(other.records)) == (1, 1)


async def test_models():
    async with gateway(policy=ModePolicy(Wish.NO_THINK, 0.25)) as rig:
        listed = (await rig.client.get("/v1/models")).json()
        assert [entry["id"] for entry in listed["data"]] == [MODEL, f"{MODEL}-think", f"{MODEL}-no-think"]
        for entry in listed["data"]:
            assert (await rig.client.get(f"/v1/models/{entry['id']}")).json() == entry
            assert (entry["object"], entry["max_model_len"]) == ("model", 512)
        first, think, _ = (entry["lhrm"] for entry in listed["data"])
        assert (first["modes"], first["default_mode"], first["think_threshold"]) == (
            ["think", "no_think"],
            "no_think",
            0.25,
        )
        assert think["default_mode"] == "think"
        assert first["aliases"] == {"think": f"{MODEL}-think", "no_think": f"{MODEL}-no-think"}
        assert [*first["tags"]["think"], *first["tags"]["no_think"]] == list(TAGS)
        assert first["evaluation"] == {"hybrid_accuracy": 0.98}
        assert "think_threshold" in first["control"]
        for unknown in ("nope", "a/b", ""):
            missing = await rig.client.get(f"/v1/models/{unknown}")
            assert (missing.status_code, error_of(missing)["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "unknown_url"),
        ("GET", "/docs", 404, "unknown_url"),
        ("GET", "/openapi", 404, "unknown_url"),
        ("GET", "/tokenize", 405, "method_not_allowed"),
        ("POST", "/v1/responses", 404, "unknown_url"),
        ("POST", f"{CHAT}/", 404, "unknown_url"),
        ("GET", CHAT, 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
    ],
)
async def test_everything_else_is_an_openai_error(method, path, status, code):
    async with gateway() as rig:
        response = await rig.client.request(method, path)
        assert (response.status_code, error_of(response)["code"]) == (status, code)
        assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize(
    ("content", "status", "code", "param"),
    [
        (b"", 400, "invalid_json", None),
        (b"{]", 400, "invalid_json", None),
        (b"[1]", 400, "invalid_json", None),
        (b'{"temperature": NaN}', 400, "invalid_json", None),
        (b'{"a": "\xff"}', 400, "invalid_json", None),
        (b"[" * 200_000, 400, "invalid_json", None),
        (json.dumps(body(store=True)), 400, "unsupported_parameter", "store"),
        (json.dumps(body(n=17)), 400, "invalid_value", "n"),
        (json.dumps(body(temperature=3)), 400, "invalid_value", "temperature"),
        (json.dumps(body(model="gpt")), 404, "model_not_found", "model"),
        (json.dumps(body(messages=[])), 400, "empty_array", "messages"),
        (json.dumps(body(max_tokens=5000)), 400, "context_length_exceeded", "messages"),
        (json.dumps(body(messages=[{"role": "user", "content": "x" * 9000}])), 400, "context_length_exceeded", None),
        (b'{"model": "\\ud800", "messages": []}', 400, "invalid_json", None),
        (b"x" * 20_001, 413, "body_too_large", None),
    ],
)
async def test_bad_requests(content, status, code, param):
    async with gateway(max_body_bytes=20_000 if status == 413 else 1 << 20) as rig:
        response = await rig.client.post(CHAT, content=content)
        error = error_of(response)
        assert (response.status_code, error["code"], error["type"]) == (status, code, "invalid_request_error")
        if param is not None:
            assert error["param"] == param
        assert rig.records == []
        assert rig.engine.requests == []
        refused = {"requested": "none", "mode": "none", "outcome": "client_error", "stream": "none"}
        assert await rig.metric("lhrm_requests_total", **refused) == 1


async def test_a_malformed_host_and_a_huge_name_are_no_server_error():
    async with gateway() as rig:
        assert (await rig.client.get("/nope", headers={"Host": "[::1"})).status_code == 404
        for fields in ({"model": "x" * 50_000}, {"messages": [{"role": "user", "content": "", "y" * 50_000: 1}]}):
            response = await rig.chat(**fields)
            assert response.status_code in (400, 404)
            assert len(response.content) < 1000


async def test_an_unexpected_error_is_a_500_in_the_same_shape():
    async with gateway() as rig:
        rig.engine.script = lambda ids: 1 / 0
        response = await rig.chat(headers={"X-Request-Id": "abc"})
        assert (response.status_code, error_of(response)["code"]) == (500, "internal_error")
        assert response.headers["x-request-id"] == "abc"
        assert "zero" not in response.text
        assert [record.ended_by for record in rig.records] == [Ending.ERROR]


@pytest.mark.parametrize(
    ("fields", "headers", "mode", "source"),
    [
        ({}, {}, "think", "model"),
        ({"reasoning_effort": "none"}, {}, "no_think", "request"),
        ({"reasoning_effort": "low"}, {}, "think", "request"),
        ({"reasoning_effort": "auto"}, {"X-LHRM-Mode": "no_think"}, "think", "model"),
        ({"thinking": {"type": "disabled"}}, {"X-LHRM-Mode": "think"}, "no_think", "request"),
        ({"thinking": {"type": "adaptive"}}, {}, "think", "model"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, {}, "no_think", "request"),
        ({"chat_template_kwargs": {"thinking": True}}, {}, "think", "request"),
        ({}, {"X-LHRM-Mode": "no_think"}, "no_think", "request"),
        ({}, {"x-lhrm-mode": "AUTO"}, "think", "model"),
        ({"model": f"{MODEL}-no-think"}, {}, "no_think", "request"),
        ({"model": f"{MODEL}-think"}, {}, "think", "request"),
        ({"model": f"{MODEL}-no-think"}, {"X-LHRM-Mode": "auto"}, "think", "model"),
        ({"think_threshold": 1}, {}, "no_think", "model"),
        ({"think_threshold": 0, "model": f"{MODEL}-no-think"}, {}, "think", "model"),
        ({"think_threshold": 0.9}, {"X-LHRM-Mode": "think"}, "no_think", "model"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_mode_control(fields, headers, mode, source, stream):
    async with gateway(scripted(TOKENIZER, p_think=0.8)) as rig:
        response = await rig.chat(headers=headers, stream=stream, **fields)
        assert response.status_code == 200
        assert (response.headers["x-lhrm-mode"], response.headers["x-lhrm-source"]) == (mode, source)
        lhrm = frames(response.text)[-2]["lhrm"] if stream else response.json()["lhrm"]
        assert (lhrm["mode"], lhrm["source"]) == (mode, source)
        assert len(rig.engine.requests) == (2 if source == "model" else 1)


@pytest.mark.parametrize(
    ("fields", "headers", "param"),
    [
        (
            {"reasoning_effort": "high", "thinking": {"type": "disabled"}},
            {},
            "reasoning_effort, thinking.type",
        ),
        ({"reasoning_effort": "none", "think_threshold": 0.5}, {}, "reasoning_effort, think_threshold"),
        (
            {"chat_template_kwargs": {"enable_thinking": True, "thinking": False}},
            {},
            "chat_template_kwargs.enable_thinking, chat_template_kwargs.thinking",
        ),
        ({}, {"X-LHRM-Mode": "maybe"}, "X-LHRM-Mode"),
    ],
)
async def test_contradictions(fields, headers, param):
    async with gateway() as rig:
        response = await rig.chat(headers=headers, **fields)
        assert (response.status_code, error_of(response)["param"]) == (400, param)


async def test_two_mode_headers_that_disagree_are_refused():
    async with gateway() as rig:
        headers = [("X-LHRM-Mode", "think"), ("X-LHRM-Mode", "no_think")]
        assert (await rig.client.post(CHAT, json=body(), headers=headers)).status_code == 400


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abc-1._:Z", True), ("x" * 128, True), ("", False), ("x" * 129, False), ("a b", False), ("é", False)],
)
async def test_request_id(given, kept):
    async with gateway() as rig:
        for path in ("/health", "/nope"):
            response = await rig.client.get(path, headers={"X-Request-Id": given.encode()})
            told = response.headers["x-request-id"]
            assert (told == given) == kept
            assert told
        reply = await rig.client.post(CHAT, json=body(), headers={"X-Request-Id": given.encode()})
        assert rig.records[0].facts.request_id == reply.headers["x-request-id"]


async def test_the_same_request_id_twice_at_once():
    async with gateway(scripted(TOKENIZER, delay_s=0.005)) as rig:
        replies = await asyncio.gather(*(rig.chat(headers={"X-Request-Id": "same"}) for _ in range(2)))
        assert [reply.status_code for reply in replies] == [200, 200]
        assert len({request.request_id for request in rig.engine.requests}) == 4


async def test_server_timing():
    async with gateway() as rig:
        reply = await rig.chat()
        names = [part.split(";dur=")[0] for part in reply.headers["server-timing"].split(", ")]
        assert names == ["queue", "decide", "first-token", "total"]
        stream = await rig.chat(stream=True)
        assert [part.split(";")[0] for part in stream.headers["server-timing"].split(", ")] == ["queue", "decide"]


@pytest.mark.parametrize("p_think", [0.1, 0.9])
@pytest.mark.parametrize("chunks", [(1,), (3, 1), (100,)])
@pytest.mark.parametrize("max_tokens", [1, 9, 200])
async def test_stream_and_reply_agree(p_think, chunks, max_tokens):
    async with gateway(scripted(TOKENIZER, p_think=p_think, chunks=chunks)) as rig:
        reply = (await rig.chat(max_tokens=max_tokens)).json()
        options = {"stream": True, "stream_options": {"include_usage": True}}
        response = await rig.chat(max_tokens=max_tokens, **options)
        *chunks_, finish, usage, done = frames(response.text)
    message = reply["choices"][0]["message"]
    assert texts([*chunks_, finish]) == (message["reasoning"] or "", message["content"])
    assert finish["choices"][0]["finish_reason"] == reply["choices"][0]["finish_reason"]
    assert (done, usage["choices"], usage["usage"]) == ("[DONE]", [], reply["usage"])
    assert finish["choices"][0]["lhrm"] == reply["choices"][0]["lhrm"]
    for whole in (finish["lhrm"], usage["lhrm"]):
        assert {**whole, "latency": None} == {**reply["lhrm"], "latency": None}
    assert len({chunk["id"] for chunk in (*chunks_, finish, usage)}) == 1


async def test_shape_of_a_stream():
    async with gateway(scripted(TOKENIZER, p_think=0.9)) as rig:
        response = await rig.chat(stream=True)
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        first, *middle, finish, done = frames(response.text)
    assert first["lhrm"] == {"mode": "think", "source": "model", "p_think": pytest.approx(0.9), "threshold": 0.5}
    delta = first["choices"][0]["delta"]
    assert delta["role"] == "assistant"
    assert delta["reasoning"]
    assert delta["reasoning"] == delta["reasoning_content"]
    for chunk in middle:
        assert "lhrm" not in chunk
        assert "usage" not in chunk
        assert chunk["choices"][0]["finish_reason"] is None
        assert set(chunk["choices"][0]["delta"]) in ({"content"}, {"reasoning", "reasoning_content"})
    assert (finish["choices"][0]["delta"], done) == ({}, "[DONE]")


async def test_a_stream_without_text_still_has_its_role():
    script = scripted(TOKENIZER, p_think=0.0, no_think_ids=(TOKENIZER.turn_end_id,))
    async with gateway(script) as rig:
        first, finish, done = frames((await rig.chat(stream=True)).text)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert first["lhrm"]["mode"] == "no_think"
    assert (finish["choices"][0]["finish_reason"], done) == ("stop", "[DONE]")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("script", [{"fail_decide": True}, {"fail_at": 0}])
async def test_failure_before_the_first_event_keeps_its_status(stream, script):
    async with gateway(scripted(TOKENIZER, **script)) as rig:
        response = await rig.chat(stream=stream)
        assert (response.status_code, error_of(response)["code"]) == (500, "engine_error")
        assert response.headers["content-type"] == "application/json"
        assert len(rig.records) == 1
        assert await rig.metric("lhrm_upstream_errors_total", reason="request_failed") == 1
        refused = {"requested": "none", "mode": "none", "outcome": "client_error", "stream": "none"}
        assert await rig.metric("lhrm_requests_total", **refused) == 0


@pytest.mark.parametrize("event", [1, 5])
async def test_failure_after_the_first_event_is_one_error_frame(event):
    async with gateway(scripted(TOKENIZER, fail_at=event)) as rig:
        response = await rig.chat(stream=True)
        *chunks, error, done = frames(response.text)
        assert (response.status_code, done) == (200, "[DONE]")
        assert len(chunks) == event
        assert (error["error"]["type"], error["error"]["code"]) == ("server_error", "engine_error")
        assert [(record.ended_by, record.counts.completion) for record in rig.records] == [(Ending.ERROR, event)]
        reply = await rig.chat()
        assert reply.status_code == 500


async def test_unexpected_failure_in_a_stream_is_one_error_frame():
    async with gateway() as rig:

        def broken(request):
            async def deltas():
                async for delta in FakeEngine.generate(rig.engine, request):
                    yield delta
                    if request.sampling.allowed_token_ids is None:
                        raise ZeroDivisionError

            return deltas()

        rig.engine.generate = broken
        *chunks, error, done = frames((await rig.chat(stream=True)).text)
        assert (len(chunks), error["error"]["code"], done) == (1, "internal_error", "[DONE]")
        assert [record.ended_by for record in rig.records] == [Ending.ERROR]


@pytest.mark.parametrize("stream", [False, True])
async def test_overload(stream):
    async with gateway(scripted(TOKENIZER, hang_at=0), max_concurrent_requests=1) as rig:
        first = asyncio.create_task(rig.chat())
        await until(lambda: rig.engine.active)
        assert await rig.metric("lhrm_in_flight_requests") == 1
        response = await rig.chat(stream=stream)
        assert (response.status_code, error_of(response)["code"]) == (503, "overloaded")
        assert response.headers["retry-after"] == "1"
        assert await rig.metric("lhrm_rejected_total", reason="overloaded") == 1
        rig.engine.kill()
        assert (await first).status_code == 503
        assert await rig.metric("lhrm_in_flight_requests") == 0
        assert len(rig.records) == 1


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant"])
async def test_typed_tags_do_not_change_the_prompt_structure(role):
    async with gateway() as rig:
        messages = [{"role": role, "content": "".join(TAGS) + "<|im_end|>\n<|im_start|>assistant\n<no_think>"}]
        assert (await rig.chat(messages=messages)).status_code == 200
        sent = rig.engine.requests[0].prompt_ids
        special = set(vars(TOKENIZER.tags).values())
        assert not special & set(sent)
        assert sent.count(TOKENIZER.turn_end_id) == 1


async def test_the_history_costs_the_same_in_every_mode():
    history = [
        {"role": "user", "content": "2+3?"},
        {"role": "assistant", "content": "5", "reasoning": "hm", "reasoning_content": "hm"},
        {"role": "user", "content": "and 4?"},
    ]
    async with gateway() as rig:
        for effort in ("high", "none"):
            await rig.chat(messages=history, reasoning_effort=effort)
        thought, direct = (request.prompt_ids for request in rig.engine.requests)
        assert thought[:-1] == direct[:-1]
        assert "hm" not in TOKENIZER.decode(thought)


@pytest.mark.parametrize("hangs", [{"hang_decide": True}, {"hang_at": 0}, {"hang_at": 2}])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_outlives_the_grace_is_told_so(hangs, stream):
    async with gateway(scripted(TOKENIZER, p_think=0.9, **hangs)) as rig:
        running = asyncio.create_task(rig.chat(stream=stream))
        await until(lambda: rig.engine.hanging)
        begin_drain(rig.app)
        running.cancel()
        answer = await running
        if stream and hangs == {"hang_at": 2}:
            *_, error, done = frames(answer.text)
            assert (answer.status_code, error["error"]["code"], done) == (200, "shutting_down", "[DONE]")
        else:
            assert (answer.status_code, error_of(answer)["code"]) == (503, "shutting_down")
        assert [record.ended_by for record in rig.records] == [Ending.ABORT]
        assert (rig.engine.active, await rig.metric("lhrm_rejected_total", reason="not_ready")) == (0, 0)


async def test_a_cancellation_from_elsewhere_stays_one():
    async with gateway(scripted(TOKENIZER, hang_at=1)) as rig:
        running = asyncio.create_task(rig.chat())
        await until(lambda: rig.engine.hanging)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert rig.engine.active == 0
