import socket
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
from conftest import serve_on_socket
from fake_gateway import MODEL, fake_gateway, scripted
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from lhrm_server.engine_fake import Script

from lhrm_train.config import ConfigError, EvalConfig
from lhrm_train.format import THINK_CLOSE, THINK_OPEN, Message, Mode, encode_answer, encode_chat
from lhrm_train.problems import Problem
from lhrm_train.samplers import Answered, Decision, Failed, Generated, LocalSampler, SamplerError, derived_seed
from lhrm_train.server_sampler import Endpoint, ServerSampler, find_endpoint
from tests.tiny_model import tiny_llama

CONFIG = EvalConfig(temperature=0.7, max_new_tokens=40, concurrency=4, retries=0)


def problem(text: str, *earlier: Message) -> Problem:
    return Problem((*earlier, Message("user", text)), reference="42")


ASKED = [problem("6 times 7?"), problem("and 8?", Message("user", "hi"), Message("assistant", "hello"))]


def test_derived_seeds_differ_and_last():
    assert derived_seed(1, "think") == derived_seed(1, "think") == 83918793
    seeds = {derived_seed(a, b) for a in range(50) for b in range(50)}
    assert len(seeds) == 2500
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.fixture(scope="module")
def local(nano_tokenizer) -> LocalSampler:
    lm = tiny_llama(nano_tokenizer.vocab_size).eval()
    return LocalSampler(lm, nano_tokenizer, replace(CONFIG, max_new_tokens=8, batch=3))


def test_a_local_model_decides_and_completes(local, nano_tokenizer):
    decisions = local.decide(ASKED)
    lengths = [len(encode_chat(nano_tokenizer, one.messages, None)) for one in ASKED]
    assert [one.prompt_tokens for one in decisions] == lengths
    assert all(0 < one.p_think < 1 and 0 < one.mass < 1 and not one.error for one in decisions)
    drawn = local.complete(ASKED, Mode.THINK, 3, seed=5)
    assert [len(group) for group in drawn] == [3, 3]
    assert all(isinstance(one, Generated) and 1 <= len(one.ids) <= 8 for group in drawn for one in group)
    assert len({one.ids for one in drawn[0]}) == 3
    assert drawn == local.complete(ASKED, Mode.THINK, 3, seed=5)
    assert drawn != local.complete(ASKED, Mode.THINK, 3, seed=6)
    assert local.modes == (Mode.THINK, Mode.NO_THINK)


@pytest.mark.parametrize("mode", list(Mode))
def test_a_local_model_continues_the_forced_tag(local, nano_tokenizer, monkeypatch, mode):
    def echo(lm, tokenizer, prompts, samples, *_):
        """Every sample of a prompt is the prompt itself."""
        return [[prompt] * samples for prompt in prompts]

    monkeypatch.setattr("lhrm_train.rollout.generate", echo)
    opened = [tuple(encode_chat(nano_tokenizer, one.messages, mode)) for one in ASKED]
    assert local.complete(ASKED, mode, 2, seed=0) == [[Generated(ids)] * 2 for ids in opened]


def test_a_prompt_without_room_fails_and_the_others_do_not(local):
    # The tiny model has 128 positions.
    long = problem("word " * 130)
    first, second, third = local.complete([ASKED[0], long, ASKED[1]], Mode.THINK, 2, seed=5)
    assert second == [Failed(second[0].reason)] * 2
    assert "no room for max_new_tokens = 8" in second[0].reason
    decided, undecided = local.decide([ASKED[0], long])
    assert (decided, undecided.p_think, undecided.error) == (local.decide(ASKED)[0], None, second[0].reason)
    assert [first, third] == local.complete(ASKED, Mode.THINK, 2, seed=5)
    assert local.complete([long], Mode.THINK, 1, seed=5) == [second[:1]]


def test_retrained_weights_are_another_model(tmp_path, nano_tokenizer, local):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    described = [LocalSampler(local._lm, nano_tokenizer, CONFIG, tmp_path).describe() for _ in range(2)]
    assert described[0] == described[1]
    assert described[0]["model"] == nano_tokenizer.manifest.name
    weights.write_bytes(b"other")
    assert LocalSampler(local._lm, nano_tokenizer, CONFIG, tmp_path).describe() != described[0]


# A gateway on a real socket.


@pytest.fixture
def gateway(loop_thread, nano_tokenizer):
    script = scripted(nano_tokenizer, "6 times 7", "é is 42", p_think=0.8)
    with fake_gateway(loop_thread, nano_tokenizer, script) as (url, engine):
        yield url, engine


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_a_gateway_is_found_under_any_spelling(gateway, suffix):
    assert find_endpoint(gateway[0] + suffix) == Endpoint(gateway[0], MODEL, decides=True)


