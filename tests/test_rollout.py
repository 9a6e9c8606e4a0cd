"""Sampling in batches: what each prompt gets is its own, and rows that ended are computed no further."""

import pytest
import torch
from conftest import NANO
from transformers import GenerationConfig

from lhrm_train.checkpoint import load_model
from lhrm_train.format import ChatTokenizer, Mode, encode_chat
from lhrm_train.rollout import for_sampling, generate, generate_forced
from lhrm_train.suite.stream import SuiteProblems

LONGEST = 96


@pytest.fixture(scope="module")
def tokenizer():
    return ChatTokenizer.load(NANO)


@pytest.fixture(scope="module")
def lm():
    # fp32: in bf16 sums of other shapes round to other winners now and then.
    return for_sampling(load_model(NANO))


@pytest.fixture(scope="module")
def prompts(tokenizer):
    """Prompts of unequal lengths, every second one with short answers."""
    tags = [tokenizer.tags.think, tokenizer.tags.no_think]
    problems = SuiteProblems(0).draw(0, 24)
    return [[*encode_chat(tokenizer, one.messages, None), tags[at % 2]] for at, one in enumerate(problems)]


def once(lm, tokenizer, prompts, temperature, longest, batch=64, banned=()):
    return [ids for (ids,) in generate(lm, tokenizer, prompts, 1, temperature, longest, batch, banned)]


def alone(lm, prompt, end, longest=LONGEST):
    config = GenerationConfig(max_new_tokens=longest, eos_token_id=end, pad_token_id=end, do_sample=False)
    ids = torch.tensor([prompt])
    return lm.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)[
        0, len(prompt) :
    ].tolist()


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_every_prompt_of_a_batch_is_completed_as_if_it_were_alone(lm, tokenizer, prompts, batch):
    expected = [alone(lm, prompt, tokenizer.turn_end_id) for prompt in prompts]
    assert len({len(ids) for ids in expected}) > 5
    assert once(lm, tokenizer, prompts, 0.0, LONGEST, batch) == expected


def test_a_completion_is_cut_at_the_limit_however_many_rounds_it_took(lm, tokenizer, prompts):
    whole = once(lm, tokenizer, prompts, 0.0, LONGEST)
    assert once(lm, tokenizer, prompts, 0.0, 12) == [ids[:12] for ids in whole]
    assert min(map(len, whole)) < 12 < max(map(len, whole))


def test_rows_that_ended_leave_the_batch(lm, tokenizer, prompts):
    computed = []
    handle = lm.get_output_embeddings().register_forward_hook(lambda _, __, out: computed.append(out.shape[0]))
    try:
        made = once(lm, tokenizer, prompts, 0.0, LONGEST)
    finally:
        handle.remove()
    assert len(computed) == max(map(len, made))  # nothing is computed twice
    assert computed[0] == len(prompts)
    # At any time more than half of the rows go on.
    for step, rows in enumerate(computed):
        assert rows < 2 * sum(len(ids) > step for ids in made) + (step == 0)


def test_samples_are_as_many_as_asked_and_differ(lm, tokenizer, prompts):
    torch.manual_seed(0)
    bare = [prompt[:-1] for prompt in prompts]
    drawn = generate_forced(lm, tokenizer, bare, Mode.THINK, 3, 1.5, LONGEST, batch=16)
    assert [len(group) for group in drawn] == [3] * len(bare)
    assert any(group[0] != group[1] for group in drawn)
    assert all(0 < len(ids) <= LONGEST for group in drawn for ids in group)
    assert all(tokenizer.turn_end_id not in ids[:-1] for group in drawn for ids in group)


def test_a_prompt_is_computed_once_for_all_its_samples(lm, tokenizer, prompts):
    bare = [prompt[:-1] for prompt in prompts]
    computed = []
    embed = lm.get_input_embeddings()
    handle = embed.register_forward_hook(lambda _, given, __: computed.append(tuple(given[0].shape)))
    try:
        drawn = generate_forced(lm, tokenizer, bare, Mode.THINK, 3, 0.0, LONGEST, batch=12)
    finally:
        handle.remove()
    tag = tokenizer.tags.think
    assert drawn == [[ids] * 3 for ids in once(lm, tokenizer, [[*prompt, tag] for prompt in bare], 0.0, LONGEST)]
    lengths = sorted(map(len, bare))
    assert [shape for shape in computed if shape[1] > 1] == [(4, max(lengths[at : at + 4])) for at in range(0, 24, 4)]


def test_banned_ids_are_never_sampled(lm, tokenizer, prompts):
    end = tokenizer.turn_end_id
    assert all(end not in ids and len(ids) == 20 for ids in once(lm, tokenizer, prompts, 1.0, 20, banned=(end,)))
