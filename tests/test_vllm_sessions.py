"""Which calls become parts of one vLLM request, and when that request ends; vLLM is scripted."""

from types import SimpleNamespace

import pytest
from lhrm_server.engine import GenerationRequest, Grammar, Sampling
from lhrm_server.vllm_sessions import Inputs, Sessions, session_room

PROMPT = (7, 8, 9)
INPUTS = Inputs(tokens=tuple, part=lambda ids, params: (list(ids), params))


class ScriptedLlm:
    """Answers each part of a prompt with one output; it keeps what it was given and which requests were closed."""

    def __init__(self):
        self.parts = []
        self.closed = []
        self.finish_reason = "length"

    async def generate(self, prompt, params, request_id, *, priority):
        try:
            if isinstance(prompt, tuple):
                self.parts.append((request_id, priority, list(prompt), params))
                yield self.output()
                return
            async for part in prompt:
                self.parts.append((request_id, priority, *part))
                yield self.output()
        finally:
            self.closed.append(request_id)

    def output(self):
        return SimpleNamespace(outputs=[SimpleNamespace(finish_reason=self.finish_reason, token_ids=[len(self.parts)])])


@pytest.fixture
def llm():
    return ScriptedLlm()


def call(name, ids=PROMPT, session="s", keep=False, priority=0, **sampling):
    return GenerationRequest(name, ids, Sampling(**{"max_tokens": 1, **sampling}), priority, session, keep)


def params_of(request):
    sampling = request.sampling
    return SimpleNamespace(of=request.request_id, seed=sampling.seed, temperature=sampling.temperature or 0.0)


async def outputs(sessions, request):
    stream = await sessions.outputs(request, params_of(request))
    return [output.outputs[0].token_ids async for output in stream]


async def test_two_calls_are_one_request_in_two_parts(llm):
    sessions = Sessions(llm, INPUTS, room=50, block_size=16)
    first, second = call("d", keep=True, priority=1), call("a", (*PROMPT, 4, 5), seed=3, temperature=0.0)
    assert await outputs(sessions, first) == [[1]]
    assert (sessions.request_ids, llm.closed) == (["d"], [])
    assert await outputs(sessions, second) == [[2]]
    # Both at the priority of an answer: vLLM keeps the first part's.
    assert llm.parts == [("d", 0, [7, 8, 9], params_of(first)), ("d", 0, [4, 5], params_of(second))]
    assert (sessions.request_ids, llm.closed) == ([], ["d"])
    await sessions.release("s")
    assert llm.closed == ["d"]


ALONE = {
    "a grammar": {"grammar": Grammar("json", "{}")},
    "a seed": {"seed": 0, "temperature": 1.0},
    "log-probabilities": {"top_logprobs": 0},
    "log-probabilities of ids": {"logprob_token_ids": (4,)},
}


@pytest.mark.parametrize("sampling", ALONE.values(), ids=ALONE.keys())
async def test_what_a_session_cannot_change_ends_it_before_the_next_request_begins(llm, sampling):
    sessions = Sessions(llm, INPUTS, room=50, block_size=16)
    await outputs(sessions, call("d", keep=True))
    request = call("a", (*PROMPT, 4), **sampling)
    stream = await sessions.outputs(request, params_of(request))
    # A place that nobody continues would be missing to those who wait for one.
    assert (sessions.request_ids, llm.closed) == ([], ["d"])
    assert [out.outputs[0].token_ids async for out in stream] == [[2]]
    assert llm.parts[1] == ("a", 0, [7, 8, 9, 4], params_of(request))


@pytest.mark.parametrize("ids", [PROMPT, (7, 8), (1, *PROMPT), (7, 8, 1, 4)])
async def test_another_prompt_is_another_request(llm, ids):
    sessions = Sessions(llm, INPUTS, room=50, block_size=16)
    await outputs(sessions, call("d", keep=True))
    await outputs(sessions, call("a", ids))
    assert llm.closed == ["d", "a"]
    assert llm.parts[1][2] == list(ids)


