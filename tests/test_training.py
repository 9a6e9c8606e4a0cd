import json
from dataclasses import replace

import pytest
import torch

from lhrm_train.checkpoint import load_model
from lhrm_train.config import BaseConfig, EvalConfig, HFTConfig, HGPOConfig
from lhrm_train.data import Sample, collate
from lhrm_train.evaluate import context_rows, evaluate, load_for_evaluation
from lhrm_train.format import ChatTokenizer, Manifest, Mode
from lhrm_train.loss import LossInputs, policy_loss
from lhrm_train.nano import build_base
from lhrm_train.optim import NonFiniteLossError, Optimizers, trapezoid
from lhrm_train.rollout import choices, generate_forced
from lhrm_train.scorer import TokenScorer, target_logprobs
from lhrm_train.suite import mix
from lhrm_train.train_hft import train_hft
from lhrm_train.train_hgpo import HGPOTrainer, train_hgpo
from tests.tiny_model import tiny_llama

TINY = BaseConfig(name="tiny", hidden_size=32, layers=2, heads=2, intermediate_size=48)
HFT = HFTConfig(steps=4, rows=4, lr=1e-2, warmup_steps=1, save_every=100)
HGPO = HGPOConfig(steps=2, prompts=3, rollouts=4, max_new_tokens=8, minibatches=2, lr=1e-2, warmup_updates=1)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = tmp_path_factory.mktemp("base")
    build_base(path, TINY, seed=0)
    return path


@pytest.fixture(scope="module")
def hft(base, tmp_path_factory):
    return train_hft(base, tmp_path_factory.mktemp("hft"), HFT, seed=1, recipe={})


def weights(directory):
    return load_model(directory).state_dict()


def test_base_holds_every_byte_and_single_token_tags(base):
    tokenizer = ChatTokenizer.load(base)
    assert tokenizer.decode(tokenizer.encode_text("ÿ☃<think>")) == "ÿ☃<think>"
    assert Manifest.load(base).name == "tiny"
    assert load_model(base).config.max_position_embeddings >= 512


def test_hft_changes_every_parameter(base, hft):
    before, after = weights(base), weights(hft)
    assert before.keys() == after.keys()
    unchanged = [name for name in before if torch.equal(before[name], after[name])]
    assert unchanged == []


def test_hft_resumes_bit_equal(base, hft, tmp_path):
    # Stopping after 2 of 4 steps and calling again gives the very same weights.
    interrupted = replace(HFT, save_every=2)
    real_step = Optimizers.step
    calls = []

    def dying_step(self, scale, loss):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(loss)
        return real_step(self, scale, loss)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Optimizers, "step", dying_step)
        with pytest.raises(KeyboardInterrupt):
            train_hft(base, tmp_path, interrupted, seed=1, recipe={})
    assert not (tmp_path / "checkpoint").exists()
    resumed = train_hft(base, tmp_path, interrupted, seed=1, recipe={})
    straight, again = weights(hft), weights(resumed)
    assert all(torch.equal(straight[name], again[name]) for name in straight)


def test_a_finished_stage_is_not_run_again(base, hft):
    stamp = (hft / "model.safetensors").stat().st_mtime_ns
    assert train_hft(base, hft.parent, HFT, seed=1, recipe={}) == hft
    assert (hft / "model.safetensors").stat().st_mtime_ns == stamp


def test_hgpo_runs_and_resumes_bit_equal(hft, tmp_path):
    straight = train_hgpo(hft, tmp_path / "a", HGPO, seed=3, recipe={})
    trainer = HGPOTrainer(hft, HGPO, seed=3)
    trainer.step()
    from lhrm_train.checkpoint import save_state

    save_state(tmp_path / "b" / "state", trainer.state())
    torch.manual_seed(999)
    resumed = train_hgpo(hft, tmp_path / "b", HGPO, seed=3, recipe={})
    one, two = weights(straight), weights(resumed)
    assert all(torch.equal(one[name], two[name]) for name in one)
    rows = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert all(0 <= row["think_rate"] <= 1 and row["invalid"] == 0 for row in rows)


