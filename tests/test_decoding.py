import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from lhrm_train.decoding import SHARED, Draw, set_decoding_attention
from tests.tiny_model import tiny_llama


def test_tokens_are_drawn_as_often_as_they_are_probable():
    torch.manual_seed(0)
    logits = torch.tensor([0.0, -torch.inf, 1.0, 2.0, -30.0, -torch.inf])
    scores = Draw(temperature=2.0)(torch.zeros(40_000, 1), logits.repeat(40_000, 1))
    assert ((scores == 0).sum(-1) == 1).all()
    assert (scores == -torch.inf).sum() == scores.numel() - len(scores)
    shares = (scores == 0).float().mean(0)
    expected = (logits / 2).softmax(-1)
    # Four standard errors of a share.
    assert ((shares - expected).abs() <= 4 * (expected * (1 - expected) / 40_000).sqrt()).all()


@pytest.mark.parametrize("number", [0.0, 1 - 2**-53], ids=["lowest", "highest"])
def test_the_ends_of_the_random_numbers_draw_no_impossible_token(monkeypatch, number):
    monkeypatch.setattr(torch, "rand", lambda *size, **kwargs: torch.full(size, number, dtype=torch.float64))
    scores = Draw(temperature=1.0)(torch.zeros(1, 1), torch.tensor([[-torch.inf, 1.0, 0.5, -torch.inf]]))
    assert scores.argmax().item() in (1, 2)


def test_rare_tokens_behind_a_sum_near_one_are_drawn():
    torch.manual_seed(0)
    logits = torch.full((1, 200_001), -20.0)  # 200,000 tokens of 2e-9 each
    logits[0, 0] = 0.0
    rare = sum(Draw(1.0)(torch.zeros(1, 1), logits).argmax().item() > 0 for _ in range(20_000))
    assert 2 <= rare <= 20  # 8.2 expected


def left_padded():
    ids = torch.randint(3, 60, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, :4] = mask[2, :1] = 0
    return ids, mask


def logits_of(lm):
    """Logits of a left-padded prompt and of one more token behind its cache."""
    ids, mask = left_padded()
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    first = lm(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True)
    longer = torch.nn.functional.pad(mask, (0, 1), value=1)
    second = lm(
        input_ids=ids[:, :1],
        attention_mask=longer,
        position_ids=positions[:, -1:] + 1,
        past_key_values=first.past_key_values,
    )
    return torch.cat([first.logits[mask.bool()], second.logits.flatten(0, 1)])


def qwen():
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "intermediate_size": 32, "vocab_size": 64, "head_dim": 8}
    return Qwen3ForCausalLM(Qwen3Config(**sizes, num_attention_heads=6, num_key_value_heads=2))


@pytest.mark.parametrize("make", [lambda: tiny_llama(kv_heads=1), qwen], ids=["llama", "qwen"])
@torch.no_grad()
def test_shared_keys_give_the_logits_of_eager_attention(make):
    lm = make().eval()
    lm.set_attn_implementation("eager")
    expected = logits_of(lm)
    set_decoding_attention(lm)
    assert lm.config._attn_implementation == SHARED
    torch.testing.assert_close(logits_of(lm), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "value"), [("sliding_window", 4), ("attn_logit_softcapping", 30.0)])
def test_where_scores_are_changed_or_no_keys_are_shared_attention_stays_eager(name, value):
    windowed = tiny_llama(kv_heads=1)
    setattr(windowed.config, name, value)
    for lm in (windowed, tiny_llama()):
        set_decoding_attention(lm)
        assert lm.config._attn_implementation == "eager"
