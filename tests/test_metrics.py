import asyncio
import json
import logging
import subprocess

import pytest
from gateway_fixtures import MODEL, gateway, load_tokenizer, scripted
from lhrm_server.answer_plan import AnswerPlan
from lhrm_server.control import Wish
from lhrm_server.engine import Grammar, RequestRefusedError
from lhrm_server.metrics import Metrics
from pipeline_rig import TOKENIZER, Rig

from tests.needed import program


async def test_every_closed_series_exists_from_the_start():
    text = Metrics("m").exposition().decode()
    for line in (
        'lhrm_mode_decisions_total{mode="no_think",model="m",source="policy"} 0.0',
        'lhrm_requests_total{mode="none",model="m",outcome="client_error",requested="none",stream="none"} 0.0',
        'lhrm_requests_total{mode="think",model="m",outcome="cancelled",requested="no_think",stream="true"} 0.0',
        'lhrm_tokens_total{kind="reasoning",mode="think",model="m"} 0.0',
        'lhrm_answer_missing_total{model="m",reason="eos"} 0.0',
        'lhrm_answer_missing_total{model="m",reason="stop"} 0.0',
        'lhrm_answers_retried_total{model="m"} 0.0',
        'lhrm_requests_total{mode="think",model="m",outcome="client_error",requested="think",stream="true"} 0.0',
        'lhrm_parse_anomalies_total{kind="unclosed",model="m"} 0.0',
        'lhrm_parse_anomalies_total{kind="malformed_tool_call",model="m"} 0.0',
        'lhrm_upstream_errors_total{model="m",reason="engine_dead"} 0.0',
        'lhrm_rejected_total{model="m",reason="overloaded"} 0.0',
        'lhrm_client_disconnects_total{model="m"} 0.0',
        'lhrm_in_flight_requests{model="m"} 0.0',
        'lhrm_think_probability_count{model="m"} 0.0',
        'lhrm_decision_mass_count{model="m"} 0.0',
        'lhrm_time_to_first_answer_token_seconds_count{mode="think",model="m"} 0.0',
        'lhrm_baseline_tokens_estimated_total{method="calibration",model="m"} 0.0',
    ):
        assert f"{line}\n" in text


async def test_a_request_creates_no_new_series():
    async with gateway() as rig:
        names = {line.rpartition(" ")[0] for line in (await rig.client.get("/metrics")).text.splitlines()}
        for fields in ({}, {"reasoning_effort": "high"}, {"stream": True}, {"n": 2}, {"model": "other"}):
            await rig.chat(**fields)
        after = {line.rpartition(" ")[0] for line in (await rig.client.get("/metrics")).text.splitlines()}
        assert after == names


async def test_one_no_think_request_in_numbers():
    tokenizer = load_tokenizer()
    async with gateway(scripted(tokenizer, p_think=0.2, tag_mass=0.9)) as rig:
        reply = (await rig.chat()).json()
        made = reply["usage"]["completion_tokens"]
        assert await rig.metric("lhrm_mode_decisions_total", mode="no_think", source="model") == 1
        assert await rig.metric("lhrm_tokens_total", mode="no_think", kind="decide") == 1
        assert await rig.metric("lhrm_tokens_total", mode="no_think", kind="overhead") == 2
        assert await rig.metric("lhrm_tokens_total", mode="no_think", kind="answer") == made - 2
        assert await rig.metric("lhrm_tokens_total", mode="no_think", kind="reasoning") == 0
        assert await rig.metric("lhrm_completion_tokens_sum", mode="no_think") == made
        assert await rig.metric("lhrm_think_probability_sum") == pytest.approx(0.2)
        assert await rig.metric("lhrm_decision_mass_sum") == pytest.approx(0.9)
        assert await rig.metric("lhrm_baseline_tokens_estimated_total", method="calibration") == 60.4
        assert await rig.metric("lhrm_actual_tokens_total", method="calibration") == made
        for name in ("request_duration", "time_to_first_token", "time_to_first_answer_token"):
            assert await rig.metric(f"lhrm_{name}_seconds_count", mode="no_think") == 1
        info = rig.app.state.gateway.metrics.registry.get_sample_value
        assert info("lhrm_build_info", {"version": "0.1.0", "engine": "fake", "engine_version": "1"}) == 1


