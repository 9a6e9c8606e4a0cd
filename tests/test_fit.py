"""Settings that are refused because they do not go together, and those a pretrained base must have of its own."""

import pytest

from lhrm_train.config import BaseConfig, ConfigError, HFTConfig, HGPOConfig, LoraConfig, load_config

# Data of one's own for all three tables, without which settings of finite data have no effect.
FILES = [f"{place}.{setting}" for place in ("data", "prompts", "test") for setting in ("source=jsonl", "files=['a']")]


def refusal(*overrides):
    with pytest.raises(ConfigError) as caught:
        load_config(None, list(overrides))
    return str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        "data.split=test",
        "prompts.limit=5",
        "test.seed=1",
        "data.deduplicate=false",
        "data.decontaminate=['t.jsonl']",
        "data.decontaminate_ngram=8",
        "data.fields.prompt=question",
        "hft.epochs=2",
        "hft.think_first_share=0.1",
        "hft.pairing=paired",
        "hft.batching=bucket",
        "hft.no_think_max_tokens=9",
    ],
)
def test_the_suite_has_no_use_for_settings_of_data(override):
    name = override.partition("=")[0]
    place = name.partition(".")[0]
    message = refusal(override)
    assert message.startswith(f"{name.removesuffix('.prompt')} = ")
    assert message.endswith(f"has no effect with {'data' if place == 'hft' else place}.source = 'suite'")
    # `limit` and the others are settings that files take; `split` and `seed` are not.
    if not name.endswith((".split", ".seed")):
        load_config(None, [*FILES, override, "data.decontaminate=['t.jsonl']"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([*FILES, "data.split=test"], "data.split = 'test' has no effect with data.source = 'jsonl'"),
        ([*FILES, "test.seed=3"], "test.seed = 3 has no effect with test.source = 'jsonl'"),
        (
            [*FILES, "data.decontaminate_ngram=8"],
            "data.decontaminate_ngram = 8 has no effect with data.decontaminate = []",
        ),
        (["data.source=datasets", "data.files=['d']", "data.seed=3"], "data.seed = 3 has no effect with"),
        (
            ["prompts.source=gym", "prompts.files=['g']", "prompts.split=test"],
            "prompts.split = 'test' has no effect with prompts.source = 'gym'",
        ),
        (["prompts.source=gym", "prompts.files=['g']", "prompts.fields.prompt=q"], "prompts.fields = Fields("),
        (["hft.think_share=0"], "hft.think_share = 0.0: with data.source = 'suite' the share must be more than 0"),
        (
            [*FILES, "hft.epochs=2", "hft.steps=100"],
            "hft.steps = 100 has no effect with hft.epochs = 2.0, which sets the number of steps",
        ),
        (
            ["hft.warmup_share=0.1", "hft.warmup_steps=100"],
            "hft.warmup_steps = 100 has no effect with hft.warmup_share = 0.1",
        ),
        (
            ["hft.schedule=cosine", "hft.constant_share=0.5"],
            "hft.constant_share = 0.5 has no effect with hft.schedule = 'cosine'",
        ),
        (["hft.lora.alpha=16"], "hft.lora.alpha = 16.0 has no effect with hft.lora.rank = 0"),
        (["hgpo.lora.targets=['q_proj']"], "hgpo.lora.targets = ('q_proj',) has no effect with hgpo.lora.rank = 0"),
        (["hgpo.reference_rollouts=2"], "hgpo.reference_rollouts = 2 has no effect with hgpo.objective = 'hgpo'"),
        (
            ["hgpo.objective=grpo", "hgpo.decision_objective=ratio"],
            "hgpo.decision_objective = 'ratio' has no effect with hgpo.objective = 'grpo'",
        ),
        (
            ["hgpo.objective=adaptthink", "hgpo.preset=paper", "hgpo.decision_objective=winner"],
            "hgpo.decision_objective = 'winner' has no effect with hgpo.objective = 'adaptthink'",
        ),
        (["hgpo.objective=grpo", "hgpo.ties=first"], "hgpo.ties = 'first' has no effect with hgpo.objective = 'grpo'"),
        (["base.stretch_positions=4096"], "base.stretch_positions = 4096 has no effect with base.path = ''"),
        (["base.rope_theta=1e6"], "base.rope_theta = 1000000.0 has no effect with base.path = ''"),
        (
            ["hgpo.delta_by_kind.add=0.1", "hgpo.delta_by_kind.sum=0.1"],
            "hgpo.delta_by_kind.sum: no question is of that kind; known: add, chain, count, cups, extreme, facts, "
            "letter, multiply, parity, reverse, smalltalk, story",
        ),
    ],
)
def test_settings_that_nothing_would_read(overrides, message):
    assert refusal(*overrides).startswith(message)


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.split=train", "hft.pairing=unpaired", "hft.steps=7"],  # defaults, and a setting that counts
        ["hgpo.objective=grpo", "hgpo.preset=paper"],  # a preset is no choice of the user's
        ["hgpo.objective=adaptthink", "hgpo.delta=0.05", "hgpo.reference_rollouts=2"],
        [*FILES, "data.source=datasets", "data.split=validation", "hft.epochs=2", "hft.think_share=0"],
        ["prompts.source=gym", "prompts.files=['g']", "prompts.seed=4", "prompts.limit=9"],
        # Its files name their questions by the same columns.
        ["prompts.source=gym", "prompts.files=['g']", "prompts.decontaminate=['t']", "prompts.fields.prompt=q"],
        # Kinds of files are known when they are read.
        [*FILES, "hgpo.delta_by_kind.sum=0.1"],
        ["hft.warmup_share=0.1"],
        ["hft.lora.rank=8", "hft.muon_lr=0", "hft.lora.alpha=16"],
    ],
)
def test_settings_that_go_together(overrides):
    load_config(None, overrides)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hft.lora={rank = 8, targets = []}", "hft.lora.targets = []: at least one"),
        ("hft.lora.rank=8", "hft.lora.rank = 8 does not go with muon_lr = 0.02"),
        ("hft.shard=true", "hft.shard = true goes with full weights and AdamW"),
        ("hgpo.rollouts=5", "hgpo.rollouts = 5: N must be even"),
        ("hgpo.row_length=97", "hgpo.row_length = 97 leaves no room for a prompt: it must exceed max_new_tokens = 96"),
        ("base.heads=5", "base.hidden_size = 192: a multiple of 2 * heads = 10"),
    ],
)
def test_values_of_one_table_that_exclude_each_other(override, message):
    assert refusal(override).startswith(message)


