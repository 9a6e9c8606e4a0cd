"""lhrm-smol as `make smol` built it: served, asked once in every mode. A suite apart (make test-smol)."""

import random
import sys

import pytest
from conftest import ROOT
from openai import OpenAI
from served import Served

from lhrm_train.config import load_config
from lhrm_train.format import ChatTokenizer, Message, Mode, encode_answer, encode_chat
from lhrm_train.smol.items import KINDS
from lhrm_train.smol.questions.base import LEVELS

SMOL = ROOT / "models" / "lhrm-smol"
SUM = "A baker has 36 rolls and sells 17 of them. Then he bakes 24 more. How many rolls does he have now?"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    command = [sys.executable, "-m", "lhrm_server", "--model", str(SMOL), "--port", "0"]
    served = Served([*command, "--cpu-kv-cache-bytes", str(1 << 28)], tmp_path_factory.mktemp("smol-served"))
    try:
        yield OpenAI(base_url=served.ready() + "/v1", api_key="none")
    finally:
        served.end()


def ask(client: OpenAI, question: str, mode: str):
    return client.chat.completions.create(
        model="lhrm-smol",
        messages=[{"role": "user", "content": question}],
        temperature=0,
        max_tokens=300,
        extra_headers={"X-LHRM-Mode": mode},
    )


@pytest.mark.smol
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", ["think", "no_think"])
def test_a_forced_mode_obeys(client, mode):
    reply = ask(client, SUM, mode)
    assert reply.lhrm["mode"] == mode
    assert reply.choices[0].finish_reason == "stop"
    assert reply.choices[0].message.content.strip()
    assert bool(reply.choices[0].message.reasoning) is (mode == "think")
    assert (reply.usage.completion_tokens_details.reasoning_tokens > 0) is (mode == "think")


@pytest.mark.smol
@pytest.mark.timeout(600)
def test_it_talks_without_thinking_and_thinks_where_steps_are_needed(client):
    hello, hard = ask(client, "Hello! How are you today?", "auto"), ask(client, SUM, "auto")
    assert [reply.lhrm["mode"] for reply in (hello, hard)] == ["no_think", "think"]
    assert [reply.lhrm["source"] for reply in (hello, hard)] == ["model", "model"]
    assert len(hello.choices[0].message.content.split()) > 2
    assert [reply.lhrm["savings"]["method"] for reply in (hello, hard)] == ["calibration", "definition"]
    assert "43" in hard.choices[0].message.content


@pytest.mark.smol
@pytest.mark.parametrize("recipe", ["smol", "smol-cpu"])
def test_what_is_taught_fits_the_lengths_of_the_recipes(recipe, reasoning_gym):
    config, tokenizer, rng = load_config(recipe), ChatTokenizer.load(SMOL), random.Random(0)
    samples, answers = [], []
    for kind in KINDS.values():
        for draw in (kind.draw(rng, level) for level in LEVELS for _ in range(20)):
            answers.append(len(encode_answer(tokenizer, Mode.THINK, draw.trace, draw.sentence or draw.answer)))
            samples.append(answers[-1] + len(encode_chat(tokenizer, [Message("user", draw.question)], None)))
    assert max(answers) <= config.eval.max_new_tokens
    # Without the longest sums and lists of animals.
    assert sum(length > config.hft.row_length for length in samples) <= 0.002 * len(samples)
    assert sum(length > config.hgpo.max_new_tokens for length in answers) <= 0.015 * len(answers)