async def test_another_session_or_none_leaves_what_is_held(llm):
    sessions = Sessions(llm, INPUTS, room=50, block_size=16)
    await outputs(sessions, call("d", keep=True))
    for other in ("t", None):
        await outputs(sessions, call(f"of {other}", (*PROMPT, 4), session=other))
    assert llm.closed == ["of t", "of None"]
    await sessions.release("s")
    assert llm.closed[2:] == ["d"]
    assert sessions.request_ids == []


async def test_without_a_session_id_nothing_is_held(llm):
    sessions = Sessions(llm, INPUTS, room=50, block_size=16)
    await outputs(sessions, call("d", keep=True, session=None))
    assert llm.closed == ["d"]


async def test_a_second_kept_call_takes_the_place_of_the_first(llm):
    sessions = Sessions(llm, INPUTS, room=50, block_size=16)
    await outputs(sessions, call("d", keep=True))
    await outputs(sessions, call("e", (*PROMPT, 4), keep=True))
    assert (sessions.request_ids, llm.closed) == (["e"], ["d"])


async def test_sessions_that_wait_take_at_most_half_of_the_cache(llm):
    # 17 tokens take 2 blocks, and one more for what is computed next: of 12 blocks two such sessions may wait.
    sessions = Sessions(llm, INPUTS, room=6, block_size=16)
    ids = tuple(range(17))
    for name in "abc":
        await outputs(sessions, call(name, ids, session=name, keep=True))
    assert (sorted(sessions.request_ids), llm.closed) == (["a", "b"], ["c"])
    follows = call("a2", (*ids, 1), session="a")
    second = await sessions.outputs(follows, params_of(follows))
    await anext(second)
    # Once its second part runs, a session gives way like any other request.
    await outputs(sessions, call("d", ids, session="d", keep=True))
    assert sorted(sessions.request_ids) == ["a", "b", "d"]
    await second.aclose()
    await sessions.release("b")
    assert sessions.request_ids == ["d"]


@pytest.mark.parametrize("place", ["first", "second"])
async def test_a_call_that_is_closed_early_ends_the_request(llm, place):
    sessions = Sessions(llm, INPUTS, room=50, block_size=16)
    if place == "second":
        await outputs(sessions, call("d", keep=True))
    llm.finish_reason = None
    request = call("d", keep=True) if place == "first" else call("a", (*PROMPT, 4))
    stream = await sessions.outputs(request, params_of(request))
    await anext(stream)
    await stream.aclose()
    assert (sessions.request_ids, llm.closed) == ([], ["d"])


async def test_a_first_part_that_vllm_gave_up_is_not_held(llm):
    sessions = Sessions(llm, INPUTS, room=50, block_size=16)
    llm.finish_reason = "abort"
    await outputs(sessions, call("d", keep=True))
    assert (sessions.request_ids, llm.closed) == ([], ["d"])


def config(blocks=80, *, asynchronous=False, hybrid=False, window=None):
    return SimpleNamespace(
        cache_config=SimpleNamespace(num_gpu_blocks=blocks),
        scheduler_config=SimpleNamespace(async_scheduling=asynchronous),
        model_config=SimpleNamespace(is_hybrid=hybrid, get_sliding_window=lambda: window),
    )


def test_there_is_room_for_sessions_where_vllm_can_hold_them():
    assert session_room(config()) == 40
    assert session_room(config(asynchronous=True)) == 0
    assert session_room(config(hybrid=True)) == 0
    assert session_room(config(window=64)) == 0
    with pytest.raises(ValueError, match="how many blocks"):
        session_room(config(None))


async def test_without_room_every_call_is_a_request_of_its_own(llm):
    sessions = Sessions(llm, INPUTS, room=0, block_size=16)
    await outputs(sessions, call("d", keep=True, priority=1))
    await outputs(sessions, call("a", (*PROMPT, 4)))
    assert [(name, priority) for name, priority, *_ in llm.parts] == [("d", 1), ("a", 0)]
    assert llm.closed == ["d", "a"]
