"""The OpenAPI document is valid, describes every route, and says what the checks take and the routes answer."""

import json

import jsonschema
import pytest
from gateway_fixtures import CHAT, MODEL, body, gateway, load_tokenizer, scripted
from jsonschema import Draft202012Validator
from lhrm_server.control import Wish
from lhrm_server.policy import ModePolicy
from lhrm_server.request_fields import ANNOTATIONS, HONOURED, NEUTRAL

TOKENIZER = load_tokenizer()
METHODS = {"get", "post", "put", "delete", "patch", "head", "options"}


async def document(rig):
    response = await rig.client.get("/openapi.json")
    assert response.status_code == 200
    return response.json()


def validator(found, name):
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": found["components"]})


def references(value):
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for part in value.values():
            yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


def operations(found):
    return {(path, method): what for path, item in found["paths"].items() for method, what in item.items()}


async def test_it_describes_every_route_and_no_other():
    async with gateway() as rig:
        found = await document(rig)
        real = {
            (route.path.replace(":path", ""), method.lower())
            for route in rig.app.router.routes
            for method in route.methods
            if method != "HEAD"
        }
        assert set(operations(found)) == real
        assert found["openapi"].startswith("3.1")
        assert {method for _, method in operations(found)} <= METHODS
        names = [what["operationId"] for what in operations(found).values()]
        assert len(names) == len(set(names))


async def test_every_schema_is_valid_and_every_reference_leads_somewhere():
    async with gateway() as rig:
        found = await document(rig)
    for name, schema in found["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert schema, name
    for reference in references(found):
        assert reference.removeprefix("#/components/schemas/") in found["components"]["schemas"]


async def test_every_operation_tells_its_errors_in_the_one_shape():
    async with gateway() as rig:
        found = await document(rig)
    for place, what in operations(found).items():
        assert "200" in what["responses"], place
        for status, reply in what["responses"].items():
            assert reply["description"]
            schema = reply["content"].get("application/json", {}).get("schema")
            if status != "200" and place != ("/ready", "get"):
                assert schema == {"$ref": "#/components/schemas/Error"}
    assert set(operations(found)[(CHAT, "post")]["responses"]) >= {"200", "400", "403", "404", "413", "500", "503"}


async def test_it_knows_this_servers_names_and_limits():
    async with gateway(max_choices=3, policy=ModePolicy(allowed_modes=(Wish.AUTO, Wish.THINK))) as rig:
        chat = (await document(rig))["components"]["schemas"]["ChatRequest"]
        assert chat["properties"]["model"]["enum"] == [MODEL, f"{MODEL}-think"]
        assert chat["properties"]["n"]["anyOf"][0]["maximum"] == 3
        assert set(chat["properties"]) == {*HONOURED, *ANNOTATIONS, *NEUTRAL}
        assert chat["required"] == ["model", "messages"]


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
HISTORY = [
    {"role": "user", "content": [{"type": "text", "text": "go"}]},
    {
        "role": "assistant",
        "content": None,
        "reasoning": "hm",
        "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "a", "content": "3"},
]
TAKEN = [
    {},
    {"messages": HISTORY},
    {"store": False, "best_of": 1, "functions": [], "audio": None, "unknown": {}},
    {"n": 2, "stop": ["a"], "logprobs": True, "top_logprobs": 3, "logit_bias": {"7": 1.5}},
    {"stop": "a", "seed": -5, "temperature": 0, "top_p": 0.1, "max_tokens": 5},
    {"tools": [TOOL], "tool_choice": "required"},
    {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}},
    {"structured_outputs": {"choice": ["a", "b"]}},
    {"reasoning": {"max_tokens": 5}, "stream": False},
    {"thinking": {"type": "enabled", "budget_tokens": 5, "display": "omitted"}},
    {"nvext": {"max_thinking_tokens": 0}, "metadata": {"a": 1}},
    {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
]
REFUSED = [
    {"messages": []},
    {"messages": [{"role": "robot", "content": "x"}]},
    {"messages": [{"role": "user", "content": None}]},
    {"messages": [{"role": "user", "content": "x", "name": "bob"}]},
    {"messages": [{"role": "tool", "content": "x"}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
    {"model": "gpt"},
    {"n": 0},
    {"n": 17},
    {"stop": ""},
    {"stop": ["x"] * 17},
    {"top_logprobs": 21},
    {"logit_bias": {"x": 1}},
    {"logit_bias": {"7": 101}},
    {"tools": [{"type": "web_search"}]},
    {"tool_choice": "any"},
    {"response_format": {"type": "xml"}},
    {"structured_outputs": {"json": {}, "regex": "a"}},
    {"structured_outputs": {"structural_tag": "x"}},
    {"reasoning_effort": "extreme"},
    {"thinking": {"type": "between_tools"}},
    {"thinking_token_budget": -2},
    {"store": True},
    {"unknown": 1},
    {"temperature": 3},
    {"user": 3},
]


@pytest.mark.parametrize("fields", TAKEN)
async def test_what_the_schema_describes_is_taken(fields):
    async with gateway(max_model_len=4096) as rig:
        request = body(**fields)
        validator(await document(rig), "ChatRequest").validate(request)
        reply = await rig.chat(**fields)
        assert reply.status_code == 200, reply.text


@pytest.mark.parametrize("fields", REFUSED)
async def test_what_it_does_not_describe_is_refused(fields):
    async with gateway() as rig:
        with pytest.raises(jsonschema.ValidationError):
            validator(await document(rig), "ChatRequest").validate(body(**fields))
        assert (await rig.chat(**fields)).status_code in (400, 404)


@pytest.mark.parametrize("p_think", [0.1, 0.9])
async def test_replies_are_as_described(p_think):
    async with gateway(scripted(TOKENIZER, p_think=p_think)) as rig:
        found = await document(rig)
        for name, response in (
            ("ChatCompletion", await rig.chat()),
            ("ChatCompletion", await rig.chat(reasoning_effort="none")),
            ("Error", await rig.chat(temperature=9)),
            ("ModelList", await rig.client.get("/v1/models")),
            ("Model", await rig.client.get(f"/v1/models/{MODEL}")),
            ("Status", await rig.client.get("/health")),
            ("Status", await rig.client.get("/ready")),
            ("Version", await rig.client.get("/version")),
            ("Tokenized", await rig.client.post("/tokenize", json={"prompt": "x", "return_token_strs": True})),
            ("Detokenized", await rig.client.post("/detokenize", json={"tokens": [7]})),
        ):
            validator(found, name).validate(json.loads(response.content))
