"""docs/api.md names every field, error and metric, no other, and its examples answer as they are shown."""

import ast
import json
import re
from contextlib import asynccontextmanager

import api_doc
import httpx
import pytest
from api_doc import Example, code, codes, difference, examples, leaves, table, tables, value_of
from conftest import NANO, ROOT
from lhrm_server.accounting import Ending, ReasoningEnding
from lhrm_server.answer_filter import LEAST_LOGPROB
from lhrm_server.app import create_app
from lhrm_server.chat_endpoint import SOURCE_HEADER
from lhrm_server.control import MODE_FIELDS, Wish
from lhrm_server.engine import EngineError, EngineInfo, RequestRefusedError
from lhrm_server.engine_fake import FakeEngine, Script
from lhrm_server.errors import EngineFailureError, GatewayError, InvalidRequestError, http_error_body
from lhrm_server.grammar_fields import MOST_NESTED
from lhrm_server.metrics import ANSWER_MISSING, Metrics
from lhrm_server.policy import FORCE_HEADER, MODE_HEADER
from lhrm_server.request_fields import NEUTRAL, FieldKind, field_rows
from lhrm_server.request_id import HEADER
from lhrm_server.settings import Settings
from lhrm_server.tokenize_api import CHAT_FIELDS, TEXT_FIELDS, detokenize_fields, fields_schema

from lhrm_train.format import ChatTokenizer, Mode, encode_answer

TOKENIZER = ChatTokenizer.load(NANO)
MODEL = TOKENIZER.manifest.name
EXAMPLES = examples()
CHAT_SECTIONS = ("Conversation", "Sampling and length", "Shape of the answer", "Tools", "Thinking", "Labels")


# --- What the shipped model says, for the scripted engine ---


def answer(mode, reasoning, text):
    return tuple(encode_answer(TOKENIZER, mode, reasoning, text)[1:])


def script(p_think, reasoning, text):
    return {
        "p_think": p_think,
        "think_ids": answer(Mode.THINK, reasoning, text),
        "no_think_ids": answer(Mode.NO_THINK, "", text),
    }


CAPITAL = script(0.0018, "The capital of France is asked. I recall that the capital of France is Paris.", "Paris")
SUM = script(0.996, "E4D8C3B7A1+E9D2C6B1A5;A1+5+0=06,B7+1+0=08,C3+6+0=09,D8+2+0=10,E4+9+1=14", "140986")


def scripted(prompt_ids):
    prompt = TOKENIZER.decode(prompt_ids)
    shaped = '[{"name": "weather", "parameters": {"city": "Paris"}}]' if "weather" in prompt else '{"city": "Paris"}'
    grammar_ids = (*TOKENIZER.encode_text(shaped), TOKENIZER.turn_end_id)
    return Script(**(CAPITAL if "capital" in prompt else SUM), grammar_ids=grammar_ids)


@asynccontextmanager
async def served():
    """Give a client of a gateway over the scripted engine."""
    app = create_app(Settings(MODEL), FakeEngine(TOKENIZER, scripted, max_model_len=1024), TOKENIZER)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client,
    ):
        client.app = app
        yield client


async def post(client, example):
    return await client.post(example.path, json=example.body, headers=example.headers)


# --- Examples ---


async def check(client, example: Example):
    response = await post(client, example)
    assert response.status_code == example.status, response.text
    assert {name: response.headers[name] for name in example.reply_headers} == example.reply_headers
    if isinstance(example.reply, list):
        reply = [api_doc.event(line) for line in response.text.split("\n\n") if line]
    else:
        reply = response.json()
    assert difference(example.reply, reply) is None


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
async def test_an_example_on_the_scripted_engine(example):
    async with served() as client:
        await check(client, example)


@pytest.mark.engine
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
async def test_an_example_on_the_shipped_model(example, real_gateway):
    async with httpx.AsyncClient(base_url=real_gateway, timeout=120) as client:
        await check(client, example)


def test_every_block_of_the_document_is_part_of_an_example():
    blocks = api_doc.FENCE.findall(api_doc.TEXT)
    replies = {(example.title, repr(example.reply)) for example in EXAMPLES}
    assert len(EXAMPLES) + len(replies) == len(blocks)
    assert len(replies) > 9


@pytest.mark.parametrize(
    ("pattern", "value", "fits"),
    [
        ("...", {"a": 1}, True),
        ("E...", "E4", True),
        ("E...", "D4", False),
        ("a...c", "abd", False),
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"a": 1}, {"b": 1}, False),
        ({"a": 1}, {"a": 2}, False),
        ({"a": None}, {"a": 0}, False),
        (0.5, 0.7, True),
        (0.5, "0.5", False),
        (1, True, False),
        (1, 1.0, False),
        ([1, "...", 4], [1, 2, 3, 4], True),
        ([1, "..."], [1], True),
        ([1, "..."], [2], False),
        ([1], [1, 2], False),
        ([], [1], False),
    ],
)
def test_patterns(pattern, value, fits):
    assert (difference(pattern, value) is None) is fits


