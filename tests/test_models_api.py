"""The capability block tells what a client needs to know before it asks."""

from dataclasses import replace

import pytest
from gateway_fixtures import MODEL, NANO, load_tokenizer
from lhrm_server.control import MODE_FIELDS, Wish
from lhrm_server.engine_fake import FakeEngine
from lhrm_server.gateway import Gateway
from lhrm_server.models_api import get_model
from lhrm_server.policy import ModePolicy
from lhrm_server.settings import Settings

from lhrm_train.format import ChatTokenizer

TOKENIZER = load_tokenizer()


def block(tokenizer=TOKENIZER, name=MODEL, **settings):
    gateway = Gateway(Settings(MODEL, **settings), FakeEngine(tokenizer), tokenizer)
    return get_model(gateway, name)["lhrm"]


def trained(tool_call_format):
    manifest = replace(TOKENIZER.manifest, tool_call_format=tool_call_format)
    return ChatTokenizer((NANO / "tokenizer.json").read_text(encoding="utf-8"), manifest)


def test_budgets_are_those_that_hold():
    policy = ModePolicy(effort_budgets={"low": 30, "high": 900}, max_reasoning_tokens=500, answer_reserve=64)
    budgets = block(policy=policy)["budgets"]
    assert budgets["effort"] == {"minimal": 500, "low": 30, "medium": 500, "high": 500, "xhigh": 500, "max": 500}
    assert (budgets["max_reasoning_tokens"], budgets["answer_reserve"]) == (500, 64)
    free = block()["budgets"]
    assert (set(free["effort"].values()), free["max_reasoning_tokens"], free["answer_reserve"]) == ({None}, None, 0)


def test_every_spelling_that_is_told_is_taken():
    found = block()
    spellings = {
        **{name: values for name, values in found["control"].items() if name not in ("think_threshold", "X-LHRM-Mode")},
        **dict.fromkeys(found["budgets"]["fields"], (-1, 0, 7)),
    }
    for name, values in spellings.items():
        field, _, member = name.partition(".")
        for value in values:
            assert MODE_FIELDS[field](field, {member: value} if member else value)[0].param == name
    assert {name.partition(".")[0] for name in spellings} == set(MODE_FIELDS) - {
        "include_reasoning",
        "separate_reasoning",
    }


@pytest.mark.parametrize(
    ("tool_call_format", "choices"),
    [
        (None, ["none", "required", "function"]),
        ("hermes", ["none", "auto", "required", "function"]),
        ("other", ["none", "required", "function"]),
    ],
)
def test_tool_support(tool_call_format, choices):
    assert block(trained(tool_call_format))["tools"] == {"format": tool_call_format, "tool_choice": choices}


def test_modes_and_choices():
    found = block(policy=ModePolicy(Wish.THINK, 0.2, (Wish.THINK, Wish.AUTO)), max_choices=4)
    assert (found["default_mode"], found["allowed_modes"], found["think_threshold"]) == (
        "think",
        ["think", "auto"],
        0.2,
    )
    assert (found["aliases"], found["max_choices"]) == ({"think": f"{MODEL}-think"}, 4)
    assert set(found["visibility"]) == {"separate", "hidden", "inline"}
    assert block(name=f"{MODEL}-no-think")["default_mode"] == "no_think"
