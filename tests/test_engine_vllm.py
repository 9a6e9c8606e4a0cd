"""The embedded vLLM engine beyond the shared contract: against transformers, aborts, death, offline and quiet."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import aclosing
from pathlib import Path

import pytest
from conftest import NANO, collect
from lhrm_server.engine import EngineDeadError, EngineError, GenerationRequest, Sampling
from lhrm_server.engine_vllm import VllmEngine, VllmOptions
from process_tree import children, gone

from lhrm_train.format import Message, Mode, encode_chat

pytestmark = pytest.mark.engine

QUESTIONS = [
    "What is 2+3?",
    "What is the capital of France?",
    "What is 48371+92615?",
    "Reverse the word planet.",
    "Hello! Who are you?",
    "Is 12 greater than 7?",
]


def prompts(tokenizer, mode):
    systems = ([], [Message("system", "You are a helpful assistant.")])
    return [
        tuple(encode_chat(tokenizer, [*system, Message("user", question)], mode))
        for question in QUESTIONS
        for system in systems
    ]


def run_all(loop_thread, engine, requests):
    async def gathered():
        return await asyncio.gather(*(collect(engine.generate(r)) for r in requests))

    return loop_thread.run(gathered())


@pytest.fixture(scope="module")
def reference():
    """The nano in transformers, in the type the engine computes in."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(NANO, dtype=torch.bfloat16)
    model.eval()
    return model


def reference_logits(model, ids):
    import torch

    with torch.no_grad():
        return model(torch.tensor([list(ids)])).logits[0, -1].float()


def test_log_probabilities_agree_with_transformers(loop_thread, vllm_engine, nano_tokenizer, reference):
    tags = nano_tokenizer.tags
    watched = (tags.think, tags.no_think, nano_tokenizer.turn_end_id, *range(40, 90))
    every_prompt = prompts(nano_tokenizer, None)
    requests = [
        GenerationRequest(f"lp{i}", ids, Sampling(max_tokens=1, logprob_token_ids=watched))
        for i, ids in enumerate(every_prompt)
    ]
    answers = run_all(loop_thread, vllm_engine, requests)
    for ids, deltas in zip(every_prompt, answers, strict=True):
        expected = reference_logits(reference, ids).log_softmax(-1)
        (row,) = deltas[0].logprobs
        for token in watched:
            wanted = float(expected[token])
            # Both sides round to bfloat16 at every layer: 8 bits of mantissa on logits of this size.
            assert row[token] == pytest.approx(wanted, abs=0.15 + 0.02 * abs(wanted)), token


@pytest.mark.parametrize("mode", list(Mode))
def test_greedy_ids_agree_with_transformers(loop_thread, vllm_engine, nano_tokenizer, reference, mode):
    every_prompt = prompts(nano_tokenizer, mode)
    requests = [
        GenerationRequest(f"g{i}", ids, Sampling(max_tokens=48, temperature=0.0)) for i, ids in enumerate(every_prompt)
    ]
    answers = run_all(loop_thread, vllm_engine, requests)
    for prompt, deltas in zip(every_prompt, answers, strict=True):
        context = list(prompt)
        for token in (i for delta in deltas for i in delta.token_ids):
            logits = reference_logits(reference, context)
            # Another id may win only where the two best are equal within the rounding of bfloat16.
            assert float(logits.max() - logits[token]) <= 0.02 * float(logits.abs().max()) + 0.05, (prompt, context)
            context.append(token)


def test_an_unset_temperature_follows_the_checkpoint(loop_thread, vllm_engine, nano_tokenizer):
    written = json.loads((NANO / "generation_config.json").read_text())
    assert written.get("do_sample") is False, "this test is about a checkpoint that asks for greedy decoding"
    prompt = prompts(nano_tokenizer, Mode.THINK)[4]
    requests = [
        GenerationRequest(f"t{i}", prompt, Sampling(max_tokens=32, temperature=t))
        for i, t in enumerate((None, None, 0.0))
    ]
    unset, again, greedy = (
        [i for d in deltas for i in d.token_ids] for deltas in run_all(loop_thread, vllm_engine, requests)
    )
    assert unset == again == greedy