def test_a_model_that_is_not_served_is_named(gateway):
    with pytest.raises(ConfigError, match=f"'other' is not served.*{MODEL}"):
        find_endpoint(gateway[0], "other")
    with pytest.raises(ConfigError, match="url = 'localhost:8000'"):
        find_endpoint("localhost:8000")


def test_a_gateway_tells_its_choice(gateway, nano_tokenizer):
    url, engine = gateway
    sampler = ServerSampler(find_endpoint(url), CONFIG)
    lengths = [len(encode_chat(nano_tokenizer, one.messages, None)) for one in ASKED]
    assert sampler.decide(ASKED) == [Decision(pytest.approx(0.8), None, length) for length in lengths]
    # One token to decide, and one, the least there is, of the answer.
    assert {request.sampling.max_tokens for request in engine.requests} == {1}
    assert sampler.describe() == {"url": url, "model": MODEL}


@pytest.mark.parametrize("mode", list(Mode))
def test_a_gateway_answers_in_the_mode_it_is_asked_for(gateway, nano_tokenizer, mode):
    url, engine = gateway
    drawn = ServerSampler(find_endpoint(url), CONFIG).complete(ASKED, mode, 3, seed=9)
    ids = encode_answer(nano_tokenizer, mode, "6 times 7", "é is 42")[1:]
    assert drawn == [[Answered("é is 42", len(ids), truncated=False, well_formed=True)] * 3] * 2
    assert {request.prompt_ids[-1] for request in engine.requests} == {nano_tokenizer.tags.opening(mode)}
    settings = [request.sampling for request in engine.requests]
    assert {(one.max_tokens, one.temperature, one.top_p, one.top_k) for one in settings} == {(40, 0.7, 1.0, -1)}
    assert len({one.seed for one in settings}) == 6


def test_the_same_seed_asks_the_same(gateway):
    url, engine = gateway
    sampler = ServerSampler(find_endpoint(url), CONFIG)
    for seed in (1, 1, 2):
        sampler.complete(ASKED, Mode.THINK, 2, seed)
    first, again, other = ({one.sampling.seed for one in engine.requests[i : i + 4]} for i in (0, 4, 8))
    assert first == again
    assert not first & other


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize(
    ("drop", "limit", "expected"),
    [
        (0, 40, (False, True)),
        (1, 40, (False, False)),  # the tag that closes is missing
        (0, 3, (True, False)),  # cut
    ],
)
def test_malformed_answers_are_told_from_good_ones(loop_thread, nano_tokenizer, mode, drop, limit, expected):
    closing = {nano_tokenizer.tags.think_end, nano_tokenizer.tags.no_think_end} if drop else set()
    bodies = {
        f"{one.value}_ids": tuple(i for i in encode_answer(nano_tokenizer, one, "6*7", "42")[1:] if i not in closing)
        for one in Mode
    }
    with fake_gateway(loop_thread, nano_tokenizer, Script(**bodies)) as (url, _):
        sampler = ServerSampler(find_endpoint(url), replace(CONFIG, max_new_tokens=limit))
        ((answer,),) = sampler.complete(ASKED[:1], mode, 1, seed=0)
    assert (answer.truncated, answer.well_formed) == expected
    assert answer.completion_tokens == min(limit, len(bodies[f"{mode.value}_ids"]))


def test_a_refused_prompt_is_a_failure_of_its_own(gateway):
    sampler = ServerSampler(find_endpoint(gateway[0]), CONFIG)
    long = problem("word " * 600)  # the fake engine has 512 positions
    assert isinstance(sampler.complete([long], Mode.THINK, 1, seed=0)[0][0], Failed)
    (good,), (bad,) = sampler.complete([ASKED[0], long], Mode.NO_THINK, 1, seed=0)
    assert isinstance(good, Answered)
    assert "status 400" in bad.reason
    decided, undecided = sampler.decide([ASKED[0], long])
    assert decided.p_think is not None
    assert undecided.p_think is None
    assert "status 400" in undecided.error


def test_a_failing_engine_is_no_wrong_answer(loop_thread, nano_tokenizer):
    with fake_gateway(loop_thread, nano_tokenizer, Script(fail_at=2)) as (url, _):
        ((one,),) = ServerSampler(find_endpoint(url), CONFIG).complete(ASKED[:1], Mode.THINK, 1, seed=0)
    assert isinstance(one, Failed)
    assert "status 5" in one.reason


