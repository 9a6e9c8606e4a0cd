import pytest

from lhrm_train.config import ConfigError, HFTConfig, HGPOConfig, RunConfig, load_config


def test_defaults_and_overrides(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('threads = 1\n[hgpo]\nsteps = 3\ndecision_objective = "ratio"\nbetas = [0.8, 0.9]\n')
    config = load_config(path, ["hgpo.lr=1e-6", "hft.steps=9", "hgpo.reference=rollout", "eval.margin=1"])
    assert (config.threads, config.hgpo.steps, config.hgpo.lr, config.hft.steps) == (1, 3, 1e-6, 9)
    assert (config.hgpo.decision_objective, config.hgpo.betas) == ("ratio", (0.8, 0.9))
    assert (config.hgpo.reference, config.eval.margin) == ("rollout", 1.0)
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
    ],
)
def test_bad_settings_name_key_and_value(override, message):
    with pytest.raises(ConfigError) as caught:
        load_config(None, [override])
    assert message in str(caught.value)


def test_unreadable_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(tmp_path / "absent.toml")


def test_validation_happens_on_construction():
    with pytest.raises(ConfigError):
        HGPOConfig(rollouts=0)
    with pytest.raises(ConfigError):
        HFTConfig(think_share=0.0)
