import pytest
from lhrm_server.control import Wish
from lhrm_server.policy import ModePolicy
from lhrm_server.policy_file import load_policy
from lhrm_server.setting_checks import SettingsError

WHOLE = """
default_mode = "no_think"
think_threshold = 0.25
allowed_modes = ["no_think", "auto"]
max_reasoning_tokens = 900
answer_reserve = 64
retry_unanswered = true
[effort_budgets]
low = 100
high = 800
[models.small]
default_mode = "auto"
effort_budgets = { low = 20 }
[models."org/large-1.5"]
think_threshold = 1
"""


@pytest.fixture
def policy_file(tmp_path):
    def write(text):
        path = tmp_path / "policy.toml"
        path.write_text(text)
        return path

    return write


def test_no_file_is_the_default():
    assert load_policy(None, "m", {}) == load_policy(None, "m", {"default_mode": None}) == ModePolicy()


def test_every_key(policy_file):
    assert load_policy(policy_file(WHOLE), "other", {}) == ModePolicy(
        default_mode=Wish.NO_THINK,
        think_threshold=0.25,
        allowed_modes=(Wish.AUTO, Wish.NO_THINK),
        effort_budgets={"low": 100, "high": 800},
        max_reasoning_tokens=900,
        answer_reserve=64,
        retry_unanswered=True,
    )


def test_a_models_table_overrides_whole_keys(policy_file):
    small = load_policy(policy_file(WHOLE), "small", {})
    assert (small.default_mode, small.think_threshold, small.answer_reserve) == (Wish.AUTO, 0.25, 64)
    assert dict(small.effort_budgets) == {"low": 20}
    large = load_policy(policy_file(WHOLE), "org/large-1.5", {})
    assert (large.default_mode, large.think_threshold) == (Wish.NO_THINK, 1.0)


def test_flags_win_over_the_file(policy_file):
    flags = {"default_mode": "auto", "think_threshold": 0.0}
    policy = load_policy(policy_file(WHOLE), "org/large-1.5", flags)
    assert (policy.default_mode, policy.think_threshold, policy.answer_reserve) == (Wish.AUTO, 0.0, 64)
    assert load_policy(None, "m", flags) == ModePolicy(think_threshold=0.0)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("treshold = 1", "treshold=1: expected one of default_mode"),
        ("[models.other]\nreserve = 1", "reserve=1"),
        ("[models.other]\nthink_threshold = 2", "think_threshold=2"),
        ("models = 3", "models=3"),
        ("[models]\nm = 3", "models.m=3"),
        ('default_mode = "maybe"', "default_mode='maybe'"),
        ("default_mode = true", "default_mode=True"),
        ('allowed_modes = "auto"', "allowed_modes='auto'"),
        ('allowed_modes = ["auto", "fast"]', "allowed_modes='fast'"),
        ("allowed_modes = []", r"allowed_modes=\[\]"),
        ('allowed_modes = ["think"]', "default_mode='auto'"),
        ('think_threshold = "high"', "think_threshold='high'"),
        ("think_threshold = true", "think_threshold=True"),
        ("think_threshold = nan", "think_threshold=nan"),
        ("answer_reserve = 1.5", "answer_reserve=1.5"),
        ("max_reasoning_tokens = true", "max_reasoning_tokens=True"),
        ("max_reasoning_tokens = -1", "max_reasoning_tokens=-1"),
        ("effort_budgets = 5", "effort_budgets=5"),
        ("[effort_budgets]\nlow = 'x'", "effort_budgets.low='x'"),
        ("[effort_budgets]\nextreme = 5", "effort_budgets='extreme'"),
        ("retry_unanswered = 1", "retry_unanswered=1"),
        ("default_mode", "policy.toml"),
    ],
)
def test_a_mistake_is_named_with_its_file(policy_file, text, named):
    with pytest.raises(SettingsError, match=named) as caught:
        load_policy(policy_file(text), "m", {})
    assert "policy.toml" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(SettingsError, match=r"none\.toml.*No such file"):
        load_policy(tmp_path / "none.toml", "m", {})


def test_a_bad_flag_is_named():
    with pytest.raises(SettingsError, match="think_threshold=7"):
        load_policy(None, "m", {"think_threshold": 7.0})