def test_a_busy_gateway_is_asked_again(loop_thread, nano_tokenizer, monkeypatch):
    monkeypatch.setattr("lhrm_train.server_sampler.LONGEST_WAIT_S", 0.05)
    script = replace(scripted(nano_tokenizer, "6 times 7", "42"), delay_s=0.005)
    with fake_gateway(loop_thread, nano_tokenizer, script, max_concurrent_requests=1) as (url, engine):
        sampler = ServerSampler(find_endpoint(url), replace(CONFIG, retries=200))
        drawn = sampler.complete(ASKED, Mode.THINK, 4, seed=0)
    assert [one.text for group in drawn for one in group] == ["42"] * 8
    assert engine.finished == 8


# An ordinary OpenAI endpoint on a real socket.

Reply = Callable[[dict], object]


def completion(content, finish_reason="stop", tokens: int | None = 7) -> dict:
    usage = {} if tokens is None else {"usage": {"prompt_tokens": 3, "completion_tokens": tokens}}
    return {"choices": [{"message": {"content": content}, "finish_reason": finish_reason}], **usage}


@pytest.fixture
def plain(loop_thread):
    """An endpoint whose replies a test sets; it keeps the requests."""
    app, state = FastAPI(), SimpleNamespace(reply=lambda body: completion("42"), bodies=[], headers=[])

    @app.get("/v1/models")
    async def models():
        return state.models

    state.models = {"object": "list", "data": [{"id": "plain", "object": "model"}]}

    @app.post("/v1/chat/completions")
    async def chat(request: Request):
        state.bodies.append(await request.json())
        state.headers.append(request.headers)
        return state.reply(state.bodies[-1])

    serving = serve_on_socket(app, loop_thread)
    try:
        state.url = next(serving)
        yield state
    finally:
        next(serving, None)


def asked_once(plain, config=CONFIG, **options):
    sampler = ServerSampler(find_endpoint(plain.url, **options), config, **options)
    return sampler.complete(ASKED[:1], Mode.THINK, 1, seed=0)[0][0]


def test_an_ordinary_endpoint_always_thinks(plain):
    sampler = ServerSampler(find_endpoint(plain.url), CONFIG)
    assert not sampler.endpoint.decides
    assert sampler.modes == (Mode.THINK,)
    assert sampler.decide(ASKED) == [Decision(None, None, 0)] * 2
    assert plain.bodies == []
    assert sampler.complete(ASKED, Mode.THINK, 2, seed=0) == [[Answered("42", 7, False, True)] * 2] * 2
    assert {frozenset(body) for body in plain.bodies} == {
        frozenset({"model", "messages", "max_tokens", "temperature", "seed", "top_p"})
    }
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    assert [body["messages"] for body in plain.bodies].count([*turns, {"role": "user", "content": "and 8?"}]) == 2


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (completion(f"{THINK_OPEN}6*7{THINK_CLOSE}\n\n42"), Answered("42", 7, False, True)),
        (completion("4", "length"), Answered("4", 7, True, False)),
        (completion(None), Answered("", 7, False, True)),
        (completion("42", "content_filter"), Failed("finish_reason 'content_filter'")),
        (completion("42", tokens=None), Failed("malformed reply: KeyError: 'usage'")),
        ({"choices": []}, Failed("malformed reply: IndexError: list index out of range")),
        ([1], Failed("not a JSON object: '[1]'")),
        (PlainTextResponse("oops"), Failed("not a JSON object: 'oops'")),
        (PlainTextResponse("oops", 500), Failed("status 500: oops")),
        (JSONResponse({"error": {"message": "no seed"}}, 400), Failed("status 400: no seed")),
        (JSONResponse({"error": "odd"}, 422), Failed('status 422: {"error":"odd"}')),
    ],
)
def test_replies_of_an_ordinary_endpoint(plain, reply, expected):
    plain.reply = lambda body: reply
    assert asked_once(plain) == expected
    assert len(plain.bodies) == 1


@pytest.mark.parametrize("status", [429, 503, 502, 504])
@pytest.mark.parametrize("hint", [{}, {"Retry-After": "0"}, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}])
def test_a_busy_endpoint_is_asked_again_and_not_for_ever(plain, monkeypatch, status, hint):
    hints = []
    monkeypatch.setattr(ServerSampler, "_wait_s", lambda self, attempt, told: hints.append((attempt, told)) or 0.001)
    busy = PlainTextResponse("busy", status, hint)
    plain.reply = lambda body: completion("42") if len(plain.bodies) > 2 else busy
    assert asked_once(plain, replace(CONFIG, retries=2)) == Answered("42", 7, False, True)
    assert hints == [(0, hint.get("Retry-After")), (1, hint.get("Retry-After"))]
    plain.bodies.clear()
    assert asked_once(plain, replace(CONFIG, retries=1)) == Failed(f"status {status}: busy")
    assert len(plain.bodies) == 2


