"""Headers, model names and the operator's word over HTTP: who may ask for what, and what runs in the end."""

import pytest
from gateway_fixtures import CHAT, MODEL, body, gateway, load_tokenizer, scripted
from lhrm_server.control import Wish
from lhrm_server.operators import load_operators
from lhrm_server.policy import ModePolicy

TOKENIZER = load_tokenizer()
KEY = {"Authorization": "Bearer operator-key"}


@pytest.fixture
def operators(tmp_path):
    path = tmp_path / "keys"
    path.write_text("operator-key\n")
    return load_operators(path, None)


def error_of(response):
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({}, {}),
        ({"reasoning_effort": "high"}, {}),
        ({"think_threshold": 0}, {}),
        ({}, {"X-LHRM-Mode": "think"}),
        ({"model": f"{MODEL}-think"}, {}),
    ],
)
@pytest.mark.parametrize("allowed", [tuple(Wish), (Wish.AUTO,)])
async def test_an_operator_wins_over_everything(operators, fields, headers, allowed):
    policy = ModePolicy(allowed_modes=allowed)
    async with gateway(scripted(TOKENIZER, p_think=0.9), operators=operators, policy=policy) as rig:
        reply = await rig.chat(headers={**headers, **KEY, "X-LHRM-Force": "no_think"}, **fields)
        assert reply.status_code == 200, reply.text
        assert (reply.headers["x-lhrm-mode"], reply.headers["x-lhrm-source"]) == ("no_think", "policy")
        assert reply.json()["lhrm"]["source"] == "policy"
        assert len(rig.engine.requests) == 1


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer sk-of-a-client"}, {"X-Forwarded-For": "10.0.0.1"}])
async def test_without_rights_nobody_forces(operators, headers):
    async with gateway(operators=operators) as rig:
        reply = await rig.chat(headers={**headers, "X-LHRM-Force": "think"})
        assert error_of(reply) == (403, "operator_rights_needed", "X-LHRM-Force")
        assert reply.json()["error"]["type"] == "permission_error"
        assert rig.engine.requests == []
        assert rig.records == []


async def test_a_trusted_proxy_forces_without_a_key():
    async with gateway(operators=load_operators(None, "127.0.0.0/8")) as rig:
        reply = await rig.chat(headers={"X-LHRM-Force": "THINK"})
        assert (reply.headers["x-lhrm-mode"], reply.headers["x-lhrm-source"]) == ("think", "policy")


@pytest.mark.parametrize("values", [("maybe",), ("auto",), ("think", "no_think")])
async def test_a_force_that_says_nothing_clear_is_refused(operators, values):
    async with gateway(operators=operators) as rig:
        headers = [*KEY.items(), *(("X-LHRM-Force", value) for value in values)]
        reply = await rig.client.post(CHAT, json=body(), headers=headers)
        assert error_of(reply) == (400, "invalid_value", "X-LHRM-Force")


@pytest.mark.parametrize(
    ("fields", "headers", "param"),
    [
        ({"enable_thinking": True}, {}, "enable_thinking"),
        ({}, {"X-LHRM-Mode": "think"}, "X-LHRM-Mode"),
        ({"model": f"{MODEL}-think"}, {}, "model"),
        ({"think_threshold": 0}, {}, "think_threshold"),
    ],
)
async def test_a_mode_that_requests_may_not_ask_for(fields, headers, param):
    async with gateway(policy=ModePolicy(allowed_modes=(Wish.AUTO, Wish.NO_THINK))) as rig:
        assert error_of(await rig.chat(headers=headers, **fields)) == (403, "mode_not_allowed", param)
        assert (await rig.chat(reasoning_effort="none")).headers["x-lhrm-mode"] == "no_think"
        listed = (await rig.client.get("/v1/models")).json()["data"]
        assert [entry["id"] for entry in listed] == [MODEL, f"{MODEL}-no-think"]
        assert listed[0]["lhrm"]["allowed_modes"] == ["auto", "no_think"]
        assert listed[0]["lhrm"]["aliases"] == {"no_think": f"{MODEL}-no-think"}


@pytest.mark.parametrize(
    ("fields", "mode", "source"),
    [
        ({"enable_thinking": False}, "no_think", "request"),
        ({"enable_thinking": True, "thinking_budget": 200}, "think", "request"),
        ({"reasoning": {"effort": "high", "enabled": True}}, "think", "request"),
        ({"reasoning": {"enabled": False}}, "no_think", "request"),
        ({"reasoning": {"max_tokens": 200}}, "think", "request"),
        ({"thinking_token_budget": 0}, "no_think", "request"),
        ({"thinking_token_budget": 200}, "think", "model"),
        ({"thinking_token_budget": 200, "reasoning_effort": "none"}, "no_think", "request"),
        ({"nvext": {"max_thinking_tokens": -1}}, "think", "model"),
        ({"thinking": {"type": "adaptive", "budget_tokens": 200}}, "think", "model"),
    ],
)
async def test_spellings_over_http(fields, mode, source):
    async with gateway(scripted(TOKENIZER, p_think=0.9)) as rig:
        reply = await rig.chat(**fields)
        assert (reply.headers["x-lhrm-mode"], reply.headers["x-lhrm-source"]) == (mode, source)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"reasoning": {"enabled": False, "max_tokens": 5}}, "reasoning.enabled, reasoning.max_tokens"),
        ({"thinking_budget": 5, "thinking_token_budget": 6}, "thinking_budget, thinking_token_budget"),
        ({"reasoning_effort": "low", "thinking_budget": 5}, "reasoning_effort, thinking_budget"),
        ({"reasoning_effort": "low", "reasoning": {"effort": "high"}}, "reasoning_effort, reasoning.effort"),
        ({"include_reasoning": False, "separate_reasoning": False}, "include_reasoning, separate_reasoning"),
    ],
)
async def test_contradictions_over_http(fields, param):
    async with gateway(policy=ModePolicy(effort_budgets={"low": 64})) as rig:
        reply = await rig.chat(**fields)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


async def test_a_model_without_a_tool_format_says_so():
    tool = {"type": "function", "function": {"name": "f"}}
    async with gateway() as rig:
        reply = await rig.chat(tools=[tool])
        assert error_of(reply) == (400, "unsupported_parameter", "tools")
        assert "not trained to call tools" in reply.json()["error"]["message"]
