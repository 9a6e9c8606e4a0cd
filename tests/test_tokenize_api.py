"""The ids that /tokenize tells are those that chat sends, and /detokenize turns them back."""

import pytest
from gateway_fixtures import MODEL, gateway, load_tokenizer

from lhrm_train.format import TAGS, Message, encode_chat

TOKENIZER = load_tokenizer()
MESSAGES = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": f"naïve 思考 {TAGS[0]}?"}]


async def post(rig, path, **fields):
    response = await rig.client.post(path, json=fields)
    return response.status_code, response.json()


async def test_a_conversation_has_the_ids_of_chat():
    async with gateway() as rig:
        status, told = await post(rig, "/tokenize", model=MODEL, messages=MESSAGES)
        await rig.chat(messages=MESSAGES)
        assert status == 200
        assert told["tokens"] == list(rig.engine.requests[0].prompt_ids)
        reply = await rig.chat(messages=MESSAGES)
        assert reply.json()["usage"]["prompt_tokens"] == told["count"] + 1
        assert (told["count"], told["max_model_len"], told["token_strs"]) == (len(told["tokens"]), 512, None)


async def test_without_the_generation_prompt():
    async with gateway() as rig:
        _, with_prompt = await post(rig, "/tokenize", messages=MESSAGES, add_generation_prompt=True)
        _, without = await post(rig, "/tokenize", messages=MESSAGES, add_generation_prompt=False)
        mark = TOKENIZER.encode_template(f"{TOKENIZER.manifest.turn_start}assistant\n")
        assert without["tokens"] + mark == with_prompt["tokens"]


async def test_tools_are_part_of_the_prompt():
    async with gateway() as rig:
        _, plain = await post(rig, "/tokenize", messages=MESSAGES)
        tool = {"type": "function", "function": {"name": "weather"}}
        _, told = await post(rig, "/tokenize", messages=MESSAGES, tools=[tool])
        assert told["count"] > plain["count"]
        assert '"name": "weather"' in TOKENIZER.decode(told["tokens"])


async def test_text_and_back():
    text = f"naïve 思考 🤔\n{TAGS[0]}"
    async with gateway() as rig:
        status, told = await post(rig, "/tokenize", prompt=text, add_special_tokens=False, return_token_strs=True)
        assert (status, told["tokens"]) == (200, TOKENIZER.encode_text(text))
        assert TOKENIZER.tags.think not in told["tokens"]
        assert told["token_strs"] == [TOKENIZER.decode([token]) for token in told["tokens"]]
        assert await post(rig, "/detokenize", model=MODEL, tokens=told["tokens"]) == (200, {"prompt": text})
        assert await post(rig, "/detokenize", tokens=[]) == (200, {"prompt": ""})
        prompt = encode_chat(TOKENIZER, [Message("user", "hi")], None)
        assert (await post(rig, "/detokenize", tokens=prompt))[1]["prompt"] == TOKENIZER.decode(prompt)
        assert (await post(rig, "/tokenize", prompt=""))[1]["tokens"] == []


async def test_a_text_longer_than_the_context_is_counted():
    async with gateway(max_model_len=64) as rig:
        status, told = await post(rig, "/tokenize", messages=[{"role": "user", "content": "word " * 500}])
        assert (status, told["max_model_len"]) == (200, 64)
        assert told["count"] > 500


@pytest.mark.parametrize(
    ("path", "fields", "status", "param"),
    [
        ("/tokenize", {}, 400, "messages"),
        ("/tokenize", {"messages": None, "prompt": None}, 400, "messages"),
        ("/tokenize", {"messages": MESSAGES, "prompt": "x"}, 400, "messages, prompt"),
        ("/tokenize", {"messages": []}, 400, "messages"),
        ("/tokenize", {"messages": [{"role": "user"}]}, 400, "messages[0].content"),
        ("/tokenize", {"prompt": 3}, 400, "prompt"),
        ("/tokenize", {"prompt": "x", "add_special_tokens": True}, 400, "add_special_tokens"),
        ("/tokenize", {"prompt": "x", "add_generation_prompt": True}, 400, "add_generation_prompt"),
        ("/tokenize", {"messages": MESSAGES, "chat_template": "x"}, 400, "chat_template"),
        ("/tokenize", {"messages": MESSAGES, "continue_final_message": True}, 400, "continue_final_message"),
        ("/tokenize", {"prompt": "x", "model": "gpt"}, 404, "model"),
        ("/detokenize", {}, 400, "tokens"),
        ("/detokenize", {"tokens": "x"}, 400, "tokens"),
        ("/detokenize", {"tokens": [0, -1]}, 400, "tokens[1]"),
        ("/detokenize", {"tokens": [10**9]}, 400, "tokens[0]"),
        ("/detokenize", {"tokens": [1.5]}, 400, "tokens[0]"),
        ("/detokenize", {"tokens": [1], "model": "gpt"}, 404, "model"),
        ("/detokenize", {"tokens": [1], "skip_special_tokens": True}, 400, "skip_special_tokens"),
    ],
)
async def test_what_cannot_be_taken(path, fields, status, param):
    async with gateway() as rig:
        found, reply = await post(rig, path, **fields)
        assert (found, reply["error"]["param"]) == (status, param)


async def test_before_the_server_is_ready_and_with_a_body_that_is_too_large():
    async with gateway(started=False) as rig:
        assert (await post(rig, "/tokenize", prompt="x"))[0] == 503
    async with gateway(max_body_bytes=50) as rig:
        assert (await post(rig, "/tokenize", prompt="x" * 60))[0] == 413
        assert (await rig.client.post("/detokenize", content=b"{")).json()["error"]["code"] == "invalid_json"