def test_the_wait_grows_and_follows_the_servers_hint():
    sampler = ServerSampler(Endpoint("http://x", "m", True), CONFIG)
    for attempt, hint, wanted_s in [
        (0, None, 0.5),
        (3, None, 4.0),
        (30, None, 60.0),
        (0, "7", 7.0),
        (0, "9999", 60.0),
        (1, "Fri, 31 Dec 1999 23:59:59 GMT", 1.0),
    ]:
        assert wanted_s <= sampler._wait_s(attempt, hint) <= 1.25 * wanted_s


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_would_refuse_everything_stops_the_evaluation(plain, status):
    plain.reply = lambda body: JSONResponse({"error": {"message": "no such key"}}, status)
    sampler = ServerSampler(find_endpoint(plain.url), CONFIG)
    with pytest.raises(SamplerError, match=f"status {status}: no such key"):
        sampler.complete(ASKED, Mode.THINK, 20, seed=0)
    assert len(plain.bodies) < 40  # the others were not sent


@pytest.mark.parametrize(
    ("models", "error", "message"),
    [
        (JSONResponse({"error": {"message": "who are you?"}}, 401), SamplerError, "status 401: who are you"),
        (PlainTextResponse("<html>"), SamplerError, "is not a model list"),
        ({"data": [{"name": "x"}]}, SamplerError, "is not a model list: KeyError: 'id'"),
        ({"data": []}, ConfigError, "served: none"),
        ({"data": [{"id": f"m{i}"} for i in range(99)]}, ConfigError, "'plain' is not served.*m8, m9$"),
    ],
)
def test_a_server_without_the_model_is_not_evaluated(plain, models, error, message):
    plain.models = models
    with pytest.raises(error, match=message):
        find_endpoint(plain.url, "plain")


def test_the_key_is_sent(plain):
    asked_once(plain, api_key="secret")
    assert plain.headers[0]["authorization"] == "Bearer secret"
    asked_once(plain)
    assert "authorization" not in plain.headers[1]


def test_a_slow_answer_is_a_failure(plain):
    import time

    def slow(body):
        time.sleep(0.3)  # blocks the server, which only this test uses
        return completion("42")

    plain.reply = slow
    assert asked_once(plain, replace(CONFIG, request_timeout_s=0.05)) == Failed("ReadTimeout")


def test_nobody_listens(monkeypatch):
    monkeypatch.setattr("lhrm_train.server_sampler.FIRST_WAIT_S", 0.001)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(SamplerError, match="/v1/models: ConnectError"):
        find_endpoint(url)
    sampler = ServerSampler(Endpoint(url, "m", True), replace(CONFIG, retries=1))
    with pytest.raises(SamplerError, match="chat/completions: ConnectError"):
        sampler.decide(ASKED)


def test_a_gateway_that_does_not_ask_the_model_says_so(loop_thread):
    # A mode that somebody forces upstream would make P(think) null; no row may take that for a choice.
    reply = {"lhrm": {"p_think": None}, "usage": {"prompt_tokens": 4}}
    assert asked_of(loop_thread, reply)[0] == Decision(
        None, None, 4, "the server did not ask the model: p_think is null"
    )


@pytest.mark.parametrize("reply", [{}, {"lhrm": None}, {"lhrm": {"p_think": "x"}, "usage": {"prompt_tokens": 4}}])
def test_a_malformed_decision_is_no_decision(loop_thread, reply):
    decision = asked_of(loop_thread, reply)[0]
    assert decision.p_think is None
    assert decision.error.startswith("malformed reply: ")


def test_a_gateway_that_runs_another_mode_has_not_answered(loop_thread):
    told = {"mode": "think", "ended_by": "stop", "overhead_tokens": 2, "reasoning_ended_by": "model"}
    reply = {**completion("42"), "lhrm": told}
    assert asked_of(loop_thread, reply)[1] == Failed("asked for mode no_think, got think")
    assert asked_of(loop_thread, completion("42"))[1] == Failed("malformed reply: KeyError: 'lhrm'")


def asked_of(loop_thread, reply: dict):
    """Return a decision and a no-think answer of a gateway that always replies the same."""
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def chat(request: Request):
        return reply

    serving = serve_on_socket(app, loop_thread)
    try:
        sampler = ServerSampler(Endpoint(next(serving), "m", True), CONFIG)
        return sampler.decide(ASKED[:1])[0], sampler.complete(ASKED[:1], Mode.NO_THINK, 1, seed=0)[0][0]
    finally:
        next(serving, None)