# --- Fields ---


def documented(*titles):
    return {code(row[0]): row[1] for title in titles for row in table(title)}


def test_every_field_of_a_chat_request_with_what_it_takes():
    rows = {row.name: row.schema for row in field_rows() if row.kind is not FieldKind.NEUTRAL}
    found = documented(*CHAT_SECTIONS)
    assert found == leaves({"properties": rows, "required": ["model", "messages"]})
    labels = {row.name for row in field_rows() if row.kind is FieldKind.ANNOTATION}
    assert set(documented("Labels")) == labels


def test_every_field_that_may_only_ask_for_nothing():
    rows = [
        (name, json.dumps([value_of(spelled) for spelled in codes(values)]))
        for values, fields in table("Known and not supported")
        for name in codes(fields)
    ]
    assert len(dict(rows)) == len(rows)
    assert dict(rows) == {name: json.dumps(values) for name, values in NEUTRAL.items()}


@pytest.mark.parametrize(
    ("title", "fields", "required"),
    [
        ("A conversation to ids", CHAT_FIELDS, "messages"),
        ("A text to ids", TEXT_FIELDS, "prompt"),
        ("Ids to text", detokenize_fields(TOKENIZER.vocab_size), "tokens"),
    ],
)
def test_every_field_of_the_token_routes(title, fields, required):
    known = leaves(fields_schema(fields, required))
    assert documented(title) == {place: words for place, words in known.items() if place in fields}


def spellings():
    """Yield every place of a mode field, some value that it takes, and the mode that this asks for."""
    for name, taken in MODE_FIELDS.items():
        members = taken.schema.get("properties", {"": taken.schema})
        for member, schema in members.items():
            schema = schema["anyOf"][0] if "anyOf" in schema else schema
            samples = schema.get("enum") or ((True, False) if schema["type"] == "boolean" else (-1, 0, 1))
            for value in samples:
                (ask,) = taken(name, {member: value} if member else value)
                yield ask.param, json.dumps(value), ask.wish


def test_every_spelling_of_a_mode():
    told = {
        (place, json.dumps(value_of(spelled))): wish
        for where, *cells in table("Spellings of a mode")
        for cell, wish in zip(cells, (Wish.THINK, Wish.NO_THINK, Wish.AUTO), strict=True)
        for spelled in codes(cell)
        for place in codes(where)
    }
    assert told == {(place, value): wish for place, value, wish in spellings() if wish is not None}


# --- Replies ---


def keys(title, place=0):
    return [code(row[0]) for row in tables(title)[place]]


async def reply_to(title):
    async with served() as client:
        return (await post(client, next(each for each in EXAMPLES if each.title == title))).json()


async def test_every_key_of_a_reply():
    reply, called = await reply_to("The model decides"), await reply_to("A tool that must be called")
    (choice,), lhrm = reply["choices"], reply["lhrm"]
    assert keys("The reply") == list(reply)
    assert keys("A choice") == list(choice)
    assert keys("A message") == list(called["choices"][0]["message"])
    assert keys("Usage") == list(reply["usage"])
    assert keys("The lhrm object") == list(lhrm)
    assert keys("The lhrm object", 1) == list(lhrm["latency"])
    assert keys("The lhrm object", 2) == list(lhrm["savings"])
    assert keys("The lhrm of a choice") == list(choice["lhrm"])


def test_every_ending():
    told = {code(key): set(codes(meaning)) for key, meaning in tables("The lhrm object")[0]}
    assert told["ended_by"] == {each.value for each in Ending} - {"abort", "error"}
    assert told["reasoning_ended_by"] == {each.value for each in ReasoningEnding} - {"abort", "error"}
    (missing,) = [row[1] for row in table("The lhrm of a choice") if row[0] == "`answer_missing`"]
    assert set(codes(missing)) == set(ANSWER_MISSING)


async def test_every_key_of_a_model():
    async with served() as client:
        entry = (await client.get(f"/v1/models/{MODEL}")).json()
    assert keys("Models") == list(entry["lhrm"])
    assert codes(api_doc.section("Models"))[: len(entry)] == list(entry)


