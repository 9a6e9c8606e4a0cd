"""How arms are named on the command line, and what makes one differ from another."""

import pytest
from lhrm_loadtest.arms import Arm, described_arm, named_arms, pick_baseline
from lhrm_loadtest.errors import LoadTestError


def test_names_stand_for_modes_and_thresholds():
    arms = named_arms("auto,think,no_think,auto@0.25", "http://h:1/v1/", "m")
    assert [(arm.name, arm.mode, arm.threshold) for arm in arms] == [
        ("auto", "auto", None),
        ("think", "think", None),
        ("no_think", "no_think", None),
        ("auto@0.25", "auto", 0.25),
    ]
    assert {(arm.url, arm.model) for arm in arms} == {("http://h:1", "m")}


def test_only_the_mode_differs_between_the_arms():
    fields = [arm.mode_fields() for arm in named_arms("auto,think,no_think,auto@0.25", "http://h", "")]
    assert fields == [
        {"thinking": {"type": "auto"}},
        {"thinking": {"type": "enabled"}},
        {"thinking": {"type": "disabled"}},
        {"thinking": {"type": "auto"}, "think_threshold": 0.25},
    ]


def test_another_endpoint_is_described():
    arm = described_arm(
        'r1,url=https://other/v1,model=r1,mode=plain,extra={"top_k": 3, "stop": ["a", "b"]},answer_after=#'
    )
    assert arm == Arm(
        name="r1",
        url="https://other",
        model="r1",
        mode="plain",
        extra={"top_k": 3, "stop": ["a", "b"]},
        answer_after="#",
    )
    assert arm.mode_fields() == {"top_k": 3, "stop": ["a", "b"]}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("x,mode=maybe", "mode = 'maybe'"),
        ("x,speed=3", "speed = '3'"),
        ("x,url=localhost:8000", "url = 'localhost:8000'"),
        ("x,threshold=2", "threshold = '2'"),
        ("x,mode=think,threshold=0.3", "only mode auto"),
        ("x,model", "'model' is not KEY=VALUE"),
        ("x,extra={", "extra = '{' is not JSON"),
        ("x,extra=[1]", "extra = "),
        ("a b", "name = 'a b'"),
    ],
)
def test_a_description_that_makes_no_sense_is_named(text, named):
    with pytest.raises(LoadTestError, match=named):
        described_arm(text)


@pytest.mark.parametrize("names", ["fast", "think@0.5", "auto@x", "auto@1.5"])
def test_unknown_names(names):
    with pytest.raises(LoadTestError, match=f"arm '{names}'"):
        named_arms(names, "http://h", "")


def test_the_key_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("LHRM_API_KEY", "k1")
    monkeypatch.setenv("OTHER", "k2")
    assert Arm(name="a").headers() == {"Authorization": "Bearer k1"}
    assert Arm(name="a", key_variable="OTHER").headers() == {"Authorization": "Bearer k2"}
    assert Arm(name="a", key_variable="NONE_SUCH").headers() == {}
    assert "k1" not in Arm(name="a").model_dump_json()


def test_the_baseline_thinks_unless_another_is_named():
    arms = named_arms("auto,think,no_think", "http://h", "")
    assert pick_baseline(arms, None) == "think"
    assert pick_baseline(arms, "no_think") == "no_think"
    assert pick_baseline(named_arms("auto,auto@0.2", "http://h", ""), None) == "auto@0.2"
    for chosen, name, named in ((arms, "slow", "baseline = 'slow'"), ([], None, "none"), (arms * 2, None, "twice")):
        with pytest.raises(LoadTestError, match=named):
            pick_baseline(chosen, name)