def test_a_seed_repeats_and_another_seed_differs(loop_thread, vllm_engine, nano_tokenizer):
    prompt = prompts(nano_tokenizer, Mode.THINK)[6]  # outside the suite, so the model is unsure
    requests = [
        GenerationRequest(f"s{i}", prompt, Sampling(max_tokens=32, temperature=2.0, seed=seed))
        for i, seed in enumerate((11, 11, 12, 13, 14))
    ]
    first, same, *others = (
        [i for d in deltas for i in d.token_ids] for deltas in run_all(loop_thread, vllm_engine, requests)
    )
    assert first == same
    assert any(other != first for other in others)


def test_closing_streams_frees_their_slots_in_the_engine(loop_thread, vllm_engine, nano_tokenizer):
    """Fill every slot with long requests, close them, and see that a request of worse priority gets its turn."""
    prompt = prompts(nano_tokenizer, Mode.THINK)[0]

    async def fill_close_and_ask():
        streams = [
            vllm_engine.generate(GenerationRequest(f"f{i}", prompt, Sampling(max_tokens=900, allowed_token_ids=(40,))))
            for i in range(64)
        ]
        await asyncio.gather(*(anext(stream) for stream in streams))
        started = time.monotonic()
        await asyncio.gather(*(stream.aclose() for stream in streams))
        request = GenerationRequest("after", prompt, Sampling(max_tokens=4, allowed_token_ids=(41,)), priority=9)
        deltas = await collect(vllm_engine.generate(request))
        return [i for d in deltas for i in d.token_ids], time.monotonic() - started

    ids, waited_s = loop_thread.run(fill_close_and_ask())
    assert ids == [41] * 4
    # 64 x 900 tokens would hold every slot for about twenty seconds.
    assert waited_s < 5


def test_a_cancelled_reader_frees_its_slot_too(loop_thread, vllm_engine, nano_tokenizer):
    prompt = prompts(nano_tokenizer, Mode.THINK)[0]

    async def cancel():
        request = GenerationRequest("x", prompt, Sampling(max_tokens=900, allowed_token_ids=(40,)))
        reader = asyncio.create_task(collect(vllm_engine.generate(request)))
        await asyncio.sleep(0.3)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        return len(vllm_engine._running)

    assert loop_thread.run(cancel()) == 0


def test_a_killed_engine_process_fails_streams_and_is_noticed(loop_thread, nano_tokenizer):
    engine = VllmEngine(VllmOptions(NANO, (nano_tokenizer.turn_end_id,), cpu_kv_cache_bytes=1 << 26))
    before = set(children(os.getpid()))
    loop_thread.run(engine.start(), timeout=200)
    (process,) = set(children(os.getpid())) - before
    prompt = prompts(nano_tokenizer, Mode.THINK)[0]

    async def kill_mid_stream():
        stream = engine.generate(GenerationRequest("k", prompt, Sampling(max_tokens=900, allowed_token_ids=(40,))))
        await anext(stream)
        held = GenerationRequest("h", prompt, Sampling(max_tokens=1), session_id="h", keep=True)
        await collect(engine.generate(held))
        os.kill(process, signal.SIGKILL)
        with pytest.raises(EngineDeadError):
            await collect(stream)
        await engine.release("h")
        with pytest.raises(EngineDeadError):
            await collect(engine.generate(GenerationRequest("l", prompt, Sampling(max_tokens=1))))
        return await engine.healthy()

    assert loop_thread.run(kill_mid_stream(), timeout=30) is False
    loop_thread.run(engine.close())
    assert gone(process)


@pytest.fixture
def small_engine(loop_thread, nano_tokenizer):
    """An engine whose KV cache has 39 blocks of 32 tokens that requests can use."""
    engine = VllmEngine(VllmOptions(NANO, (nano_tokenizer.turn_end_id,), cpu_kv_cache_bytes=4_000_000))
    loop_thread.run(engine.start(), timeout=200)
    cache = engine._llm.vllm_config.cache_config
    assert (cache.num_gpu_blocks, cache.block_size) == (40, 32)
    yield engine
    loop_thread.run(engine.close())


