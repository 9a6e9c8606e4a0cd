import json
import math
import os
import shutil
import signal
from collections import Counter
from dataclasses import astuple, replace

import pytest
import torch

from lhrm_train import train_hgpo as train_hgpo_module
from lhrm_train.checkpoint import load_model
from lhrm_train.config import BaseConfig, ConfigError, HFTConfig, HGPOConfig, LoraConfig, RewardConfig
from lhrm_train.data import Sample, collate, collate_groups, share_prompts
from lhrm_train.format import ChatTokenizer, Manifest, Mode
from lhrm_train.loop import take_steps
from lhrm_train.loss import LossInputs, policy_loss
from lhrm_train.metrics import read_metrics
from lhrm_train.nano import build_base
from lhrm_train.objectives.base import winner
from lhrm_train.optim import NonFiniteLossError, Optimizers, cosine, trapezoid
from lhrm_train.rewards import Judged
from lhrm_train.rollout import choices, generate_forced
from lhrm_train.samplers import load_for_evaluation
from lhrm_train.scorer import TokenScorer, target_logprobs
from lhrm_train.stop import InterruptedRunError
from lhrm_train.suite.stream import SuiteDemonstrations, SuiteProblems
from lhrm_train.train_hft import HFTTrainer, train_hft
from lhrm_train.train_hgpo import HGPOTrainer, train_hgpo
from tests.shard_worker import ParityJudge
from tests.tiny_model import tiny_llama

TINY = BaseConfig(name="tiny", hidden_size=32, layers=2, heads=2, intermediate_size=48)
HFT = HFTConfig(steps=4, rows=4, lr=1e-2, warmup_steps=1, save_every=100)
REWARD = RewardConfig()
HGPO = HGPOConfig(steps=2, prompts=3, rollouts=4, max_new_tokens=8, minibatches=2, lr=1e-2, warmup_updates=1)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = tmp_path_factory.mktemp("base")
    build_base(path, TINY, seed=0)
    return path


def demonstrations(base):
    return SuiteDemonstrations(ChatTokenizer.load(base), HFT, seed=1)


@pytest.fixture(scope="module")
def hft(base, tmp_path_factory):
    return train_hft(base, tmp_path_factory.mktemp("hft"), HFT, demonstrations(base), seed=1, recipe={})


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
    calls: list[float] = []

    def dying_step(self, scale, loss):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(loss)
        return real_step(self, scale, loss)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Optimizers, "step", dying_step)
        with pytest.raises(KeyboardInterrupt):
            train_hft(base, tmp_path, interrupted, demonstrations(base), seed=1, recipe={})
    assert not (tmp_path / "checkpoint").exists()
    resumed = train_hft(base, tmp_path, interrupted, demonstrations(base), seed=1, recipe={})
    straight, again = weights(hft), weights(resumed)
    assert all(torch.equal(straight[name], again[name]) for name in straight)


def test_a_finished_stage_is_not_run_again(base, hft):
    stamp = (hft / "model.safetensors").stat().st_mtime_ns
    assert train_hft(base, hft.parent, HFT, demonstrations(base), seed=1, recipe={}) == hft
    assert (hft / "model.safetensors").stat().st_mtime_ns == stamp


def test_hgpo_runs_and_resumes_bit_equal(hft, tmp_path):
    straight = train_hgpo(hft, tmp_path / "a", HGPO, REWARD, SuiteProblems(3), seed=3, recipe={})
    trainer = HGPOTrainer(hft, HGPO, REWARD, SuiteProblems(3), seed=3)
    trainer.step()
    trainer.save(tmp_path / "b" / "state")
    torch.manual_seed(999)
    resumed = train_hgpo(hft, tmp_path / "b", HGPO, REWARD, SuiteProblems(3), seed=3, recipe={})
    one, two = weights(straight), weights(resumed)
    assert all(torch.equal(one[name], two[name]) for name in one)
    rows = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert all(0 <= row["think_rate"] <= 1 and row["invalid"] == 0 for row in rows)


def test_the_decision_learns_which_mode_wins():
    # A toy where think is right on prompt A and no-think on prompt B; only the tag can learn it.
    lm = tiny_llama()
    scorer = TokenScorer(lm)
    optimizers = Optimizers(scorer, 3e-3, (0.9, 0.95), 1.0)
    think, direct, end = 1, 3, 9
    samples = [Sample([10, 11], [tag, end]) for tag in (think, direct)] + [
        Sample([10, 12], [tag, end]) for tag in (think, direct)
    ]
    batch = collate(samples, [[0, 1, 2, 3]], 16)
    wins = torch.tensor([1.0, -1.0, -1.0, 1.0])[batch.sample_M] * batch.decision_M
    for _ in range(60):
        logp = target_logprobs(scorer(batch), batch.target_M)
        fixed = logp.detach()
        out = policy_loss(LossInputs(logp, fixed, fixed, wins, batch.decision_M, 4), HGPOConfig(beta=0.0), winner)
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
            policy_loss(data, HGPOConfig(), winner).loss.backward()
        return torch.cat([p.grad.flatten() for p in scorer.parameters() if p.grad is not None])

    whole = gradient([[[0], [1], [2], [3]]])
    parts = gradient([[[0]], [[1]], [[2]], [[3]]])
    assert torch.allclose(whole, parts, atol=1e-5)
    assert whole.abs().sum() > 0


