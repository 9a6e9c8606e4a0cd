import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lhrm_train.attention import GROUPED, group_positions, grouped_attention
from lhrm_train.data import Group, Sample, collate, collate_groups, nest_prompts, pack, share_prompts
from lhrm_train.scorer import (
    GROUPED_BYTES,
    LONGEST_GROUPED_ROW,
    SCORE_BYTES,
    TokenScorer,
    choose_attention,
    target_logprobs,
)
from tests.tiny_model import tiny_llama


def test_pack_is_best_fit_decreasing():
    # 6 opens a row, 5 opens another, 4 fills the first to 10, 3 and 2 fill the second.
    assert pack([3, 6, 2, 5, 4], 10) == [[1, 4], [3, 0, 2]]


@given(st.lists(st.integers(1, 16), max_size=40))
def test_pack_places_every_sample_once(lengths):
    rows = pack(lengths, 16)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= 16 for row in rows)


def test_pack_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="sample of 17 tokens does not fit a row of 16"):
        pack([17], 16)


def test_collate_by_hand():
    samples = [Sample([10, 11], [20, 21]), Sample([12], [22])]
    batch = collate(samples, [[0, 1]], 8)
    assert batch.input_BT.tolist() == [[10, 11, 20, 21, 12, 22, 0, 0]]
    assert batch.position_BT.tolist() == [[0, 1, 2, 3, 0, 1, 0, 0]]
    # Token 20 is predicted at 11's position, 21 at 20's, 22 at 12's. Prompts are not trained.
    assert batch.source_M.tolist() == [1, 2, 4]
    assert batch.target_M.tolist() == [20, 21, 22]
    assert batch.sample_M.tolist() == [0, 0, 1]
    assert batch.decision_M.tolist() == [True, False, True]
    assert batch.trained_tokens == 3
    allowed = batch.mask()[0, 0]
    assert allowed[3].tolist() == [True, True, True, True, False, False, False, False]
    assert allowed[5].tolist() == [False, False, False, False, True, True, False, False]
    # Padding attends to itself alone, so that no softmax row is empty.
    assert allowed[7].tolist() == [False] * 7 + [True]


@pytest.mark.parametrize("longest", [0, 512], ids=["fused", "grouped"])
def test_packing_changes_no_log_probability(longest, monkeypatch):
    monkeypatch.setattr("lhrm_train.scorer.LONGEST_GROUPED_ROW", longest)
    samples = [Sample([5, 6, 7], [8, 9]), Sample([10, 11], [12, 13, 14])]
    lm = tiny_llama()
    choose_attention(lm, torch.device("cpu"), 1, 12)
    scorer = TokenScorer(lm)
    with torch.no_grad():
        packed = collate(samples, [[0, 1]], 12)
        together = target_logprobs(scorer(packed), packed.target_M)
        alone = []
        for sample in samples:
            one = collate([sample], [[0]], len(sample))
            alone.append(target_logprobs(scorer(one), one.target_M))
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_attention_changes_neither_log_probabilities_nor_gradients(kv_heads, tmp_path):
    rng = random.Random(0)
    groups = [
        Group([5, 6, 7, 8], ([9, 10], [11], [12, 13, 14]), (0, 1, 2), (2, 3, 4)),
        Group([5, 6], ([7, 8, 9], [10, 11]), (3, 4)),
        *(Group([rng.randrange(5, 60) for _ in range(n)], ([20, 21],), (n,)) for n in range(5, 25, 3)),
    ]
    batch = collate_groups(groups, [[0, 1, 2], [3, 4], [5, 6], [7], [8]], 40)
    found = {}
    for length in (LONGEST_GROUPED_ROW, LONGEST_GROUPED_ROW + 1):
        lm = tiny_llama(kv_heads=kv_heads)
        choose_attention(lm, torch.device("cpu"), 1, length)
        for dtype in (None, torch.bfloat16):
            lm.zero_grad()
            with torch.autocast("cpu", dtype, enabled=dtype is not None):
                logprobs = target_logprobs(TokenScorer(lm)(batch), batch.target_M)
            logprobs.sum().backward()
            grads = torch.cat([p.grad.flatten() for p in lm.parameters()])
            found[lm.config._attn_implementation, dtype] = logprobs.detach(), grads
        lm.save_pretrained(tmp_path)
        assert "attn" not in (tmp_path / "config.json").read_text().replace("attention", "")
    for dtype, close in ((None, 1e-5), (torch.bfloat16, 2e-2)):
        for mine, fused in zip(found[GROUPED, dtype], found["sdpa", dtype], strict=True):
            assert (mine - fused).norm() <= close * fused.norm()


def test_grouped_attention_is_not_chosen_where_its_scores_fill_the_memory():
    lm = tiny_llama()
    scores = lm.config.num_attention_heads * lm.config.num_hidden_layers * LONGEST_GROUPED_ROW**2
    most = GROUPED_BYTES // (SCORE_BYTES * scores)
    choose_attention(lm, torch.device("cpu"), most + 1, LONGEST_GROUPED_ROW)
    assert lm.config._attn_implementation == "sdpa"
    choose_attention(lm, torch.device("cpu"), most, LONGEST_GROUPED_ROW)
    assert lm.config._attn_implementation == GROUPED