def test_the_decision_learns_which_mode_wins():
    # A toy where think is right on prompt A and no-think on prompt B; only the tag can learn it.
    lm = tiny_llama()
    scorer = TokenScorer(lm)
    optimizers = Optimizers(scorer, 3e-3, (0.9, 0.95), 0.0, 1.0)
    think, direct, end = 1, 3, 9
    samples = [Sample([10, 11], [tag, end]) for tag in (think, direct)] + [
        Sample([10, 12], [tag, end]) for tag in (think, direct)
    ]
    batch = collate(samples, [[0, 1, 2, 3]], 16)
    wins = torch.tensor([1.0, -1.0, -1.0, 1.0])[batch.sample_M] * batch.decision_M
    for _ in range(60):
        logp = target_logprobs(scorer(batch), batch.target_M)
        fixed = logp.detach()
        out = policy_loss(LossInputs(logp, fixed, fixed, wins, batch.decision_M, 4), HGPOConfig(beta=0.0))
        out.loss.backward()
        optimizers.step(1.0, out.loss.item())
    final = target_logprobs(scorer(batch), batch.target_M)[batch.decision_M].exp().tolist()
    assert final[0] > 0.8
    assert final[3] > 0.8


def test_accumulation_equals_one_large_batch():
    samples = [Sample([5, 6, i], [7, 8 + i]) for i in range(4)]

    def gradient(parts):
        scorer = TokenScorer(tiny_llama())
        for rows in parts:
            batch = collate(samples, rows, 8)
            logp = target_logprobs(scorer(batch), batch.target_M)
            fixed = logp.detach() - 0.1
            data = LossInputs(logp, fixed, fixed, torch.ones_like(fixed), batch.decision_M, 4)
            policy_loss(data, HGPOConfig()).loss.backward()
        return torch.cat([p.grad.flatten() for p in scorer.parameters() if p.grad is not None])

    whole = gradient([[[0], [1], [2], [3]]])
    parts = gradient([[[0]], [[1]], [[2]], [[3]]])
    assert torch.allclose(whole, parts, atol=1e-5)
    assert whole.abs().sum() > 0


def test_a_non_finite_loss_stops_before_the_update():
    lm = tiny_llama()
    optimizers = Optimizers(lm, 1e-3, (0.9, 0.95), 0.0, 1.0)
    before = [p.detach().clone() for p in lm.parameters()]
    for p in lm.parameters():
        p.grad = torch.full_like(p, float("nan"))
    with pytest.raises(NonFiniteLossError, match="loss nan"):
        optimizers.step(1.0, float("nan"))
    assert all(torch.equal(a, b) for a, b in zip(before, lm.parameters(), strict=True))


def test_muon_takes_the_layer_matrices_only():
    optimizers = Optimizers(tiny_llama(), 1e-3, (0.9, 0.95), 0.02, 1.0)
    adam, muon = optimizers.parts
    assert {p.ndim for p in muon.param_groups[0]["params"]} == {2}
    assert len(muon.param_groups[0]["params"]) == 2 * 7
    assert any(p.ndim == 2 for p in adam.param_groups[0]["params"])  # the embedding


def test_schedule():
    assert [trapezoid(p, 0.4, 0.02) for p in (0.0, 0.39, 0.7, 1.0)] == pytest.approx([1.0, 1.0, 0.5, 0.02])


def test_forced_generation_and_free_choice(hft):
    lm, tokenizer = load_for_evaluation(hft)
    prompts = [[5, 6, 7], [8, 9, 10, 11, 12]]
    torch.manual_seed(0)
    first = generate_forced(lm, tokenizer, prompts, Mode.THINK, 2, 0.0, 6)
    assert [len(group) for group in first] == [2, 2]
    assert first[0][0] == first[0][1]  # greedy
    assert all(1 <= len(ids) <= 6 for group in first for ids in group)
    # Left padding must not change what a short prompt gets.
    alone = generate_forced(lm, tokenizer, prompts[:1], Mode.THINK, 1, 0.0, 6)
    assert alone[0][0] == first[0][0]
    together, single = choices(lm, tokenizer, prompts), choices(lm, tokenizer, prompts[:1])
    assert together[0].p_think == pytest.approx(single[0].p_think, abs=1e-2)
    assert 0 < together[1].mass <= 1


def test_evaluation_rows(hft):
    config = EvalConfig(prompts=6, samples=2, max_new_tokens=8)
    rows = evaluate(hft, config)
    assert len(rows) == 6
    assert all(len(row.think.scores) == len(row.no_think.tokens) == 2 for row in rows)
    assert rows == evaluate(hft, config)
    lm, tokenizer = load_for_evaluation(hft)
    contexts = context_rows(lm, tokenizer, config, questions=4)
    assert [row.variant for row in contexts[:3]] == ["bare", "system", "two turns"]
    assert len(contexts) == 12
    assert {item.key for item in mix.fixed_items(4, config.seed + 1, "test")} == {row.key for row in contexts}