def test_a_non_finite_loss_stops_before_the_update():
    lm = tiny_llama()
    optimizers = Optimizers(lm, 1e-3, (0.9, 0.95), 1.0)
    before = [p.detach().clone() for p in lm.parameters()]
    for p in lm.parameters():
        p.grad = torch.full_like(p, float("nan"))
    with pytest.raises(NonFiniteLossError, match="loss nan"):
        optimizers.step(1.0, float("nan"))
    assert all(torch.equal(a, b) for a, b in zip(before, lm.parameters(), strict=True))


def test_muon_takes_the_layer_matrices_only():
    optimizers = Optimizers(tiny_llama(), 1e-3, (0.9, 0.95), 1.0, muon_lr=0.02)
    adam, muon = optimizers.parts
    assert {p.ndim for p in muon.param_groups[0]["params"]} == {2}
    assert len(muon.param_groups[0]["params"]) == 2 * 7
    assert any(p.ndim == 2 for p in adam.param_groups[0]["params"])  # the embedding


def test_schedule():
    assert [trapezoid(p, 0.4, 0.02) for p in (0.0, 0.39, 0.7, 1.0)] == pytest.approx([1.0, 1.0, 0.5, 0.02])
    assert [cosine(p, 0.1) for p in (0.0, 0.5, 1.0, 1.5)] == pytest.approx([1.0, 0.55, 0.1, 0.1])


def test_a_stop_signal_saves_and_the_same_call_goes_on(base, hft, tmp_path):
    class StoppingStream(SuiteDemonstrations):
        def batches(self, start, step=1):
            for number, batch in enumerate(super().batches(start), start):
                if number == 2:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch

    stopping = StoppingStream(ChatTokenizer.load(base), HFT, seed=1)
    with pytest.raises(InterruptedRunError, match="stopped at step 3 of 4"):
        train_hft(base, tmp_path, HFT, stopping, seed=1, recipe={})
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    resumed = train_hft(base, tmp_path, HFT, demonstrations(base), seed=1, recipe={})
    straight, again = weights(hft), weights(resumed)
    assert all(torch.equal(straight[name], again[name]) for name in straight)
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4]


def test_hft_accumulation_equals_larger_batches(base):
    # Two micro-batches of 2 rows are the 4 rows of one: the same update.
    class Listed:
        def __init__(self, rows):
            groups, packed, length = demonstrations(base).pool_rows(0)
            self.parts = [collate_groups(groups, packed[i : i + rows], length) for i in range(0, 4, rows)]

        def batches(self, start, step=1):
            yield from self.parts

    def gradients(config, rows):
        trainer = HFTTrainer(base, config, Listed(rows), seed=1)
        trainer.optimizers.step = lambda scale, loss: 0.0
        loss = trainer.step()["loss"]
        return loss, torch.cat([p.grad.flatten() for p in trainer.policy.lm.parameters()])

    loss, whole = gradients(HFT, 4)
    split_loss, parts = gradients(replace(HFT, rows=2, accumulation=2), 2)
    assert split_loss == pytest.approx(loss, rel=1e-4)
    # Compute is bf16, so sums in another order differ in the third digit.
    assert (whole - parts).norm() < 0.02 * whole.norm()
    assert whole.norm() > 0


def test_adapters_train_the_output_rows_of_tags_of_an_untied_head(base, tmp_path):
    folder = shutil.copytree(base, tmp_path / "untied")
    model = load_model(base)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.save_pretrained(folder)
    config = replace(HFT, lora=LoraConfig(rank=4, alpha=8.0), muon_lr=0.0, steps=2)
    trained = train_hft(folder, tmp_path / "hft", config, demonstrations(base), seed=1, recipe={})
    chat = ChatTokenizer.load(base)
    marks = {*astuple(chat.tags), *chat.encode_template("<|im_start|><|im_end|>")}
    after = weights(trained)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        changed = (weights(folder)[name].bfloat16().float() != after[name]).any(-1)
        assert {int(row) for row in changed.nonzero()} <= marks
        assert changed[chat.tags.no_think]
    assert not torch.equal(after["model.embed_tokens.weight"], after["lm_head.weight"])
    trainer = HFTTrainer(folder, config, demonstrations(base), seed=1)
    assert {p.dtype for p in trainer.policy.trained_state().values()} == {torch.float32}