def test_grouped_attention_is_not_chosen_for_windows_and_refuses_what_it_does_not_know():
    lm = tiny_llama()
    lm.config.sliding_window = 16
    choose_attention(lm, torch.device("cpu"), 1, 12)
    assert lm.config._attn_implementation == "sdpa"
    some = torch.zeros(1, 1, 2, 4)
    grouping = group_positions(collate([Sample([5], [6])], [[0]], 2), torch.float32)
    with pytest.raises(ValueError, match="knows no softcap"):
        grouped_attention(lm, some, some, some, None, 1.0, grouping=grouping, softcap=2.0)


def test_without_groups_grouped_attention_is_that_of_torch():
    lm = tiny_llama(kv_heads=1)
    ids = torch.arange(5, 25).view(2, 10)
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    expected = lm(input_ids=ids, attention_mask=mask).logits[:, 4:]
    choose_attention(lm, torch.device("cpu"), 1, 12)
    assert lm.config._attn_implementation == GROUPED
    assert torch.allclose(lm(input_ids=ids, attention_mask=mask).logits[:, 4:], expected, atol=1e-5)


def test_collate_groups_by_hand():
    batch = collate_groups([Group([10, 11], ([20, 21], [30]), (7, 5))], [[0]], 6)
    assert batch.input_BT.tolist() == [[10, 11, 20, 21, 30, 0]]
    # Both completions begin at position 2, and their first tokens are predicted from the end of the prompt.
    assert batch.position_BT.tolist() == [[0, 1, 2, 3, 2, 0]]
    assert batch.source_M.tolist() == [1, 2, 1]
    assert batch.target_M.tolist() == [20, 21, 30]
    assert batch.sample_M.tolist() == [7, 7, 5]
    assert batch.decision_M.tolist() == [True, False, True]
    allowed = batch.mask()[0, 0]
    assert allowed[3].tolist() == [True, True, True, True, False, False]
    assert allowed[4].tolist() == [True, True, False, False, True, False]


def test_prompts_are_shared_and_split_where_a_row_is_short():
    samples = [Sample([1, 2], [3] * n) for n in (4, 4, 1)] + [Sample([9], [3])] * 3
    groups = share_prompts(samples, 3, 8)
    assert [group.numbers for group in groups] == [(0,), (1, 2), (3, 4, 5)]
    assert [len(group) for group in groups] == [6, 7, 4]
    with pytest.raises(ValueError, match="samples 0 and 1 do not share a prompt"):
        share_prompts([Sample([1], [3]), Sample([2], [3])], 2, 8)


def scored(batch):
    """Log-probabilities of the trained tokens, and the gradient of their sum."""
    scorer = TokenScorer(tiny_llama())
    logp = target_logprobs(scorer(batch), batch.target_M)
    logp.sum().backward()
    return logp.detach(), torch.cat([p.grad.flatten() for p in scorer.parameters()])


def test_sharing_a_prompt_changes_no_log_probability_and_no_gradient():
    samples = [Sample([5, 6, 7], [8, 9]), Sample([5, 6, 7], [12, 13, 14]), Sample([5, 6, 7], [15])]

    alone, apart = scored(collate(samples, [[0, 1, 2]], 16))
    shared, together = scored(collate_groups(share_prompts(samples, 3, 16), [[0]], 16))
    assert torch.allclose(alone, shared, atol=1e-4)
    assert torch.allclose(apart, together, atol=1e-3)
    assert apart.norm() > 1


def test_nested_prompts_by_hand():
    turns = [Sample([1, 2], [20, 21]), Sample([1, 2, 3], [30]), Sample([1, 2, 3], [40]), Sample([1, 2, 3, 4, 5], [50])]
    group = nest_prompts(turns)
    assert (group.forks, group.numbers, len(group)) == ((2, 3, 3, 5), (0, 1, 2, 3), 10)
    batch = collate_groups([group], [[0]], 11)
    assert batch.input_BT.tolist() == [[1, 2, 20, 21, 3, 30, 40, 4, 5, 50, 0]]
    assert batch.position_BT.tolist() == [[0, 1, 2, 3, 2, 3, 3, 3, 4, 5, 0]]
    # Each first token is predicted from the end of its own prompt: 20 from 2, 30 and 40 from 3, 50 from 5.
    assert batch.source_M.tolist() == [1, 2, 4, 4, 8]
    assert batch.target_M.tolist() == [20, 21, 30, 40, 50]
    assert batch.decision_M.tolist() == [True, False, True, True, True]
    # The last answer sees every turn's prompt and no answer but its own.
    assert batch.mask()[0, 0, 9].int().tolist() == [1, 1, 0, 0, 1, 0, 0, 1, 1, 1, 0]


@pytest.mark.parametrize("prompts", [([1, 2], [1, 3, 4]), ([1, 2, 3], [1, 2])], ids=["other", "shorter"])
def test_prompts_that_do_not_continue_each_other_are_not_nested(prompts):
    with pytest.raises(ValueError, match="the prompt of sample 0 is not the beginning of the next"):
        nest_prompts([Sample(prompt, [9]) for prompt in prompts])


def test_nesting_turns_changes_no_log_probability_and_no_gradient():
    turns = [Sample([5, 6], [8, 9]), Sample([5, 6, 7, 3], [12, 13, 14]), Sample([5, 6, 7, 3, 2, 11], [15])]

    alone, apart = scored(collate(turns, [[0, 1, 2]], 20))
    nested, together = scored(collate_groups([nest_prompts(turns)], [[0]], 20))
    assert torch.allclose(alone, nested, atol=1e-4)
    assert torch.allclose(apart, together, atol=1e-3)
    assert apart.norm() > 1