async def test_names_sent_by_clients_never_become_labels():
    async with gateway() as rig:
        await rig.chat(model="<evil>")
        await rig.chat(user="<evil>", messages=[{"role": "user", "content": "<evil>"}])
        assert "evil" not in (await rig.client.get("/metrics")).text
        await rig.chat(model=f"{MODEL}-think")
        assert await rig.metric("lhrm_mode_decisions_total", mode="think", source="request") == 1


async def test_log_line_has_counts_and_no_text(caplog):
    with caplog.at_level(logging.INFO, logger="lhrm_server.usage"):
        async with gateway() as rig:
            await rig.chat(messages=[{"role": "user", "content": "secret question"}])
    (line,) = [record.message for record in caplog.records if record.name == "lhrm_server.usage"]
    event = json.loads(line)
    assert (event["event"], event["mode"], event["outcome"]) == ("chat", "think", "ok")
    assert event["reasoning_tokens"] == rig.records[0].counts.reasoning > 0
    for text in ("secret", "naïve", "plus"):
        assert text not in line


async def test_exposition_is_clean_under_promtool():
    promtool = program("promtool")
    async with gateway() as rig:
        await rig.chat()
        await rig.chat(stream=True, reasoning_effort="none")
        text = (await rig.client.get("/metrics")).content
    checked = await asyncio.to_thread(
        subprocess.run, [promtool, "check", "metrics"], input=text, capture_output=True, timeout=60
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


async def test_every_choice_counts_as_a_completion_and_the_request_as_one():
    rig = Rig(think_ids=(9, 9, TOKENIZER.turn_end_id))
    await rig.events(Wish.THINK, n=3)

    def value(name, **labels):
        return rig.metrics.registry.get_sample_value(name, {"model": "m", **labels})

    assert value("lhrm_completion_tokens_count", mode="think") == 3
    assert value("lhrm_completion_tokens_sum", mode="think") == 9
    assert value("lhrm_reasoning_tokens_sum", mode="think") == 6
    assert value("lhrm_answer_missing_total", reason="eos") == 3
    assert value("lhrm_parse_anomalies_total", kind="unclosed") == 3
    assert value("lhrm_mode_decisions_total", mode="think", source="request") == 1
    assert value("lhrm_request_duration_seconds_count", mode="think") == 1


async def test_a_refused_grammar_is_the_fault_of_the_client():
    rig = Rig()
    with pytest.raises(RequestRefusedError):
        await rig.events(Wish.THINK, answer=AnswerPlan(grammar=Grammar("json", "{")))
    sample = rig.metrics.registry.get_sample_value
    told = {"model": "m", "requested": "think", "mode": "think", "stream": "false"}
    assert sample("lhrm_requests_total", {**told, "outcome": "client_error"}) == 1
    assert sample("lhrm_requests_total", {**told, "outcome": "upstream_error"}) == 0
    assert sample("lhrm_upstream_errors_total", {"model": "m", "reason": "request_failed"}) == 0
    assert '"refused"' not in rig.metrics.exposition().decode()


async def test_the_log_line_lists_several_choices(caplog):
    with caplog.at_level(logging.INFO, logger="lhrm_server.usage"):
        rig = Rig()
        await rig.events(Wish.THINK, n=2)
    (line,) = [record.message for record in caplog.records if record.name == "lhrm_server.usage"]
    event = json.loads(line)
    assert event["n"] == 2
    assert [choice["ended_by"] for choice in event["choices"]] == ["stop", "stop"]
    assert sum(choice["reasoning_tokens"] for choice in event["choices"]) == event["reasoning_tokens"]