def test_gradient_checkpointing_recomputes_and_gives_the_same_gradient(base):
    def gradients(checkpointing):
        config = replace(HFT, gradient_checkpointing=checkpointing)
        trainer = HFTTrainer(base, config, demonstrations(base), seed=1)
        trainer.optimizers.step = lambda scale, loss: 0.0
        passes = []
        trainer.policy.lm.model.layers[0].mlp.register_forward_pre_hook(lambda *_: passes.append(1))
        trainer.step()
        return len(passes), torch.cat([p.grad.flatten() for p in trainer.policy.lm.parameters()])

    (once, plain), (twice, recomputed) = gradients(False), gradients(True)
    assert (once, twice) == (1, 2)
    assert (plain - recomputed).norm() < 1e-3 * plain.norm()


@pytest.mark.parametrize(("rows", "minibatches", "sizes"), [(4, 3, [1, 1, 2]), (7, 3, [2, 2, 3]), (2, 3, [1, 1])])
def test_minibatches_share_the_rows_evenly(hft, monkeypatch, rows, minibatches, sizes):
    config = replace(HGPO, minibatches=minibatches, micro_rows=2)
    trainer = HGPOTrainer(hft, config, REWARD, SuiteProblems(0), seed=0)
    experience = trainer._gather()
    monkeypatch.setattr(train_hgpo_module, "pack", lambda *_: [[0] for _ in range(rows)])
    parts = trainer._minibatches(experience)
    assert [sum(len(one.batch.input_BT) for one in part) for part in parts] == sizes
    assert not any(one.muted for part in parts for one in part)


def test_a_muted_micro_batch_adds_nothing(hft):
    trainer = HGPOTrainer(hft, HGPO, REWARD, SuiteProblems(0), seed=0)
    trainer.judge = ParityJudge()
    (part,) = trainer._minibatch(*_first_rows(trainer))

    def gradients(minibatch):
        trainer.scorer.zero_grad()
        out = trainer._accumulate(minibatch)
        return out["loss"], torch.cat([p.grad.flatten() for p in trainer.policy.lm.parameters()])

    loss, alone = gradients([part])
    again, muted = gradients([part, replace(part, muted=True)])
    assert again == loss
    assert torch.equal(alone, muted)
    assert alone.norm() > 0


def _first_rows(trainer):
    experience = trainer._gather()
    groups = share_prompts(experience.samples, trainer.config.rollouts, trainer.config.row_length)
    return experience, groups, [[0]]


