"""What the endpoint makes of a job that only the engine can refuse; the rest of it is tested through the app."""

import pytest
from gateway_fixtures import frames, gateway
from lhrm_server.engine import RequestRefusedError


def refusing(engine, from_call):
    """Make `engine` refuse its calls from one on, counted from 0."""
    original, calls = engine.generate, []

    async def generate(request):
        calls.append(request)
        if len(calls) > from_call:
            raise RequestRefusedError("the schema uses a feature that is not supported")
        async for delta in original(request):
            yield delta

    engine.generate = generate


@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_engine_refuses_is_a_400_with_its_reason_and_one_record(stream):
    async with gateway() as rig:
        refusing(rig.engine, 1)
        response = await rig.chat(stream=stream, response_format={"type": "json_object"})
        error = response.json()["error"]
        assert (response.status_code, error["param"], error["type"]) == (
            400,
            "response_format",
            "invalid_request_error",
        )
        assert "a feature that is not supported" in error["message"]
        (record,) = rig.records
        told = {"requested": "auto", "mode": "think", "stream": str(stream).lower()}
        assert await rig.metric("lhrm_requests_total", outcome="client_error", **told) == 1
        # It was admitted: the counter of requests that were not stays as it is.
        none = {"requested": "none", "mode": "none", "stream": "none"}
        assert await rig.metric("lhrm_requests_total", outcome="client_error", **none) == 0
        assert record.failure.value == "refused"


async def test_a_refusal_behind_the_reasoning_is_an_error_frame():
    async with gateway(max_model_len=512) as rig:

        async def late(request):
            async for delta in original(request):
                yield delta
                if request.sampling.allowed_token_ids is None:
                    raise RequestRefusedError("late")

        original, rig.engine.generate = rig.engine.generate, late
        response = await rig.chat(stream=True, response_format={"type": "json_object"})
        *_, error, done = frames(response.text)
        assert (response.status_code, done) == (200, "[DONE]")
        assert (error["error"]["param"], error["error"]["code"]) == ("response_format", "unsupported_grammar")
