from dataclasses import replace

import pytest

from lhrm_train.config import HFTConfig, HGPOConfig, LoraConfig
from lhrm_train.estimate import Hardware, Shape, describe, hft, hgpo

SHAPE = Shape(parameters=1e9, layers=10, hidden_size=1000, vocab_size=2000, kv_size=250)
HARDWARE = Hardware("card", flops=100e12, bandwidth=1e12, memory=17e9, compute_share=0.5, bandwidth_share=0.5)
HFT = HFTConfig(steps=100, rows=1, row_length=1000, muon_lr=0.0)


def test_stage_one_by_hand():
    out = hft(SHAPE, HFT, 1, HARDWARE)
    # 16 bytes per parameter; 1,000 tokens x 10 layers x 34 x 1,000 bytes; 1,000 x 2,000 logits of 16 bytes.
    assert out.memory == {
        "fp32 weights": 4e9,
        "gradients": 4e9,
        "AdamW": 8e9,
        "activations": 0.34e9,
        "logits": 0.032e9,
    }
    # 100,000 tokens x 6e9 operations at 50e12 per second.
    assert out.seconds == pytest.approx(12.0)
    again = hft(SHAPE, replace(HFT, gradient_checkpointing=True), 1, HARDWARE)
    assert again.memory["activations"] == 0.02e9
    assert again.seconds == pytest.approx(16.0)


def test_adapters_hold_the_weights_once():
    out = hft(SHAPE, replace(HFT, lora=LoraConfig(rank=8)), 1, HARDWARE)
    assert out.memory["frozen bf16 weights"] == 2e9
    # 10 layers x 7 projections x 2 matrices x 8 x 1,000 values of 16 bytes.
    assert out.memory["adapters and optimiser"] == 16 * 10 * 7 * 2 * 8 * 1000


def test_stage_two_by_hand():
    config = HGPOConfig(steps=10, prompts=100, rollouts=4, max_new_tokens=100, generate_batch=200, epochs=1)
    out = hgpo(SHAPE, config, 2, HARDWARE)
    # Two processes of 200 rollouts each: one batch x 100 positions x 2e9 bytes at .5e12 per second = .4 s.
    # Training: 200 x 50 tokens x 10e9 operations at 50e12 per second = 2 s.
    assert out.seconds == pytest.approx(10 * (0.4 + 2.0))
    assert out.memory["bf16 copy that samples"] == 2e9
    # Keys and values, 200 x 320 tokens of 10 layers x 2 x 250 x 2 bytes, are less than 36 x 320 tokens in training.
    assert "keys and values of sampling" not in out.memory
    wide = hgpo(SHAPE, replace(config, generate_batch=2000, micro_rows=1), 2, HARDWARE).memory
    assert wide["keys and values of sampling"] == 2000 * 320 * 10 * 2 * 250 * 2
    assert "activations" not in wide
    assert out.memory["reference"] == 4e9
    assert "reference" not in hgpo(SHAPE, replace(config, refresh_reference_every=1), 2, HARDWARE).memory


def test_adapters_sample_from_a_copy_and_are_their_own_reference():
    memory = hgpo(SHAPE, HGPOConfig(lora=LoraConfig(rank=8)), 1, HARDWARE).memory
    assert (memory["frozen bf16 weights"], memory["bf16 copy that samples"]) == (2e9, 2e9)
    assert "reference" not in memory


def test_split_weights_take_their_share():
    out = hft(SHAPE, replace(HFT, shard=True), 4, HARDWARE)
    assert [out.memory[name] for name in ("fp32 weights", "gradients", "AdamW")] == [1e9, 1e9, 2e9]
    assert out.memory["activations"] == 0.34e9
    stage_two = hgpo(SHAPE, HGPOConfig(shard=True), 4, HARDWARE).memory
    assert (stage_two["reference"], stage_two["bf16 copy that samples"]) == (1e9, 2e9)
    assert hft(SHAPE, HFT, 4, HARDWARE).memory["AdamW"] == 8e9


def test_the_description_states_its_assumptions():
    text = describe("HFT", hft(SHAPE, HFT, 1, HARDWARE), HARDWARE, 1)
    assert text.startswith("HFT (estimate): 15.2 GiB per process (fp32 weights 3.7,")
    assert "there are" not in text
    assert ", more than the 15.8 there are;" in describe(
        "HFT", hft(replace(SHAPE, parameters=2e9), HFT, 1, HARDWARE), HARDWARE, 1
    )
    assert "assuming 50% of its arithmetic and 50% of its bandwidth" in text
