from typing import get_args

import pytest

from lhrm_train.config import (
    ConfigError,
    HFTConfig,
    HGPOConfig,
    ObjectiveName,
    RunConfig,
    Split,
    load_config,
    recipe_names,
)
from lhrm_train.objectives import OBJECTIVES
from lhrm_train.suite.mix import SPLITS


def test_defaults_and_overrides(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('threads = 1\n[hgpo]\nsteps = 3\ndecision_objective = "ratio"\nbetas = [0.8, 0.9]\n')
    config = load_config(path, ["hgpo.lr=1e-6", "hft.steps=9", "hgpo.ties=first", "eval.margin=1"])
    assert (config.threads, config.hgpo.steps, config.hgpo.lr, config.hft.steps) == (1, 3, 1e-6, 9)
    assert (config.hgpo.decision_objective, config.hgpo.betas) == ("ratio", (0.8, 0.9))
    assert (config.hgpo.ties, config.eval.margin) == ("first", 1.0)
    assert load_config(None) == RunConfig()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hgpo.stepz=3", "unknown setting hgpo.stepz"),
        ("surprise=1", "unknown setting surprise"),
        ("hgpo.steps=many", "hgpo.steps = 'many' is not int"),
        ("hgpo.steps=true", "hgpo.steps = True is not int"),
        ("hgpo.decision_objective=best", "hgpo.decision_objective = 'best'; known: 'ratio'"),
        ("hgpo.rollouts=3", "hgpo.rollouts = 3"),
        ("hft.think_share=1", "hft.think_share = 1"),
        ("hgpo.mask_both_fail=1", "hgpo.mask_both_fail = 1 is not bool"),
        ("nonsense", "not of the form"),
        ("threads.x=1", "threads = {'x': 1} is not int"),
        ("hft.lora=1", "hft.lora = 1 is not a table"),
        ("hft.betas=[0.9]", "hft.betas = [0.9] is not a list of 2"),
        ("reward.leak_words=wait", "reward.leak_words = 'wait' is not a list"),
        ('data.files=["a.jsonl"]', "does not go with source = 'suite'"),
        ("data.source=jsonl", "does not go with source = 'jsonl'"),
        ('stages=["hft", "dpo"]', "unknown 'dpo'"),
        ("hgpo.delta_by_kind.add=much", "hgpo.delta_by_kind.add = 'much' is not float"),
        ("hft.lr=1" + "0" * 400, "hft.lr: too large a number"),
        ("hgpo.objective=ppo", "hgpo.objective = 'ppo'; known: 'hgpo', 'grpo', 'adaptthink'"),
        ("eval.split=dev", "eval.split = 'dev'; known: 'train', 'validation', 'test'"),
        ("stages=[]", "stages = []: at least one of base, hft, hgpo, eval"),
    ],
)
def test_bad_settings_name_key_and_value(override, message):
    with pytest.raises(ConfigError) as caught:
        load_config(None, [override])
    assert message in str(caught.value)


def test_unreadable_file(tmp_path):
    with pytest.raises(ConfigError, match=r"neither a recipe \(nano, qwen2\.5-1\.5b"):
        load_config(tmp_path / "absent.toml")
    (tmp_path / "bad.toml").write_text("= 3")
    with pytest.raises(ConfigError, match=r"bad\.toml is not TOML"):
        load_config(tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"bad\.toml' is neither a recipe .* nor a readable file"):
        load_config(tmp_path / "bad.toml")


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads(name):
    config = load_config(name)
    assert config.base.name.startswith("lhrm-")


def test_the_nano_recipe_is_the_default():
    assert load_config("nano") == RunConfig()


def test_the_paper_preset_and_what_overrides_it():
    config = load_config(None, ["hgpo.preset=paper", "hgpo.delta=0.3"]).hgpo
    assert (config.rollouts, config.alpha, config.beta, config.clip, config.lr) == (4, 1.0, 0.001, 0.5, 1e-6)
    assert (config.decision_objective, config.refresh_reference_every, config.prompts) == ("ratio", 1, 256)
    assert config.delta == 0.3
    assert load_config("qwen2.5-7b").hgpo.lr == 1e-6


def test_margins_by_kind():
    config = load_config(None, ["hgpo.delta_by_kind.add=0.5", "hgpo.delta_by_kind.story=1"])
    assert config.hgpo.delta_by_kind == {"add": 0.5, "story": 1.0}


def test_validation_happens_on_construction():
    with pytest.raises(ConfigError, match=r"^rollouts = 0: at least 2$"):
        HGPOConfig(rollouts=0)
    with pytest.raises(ConfigError, match=r"^think_share = 1\.0: at least 0 and less than 1$"):
        HFTConfig(think_share=1.0)


def test_the_names_that_settings_take_are_those_that_there_are():
    assert get_args(ObjectiveName) == tuple(OBJECTIVES)
    assert get_args(Split) == SPLITS
