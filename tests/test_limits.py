import json
from dataclasses import replace

import pytest
from gateway_fixtures import NANO, load_tokenizer
from lhrm_server.limits import RequestLimits
from lhrm_server.settings import Settings

from lhrm_train.format import TAGS, TURN_END, TURN_START, ChatTokenizer

TOKENIZER = load_tokenizer()


def test_the_formats_own_tokens_are_reserved():
    limits = RequestLimits.of(Settings("m", max_choices=5), TOKENIZER)
    added = {t["content"]: t["id"] for t in json.loads((NANO / "tokenizer.json").read_text())["added_tokens"]}
    assert limits.reserved_ids == {added[token] for token in (*TAGS, TURN_START, TURN_END)}
    assert (limits.max_choices, limits.vocab_size) == (5, TOKENIZER.vocab_size)


@pytest.mark.parametrize(("tool_call_format", "calls"), [(None, False), ("hermes", True), ("other", False)])
def test_only_the_known_tool_format_counts(tool_call_format, calls):
    manifest = replace(TOKENIZER.manifest, tool_call_format=tool_call_format)
    tokenizer = ChatTokenizer((NANO / "tokenizer.json").read_text(), manifest)
    assert RequestLimits.of(Settings("m"), tokenizer).calls_tools is calls