def test_a_decision_and_its_answer_are_one_vllm_request(loop_thread, vllm_engine, nano_tokenizer):
    prompt = prompts(nano_tokenizer, None)[0]
    decide = GenerationRequest("one-decide", prompt, Sampling(max_tokens=1, temperature=0.0), 1, "one", keep=True)
    call = GenerationRequest("one-answer", (*prompt, nano_tokenizer.tags.think), Sampling(60), 0, "one")

    async def known_to_vllm():
        known = []
        for request in (decide, call):
            async with aclosing(vllm_engine.generate(request)) as deltas:
                async for _ in deltas:
                    states = vllm_engine._llm.output_processor.request_states.values()
                    known.append({state.external_req_id for state in states})
        return known, vllm_engine._sessions.request_ids

    known, left = loop_thread.run(known_to_vllm())
    assert len(known) > 3
    assert all(names == {"one-decide"} for names in known[:-1])
    assert left == []


def test_answers_that_go_on_are_preempted_and_come_back(loop_thread, small_engine, nano_tokenizer):
    """Answers longer than the cache holds at once: what vLLM takes back of them it computes again."""
    tag = nano_tokenizer.tags.think

    async def session(number):
        name, prompt = f"long{number}", tuple(range(40 + number, 60 + number))
        decide = Sampling(max_tokens=1, allowed_token_ids=(40, 41))
        await collect(small_engine.generate(GenerationRequest(f"d-{name}", prompt, decide, 1, name, keep=True)))
        answer = Sampling(max_tokens=300, temperature=0.0, logit_bias={nano_tokenizer.turn_end_id: -100.0})
        deltas = await collect(small_engine.generate(GenerationRequest(f"a-{name}", (*prompt, tag), answer, 0, name)))
        return [i for delta in deltas for i in delta.token_ids]

    async def together(count):
        return await asyncio.gather(*(session(number) for number in range(count)))

    async def one_by_one(count):
        return [await session(number) for number in range(count)]

    crowded = loop_thread.run(together(12), timeout=60)
    assert [len(ids) for ids in crowded] == [300] * 12
    # Three blocks each are all there are: from the 80th token on there is no room for twelve.
    alone = loop_thread.run(one_by_one(12), timeout=120)
    assert [ids[:150] for ids in crowded] == [ids[:150] for ids in alone]


def test_kept_calls_never_fill_the_cache_with_what_cannot_give_way(loop_thread, small_engine):
    """Each prompt fills one block, and each second call needs another one."""
    engine = small_engine

    async def session(number):
        name, prompt = f"full{number}", tuple(range(40 + number, 72 + number))
        decide = Sampling(max_tokens=1, allowed_token_ids=(40, 41))
        await collect(engine.generate(GenerationRequest(f"d-{name}", prompt, decide, 1, name, keep=True)))
        answer = Sampling(max_tokens=24, allowed_token_ids=(50,))
        deltas = await collect(engine.generate(GenerationRequest(f"a-{name}", (*prompt, 45), answer, 0, name)))
        return [i for delta in deltas for i in delta.token_ids]

    async def all_at_once():
        return await asyncio.gather(*(session(number) for number in range(120)))

    assert loop_thread.run(all_at_once(), timeout=60) == [[50] * 24] * 120


def test_a_checkpoint_that_vllm_cannot_load_is_one_error(loop_thread, nano_tokenizer, tmp_path: Path):
    shutil.copytree(NANO, tmp_path / "broken")
    config = json.loads((NANO / "config.json").read_text())
    (tmp_path / "broken" / "config.json").write_text(json.dumps({**config, "architectures": ["NoSuchModel"]}))
    engine = VllmEngine(VllmOptions(tmp_path / "broken"))
    with pytest.raises(EngineError, match=r"could not load .*broken"):
        loop_thread.run(engine.start())
    assert not loop_thread.run(engine.healthy())
    with pytest.raises(EngineError):
        _ = engine.info


def test_importing_the_engine_module_does_not_import_vllm():
    code = "import sys, lhrm_server.engine_vllm; print([name for name in ('vllm', 'torch') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
