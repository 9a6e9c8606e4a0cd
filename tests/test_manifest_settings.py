"""A checkpoint is evaluated as its run scores and samples, unless the user says otherwise."""

import pytest

from lhrm_train.config import ConfigError, EvalConfig, RewardConfig, RunConfig
from lhrm_train.format import FormatError, Manifest, SavingsCalibration
from lhrm_train.manifest_settings import config_for, finish_manifest, recorded

REWARD = RewardConfig(scorer="math", leak_words=("hmm", 'say "so"'), numeric_tolerance=1e-7)
RUN = RunConfig(reward=REWARD, eval=EvalConfig(max_new_tokens=8192, samples=4, temperature=0.6, prompts=50))


@pytest.fixture
def model(tmp_path, nano_tokenizer):
    Manifest("tiny", nano_tokenizer.tags, recipe={"hft_seed": 3, **recorded(RUN)}).save(tmp_path)
    return tmp_path


def test_the_runs_settings_are_the_defaults(model):
    config = config_for(model, None, [])
    assert config.reward == REWARD
    assert (config.eval.max_new_tokens, config.eval.samples, config.eval.temperature) == (8192, 4, 0.6)
    assert config.eval.prompts == EvalConfig().prompts  # how much is asked is not how


def test_overrides_and_files_win_setting_by_setting(model, tmp_path):
    config = config_for(model, None, ["reward.scorer=exact", "eval.max_new_tokens=96"])
    assert (config.reward.scorer, config.eval.max_new_tokens, config.eval.samples) == ("exact", 96, 4)
    (tmp_path / "mine.toml").write_text('[reward]\nscorer = "exact"\n[eval]\nmax_new_tokens = 96\nprompts = 7\n')
    config = config_for(model, str(tmp_path / "mine.toml"), ["eval.samples=2"])
    assert (config.reward.scorer, config.eval.max_new_tokens, config.eval.prompts) == ("exact", 96, 7)
    assert (config.reward.leak_words, config.eval.samples) == (REWARD.leak_words, 2)


def test_a_checkpoint_without_a_record_has_the_ordinary_defaults(tmp_path, nano_dir):
    assert config_for(nano_dir, None, []) == RunConfig()
    with pytest.raises(FormatError, match="not an LHRM checkpoint"):
        config_for(tmp_path, None, [])


def test_a_record_that_cannot_be_used_is_named(tmp_path, nano_tokenizer):
    for reward, message in (({"scorers": "exact"}, "unknown setting reward.scorers"), ("exact", "is not a table")):
        Manifest("tiny", nano_tokenizer.tags, recipe={"reward": reward}).save(tmp_path)
        with pytest.raises(ConfigError, match=message):
            config_for(tmp_path, None, [])


def test_mistakes_in_the_file_are_still_said(model, tmp_path):
    (tmp_path / "bad.toml").write_text("[reward\n")
    with pytest.raises(ConfigError, match="is not TOML"):
        config_for(model, str(tmp_path / "bad.toml"), [])
    with pytest.raises(ConfigError, match="neither a recipe"):
        config_for(model, "nowhere.toml", [])


def test_an_evaluation_keeps_the_recipe_and_an_older_calibration(model):
    calibration = SavingsCalibration(0.9, 0, ())
    finish_manifest(model, RUN, {"hacc": 0.5}, calibration)
    finish_manifest(model, RunConfig(), {"hacc": 0.75}, None)
    manifest = Manifest.load(model)
    assert (manifest.recipe["hft_seed"], manifest.recipe["reward"]["scorer"]) == (3, "exact")
    assert manifest.recipe["eval"] == {"samples": 8, "temperature": 1.0, "max_new_tokens": 96, "margin": 0.2}
    assert (manifest.evaluation, manifest.savings_calibration) == ({"hacc": 0.75}, calibration)