def test_values_of_one_table_at_their_limits():
    assert HGPOConfig(row_length=98, max_new_tokens=96).row_length == 98
    assert BaseConfig(hidden_size=12, heads=6).heads == 6
    with pytest.raises(ConfigError, match=r"^refresh_reference_every = 2 does not go with lora\.rank > 0"):
        HGPOConfig(lora=LoraConfig(rank=8), refresh_reference_every=2)
    with pytest.raises(ConfigError, match=r"^shard = true goes neither with"):
        HGPOConfig(shard=True, objective="adaptthink")
    assert HFTConfig(shard=True, muon_lr=0.0).shard


HFT = ["hft.lr=1e-5", "hft.muon_lr=0", "hft.row_length=2048"]
HGPO = ["hgpo.lr=1e-6", "hgpo.max_new_tokens=512", "hgpo.row_length=1024"]
BASE = "base.path=org/model"


def missing(*overrides):
    """Return the names that the error about a pretrained base lists."""
    words = refusal(BASE, *overrides).partition("in parentheses: ")[2]
    return [part.partition(" ")[0] for part in words.split("; ")]


def test_a_pretrained_base_needs_settings_of_its_own():
    everything = [name.partition("=")[0] for name in [*HFT, *HGPO]]
    assert missing() == [*everything, "eval.max_new_tokens"]
    assert refusal(BASE).startswith("base.path = 'org/model' is pretrained, and the defaults are made for a small")
    assert "hft.lr (1e-5, with adapters 1e-4); hft.muon_lr (0); hft.row_length (4096)" in refusal(BASE)
    assert missing(*HFT, *HGPO) == ["eval.max_new_tokens"]
    assert missing(*HFT[1:], "eval.max_new_tokens=512") == ["hft.lr", *everything[3:]]
    load_config(None, [BASE, *HFT, *HGPO, "eval.max_new_tokens=512"])


def test_only_stages_that_run_need_settings():
    assert missing("stages=['base', 'hft']") == ["hft.lr", "hft.muon_lr", "hft.row_length"]
    assert missing("stages=['hgpo', 'eval']", *HGPO) == ["eval.max_new_tokens"]
    load_config(None, [BASE, "stages=['base']"])


def test_a_preset_gives_and_a_value_that_equals_the_default_is_given():
    assert missing(*HFT, "hgpo.preset=paper") == ["eval.max_new_tokens"]
    assert missing(*HFT, "hgpo.preset=lhrm", *HGPO[1:], "eval.max_new_tokens=96") == ["hgpo.lr"]