def test_the_rate_warms_up_and_then_follows_the_cosine(base):
    config = replace(
        HFT,
        steps=100,
        warmup_steps=HFTConfig().warmup_steps,
        warmup_share=0.1,
        schedule="cosine",
        final_lr_share=0.2,
        constant_share=HFTConfig().constant_share,
    )
    trainer = HFTTrainer(base, config, demonstrations(base), seed=1)

    def scale(done):
        trainer.done = done
        return trainer._lr_scale()

    # Ten steps up; then half a cosine over ninety, from 1 to .2: half-way down at step 55.
    assert [scale(done) for done in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert scale(55) == pytest.approx(0.6)
    assert scale(100) == pytest.approx(0.2)


def test_the_rate_of_stage_two_warms_up_by_updates_and_falls_by_steps(hft):
    config = replace(HGPO, steps=10, minibatches=2, epochs=2, warmup_updates=8, decay_from=0.5)
    trainer = HGPOTrainer(hft, config, REWARD, SuiteProblems(0), seed=0)
    # Four updates a step: the first is 1/8, the first of the second step 5/8.
    assert [trainer._lr_scale(update) for update in (0, 3)] == pytest.approx([1 / 8, 4 / 8])
    trainer.done = 1
    assert trainer._lr_scale(0) == pytest.approx(5 / 8)
    trainer.done = 7
    assert trainer._lr_scale(0) == pytest.approx(0.3 / 0.5)


def test_rows_beyond_the_positions_of_the_model_are_refused(base):
    with pytest.raises(ConfigError, match="row_length = 2048: the model has 1024 positions"):
        HFTTrainer(base, replace(HFT, row_length=2048), demonstrations(base), seed=1)


def test_adapters_train_the_tags_and_merge(base, tmp_path):
    config = replace(HFT, lora=LoraConfig(rank=4, alpha=8.0), muon_lr=0.0, steps=2)
    trained = train_hft(base, tmp_path, config, demonstrations(base), seed=1, recipe={})
    # Frozen weights are held in bf16, which rounds a base that was saved in fp32.
    before = {name: value.bfloat16().float() for name, value in weights(base).items()}
    after = weights(trained)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "model.layers.0.self_attn.q_proj.weight" in changed
    assert not any("norm" in name for name in changed)
    chat = ChatTokenizer.load(base)
    marks = {*astuple(chat.tags), *chat.encode_template("<|im_start|><|im_end|>")}
    embedding = (before["model.embed_tokens.weight"] != after["model.embed_tokens.weight"]).any(-1)
    assert {int(row) for row in embedding.nonzero()} <= marks
    assert embedding[chat.tags.think]
    final = train_hgpo(
        trained,
        tmp_path / "hgpo",
        replace(HGPO, lora=LoraConfig(rank=4), steps=1),
        REWARD,
        SuiteProblems(0),
        seed=0,
        recipe={},
    )
    assert weights(final).keys() == before.keys()


def test_adapters_sample_from_a_merged_copy(hft):
    config = replace(HGPO, lora=LoraConfig(rank=4), steps=1)
    policy = HGPOTrainer(hft, config, REWARD, SuiteProblems(0), seed=0).policy
    trained = policy.trained_state()
    with torch.no_grad():
        for value in trained.values():
            value += 0.02 * torch.randn_like(value)
    sampler = policy.sampler()
    assert {p.dtype for p in sampler.parameters()} == {torch.bfloat16}
    assert not any("lora" in name or p.requires_grad for name, p in sampler.named_parameters())
    ids = torch.arange(40)[None]
    with torch.no_grad():
        there, here = (lm(input_ids=ids).logits.float().softmax(-1) for lm in (sampler, policy.lm))
        with policy.base():
            before = policy.lm(input_ids=ids).logits.float().softmax(-1)
    # As near as bf16 is, which is much nearer than the model without its adapters.
    assert (there - here).abs().sum(-1).mean() < 0.2 * (before - here).abs().sum(-1).mean()
    assert all(p.requires_grad for name, p in policy.lm.named_parameters() if name in trained)
    assert policy.sampler() is not sampler


@pytest.mark.parametrize("name", ["hgpo", "grpo", "adaptthink"])
def test_every_objective_trains(hft, name):
    config = replace(HGPO, objective=name, reference_rollouts=1)
    trainer = HGPOTrainer(hft, config, REWARD, SuiteProblems(0), seed=0)
    trainer.judge = ParityJudge()
    before = {key: value.clone() for key, value in trainer.policy.trained_state().items()}
    row = trainer.step()
    assert 0 < row["accuracy_think"] + row["accuracy_no_think"] < 2
    assert any(not torch.equal(before[key], value) for key, value in trainer.policy.trained_state().items())


def test_the_reference_can_follow_the_policy(hft, tmp_path):
    config = replace(HGPO, refresh_reference_every=2, steps=2)
    trainer = HGPOTrainer(hft, config, REWARD, SuiteProblems(0), seed=0)
    first = {name: p.clone() for name, p in trainer.reference.state_dict().items()}
    trainer.step()
    assert all(torch.equal(first[name], p) for name, p in trainer.reference.state_dict().items())
    trainer.step()
    policy = trainer.scorer.state_dict()
    assert all(torch.equal(policy[name], p) for name, p in trainer.reference.state_dict().items())
    trainer.save(tmp_path)
    again = HGPOTrainer(hft, config, REWARD, SuiteProblems(0), seed=0)
    again.restore(tmp_path)
    assert all(torch.equal(policy[name], p) for name, p in again.reference.state_dict().items())


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


def test_a_failing_scorer_is_reported_and_changes_no_weight(hft, tmp_path, capsys):
    class Failing:
        def __init__(self):
            self.failures = Counter()

        def judge(self, problem, mode, ids):
            self.failures["ValueError"] += 1
            return Judged(math.nan, "", len(ids), 0, len(ids), True, False, False, 0, False, False)

    trainer = HGPOTrainer(hft, replace(HGPO, beta=0.0), REWARD, SuiteProblems(0), seed=0)
    trainer.judge = Failing()
    before = {key: value.clone() for key, value in trainer.policy.trained_state().items()}
    take_steps(trainer, "HGPO", 1, 1, tmp_path, ("invalid",))
    assert all(torch.equal(before[key], value) for key, value in trainer.policy.trained_state().items())
    (row,) = read_metrics(tmp_path)
    assert row["invalid"] == 1.0
    assert row["accuracy_think"] is None
    assert "scorer failures so far, by exception: {'ValueError': 12}" in capsys.readouterr().out