async def test_every_header():
    rows = [(code(name), where) for name, where, _ in table("Headers")]
    assert {name for name, where in rows if where != "reply"} == {MODE_HEADER, FORCE_HEADER, HEADER, "Authorization"}
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
    async with served() as client:
        sent = [
            await client.post("/v1/chat/completions", json=body),
            await client.post("/v1/chat/completions", json={**body, "stream": True}),
            await client.get("/v1/chat/completions"),
        ]
        client.app.state.gateway.begin_drain()
        sent.append(await client.post("/v1/chat/completions", json=body))
    seen = {name for reply in sent for name in reply.headers if not name.startswith("content-")}
    assert seen == {name.lower() for name, where in rows if where != "request"}
    assert SOURCE_HEADER.lower() in seen


async def test_every_route():
    async with served() as client:
        routes = {
            f"{method} {route.path.replace(':path', '')}"
            for route in client.app.router.routes
            for method in route.methods - {"HEAD"}
        }
    assert {code(row[0]) for row in table("Routes")} == routes


def test_the_numbers_in_the_text():
    settings = Settings(MODEL)
    for title, words in (
        ("Routes", f"at most {settings.max_body_bytes >> 20} MiB"),
        ("Errors", f"more than {settings.max_body_bytes >> 20} MiB"),
        ("Streams", f"{settings.header_hold_s:g} s after the decision"),
        ("Streams", f"silent for {settings.keepalive_s:g} s"),
        ("Who decides whether the model thinks", f"the threshold, {settings.policy.think_threshold} unless"),
        ("Tools", f"at most {MOST_NESTED} levels"),
        ("Shape of the answer", f"at most {MOST_NESTED} levels"),
        ("Log-probabilities", f"{LEAST_LOGPROB} stands"),
    ):
        assert words in " ".join(api_doc.section(title).split()), title


# --- Errors ---


def below(kind):
    return {kind, *(deeper for sub in kind.__subclasses__() for deeper in below(sub))}


def calls():
    """Yield the name of what is called, the call, for every call in the gateway's code."""
    for path in sorted((ROOT / "server" / "lhrm_server").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                yield node.func.id, node


def status_of(name, call, code_given):
    """Return the status of an error that is made with a code of its own."""
    classes = {kind.__name__: kind for kind in below(GatewayError)}
    if name in classes:
        return classes[name].status
    if ast.unparse(call.args[1]) == "SERVER":
        return 500
    (told,) = [status for status in (404, 405) if http_error_body(status, "", "")["error"]["code"] == code_given]
    return told


def known_errors():
    """Return every code that an error of this server can have, with its status."""
    found = {kind.code: kind.status for kind in below(GatewayError) if kind.code}
    for kind in below(EngineError) - {RequestRefusedError}:
        failure = EngineFailureError(kind("x"))
        found[failure.code] = failure.status
    for name, call in calls():
        given = [keyword.value.value for keyword in call.keywords if _is_code(keyword)]
        found |= {each: status_of(name, call, each) for each in given}
        what = {"agreed": 2, "ContradictionError": 0}.get(name)
        if what is not None and isinstance(call.args[what], ast.Constant):
            found[f"contradictory_{call.args[what].value}"] = InvalidRequestError.status
    return found


def _is_code(keyword):
    return keyword.arg == "code" and isinstance(keyword.value, ast.Constant)


def test_every_error_code_with_its_status():
    rows = [(code(name), int(status)) for name, status, _ in table("Errors")]
    assert len(dict(rows)) == len(rows)
    assert dict(rows) == known_errors()
    assert len(rows) > 20
    assert {kind.kind for kind in below(GatewayError)} <= set(codes(api_doc.section("Errors")))


# --- Metrics ---

SUFFIX = {"counter": "_total", "info": "_info"}


def metric_rows():
    """Yield name, type, labels and help of every metric; the values of labels are those that exist from the start."""
    metrics = Metrics("m")
    metrics.engine_started("1", EngineInfo("fake", "1", 5))
    for family in metrics.registry.collect():
        labels = {}
        for sample in family.samples:
            for label, value in sample.labels.items():
                if label not in ("model", "le"):
                    labels.setdefault(label, {})[value] = None
        told = [
            f"`{label}`" if family.type == "info" else f"`{label}`: {' '.join(labels[label])}"
            for label in sorted(labels)
        ]
        yield [f"`{family.name}{SUFFIX.get(family.type, '')}`", family.type, "; ".join(told), family.documentation]


def test_every_metric_with_its_labels():
    assert table("Metrics") == list(metric_rows())


# --- Links ---


def test_links_lead_somewhere():
    for path in (ROOT / "docs" / "api.md", ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target, anchor in re.findall(r"\]\(([\w./-]*\.md)?(?:#([\w-]+))?\)", path.read_text(encoding="utf-8")):
            found = path.parent / target if target else path
            assert found.is_file(), (path.name, target)
            headings = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert not anchor or anchor in slugs, (path.name, anchor)
