import pytest

from lhrm_train.format import ChatTokenizer, Mode
from lhrm_train.rewards import judge


@pytest.fixture(scope="module")
def tokenizer(nano_dir):
    return ChatTokenizer.load(nano_dir)


def body(tokenizer, *parts):
    names = {
        "<t>": tokenizer.tags.think,
        "</t>": tokenizer.tags.think_end,
        "<n>": tokenizer.tags.no_think,
        "</n>": tokenizer.tags.no_think_end,
        "<end>": tokenizer.turn_end_id,
    }
    ids = []
    for part in parts:
        ids += [names[part]] if part in names else tokenizer.encode_text(part)
    return ids


@pytest.mark.parametrize(
    ("mode", "parts", "score", "leaked"),
    [
        (Mode.THINK, ("4+4=8", "</t>", "8", "<end>"), 1.0, False),
        (Mode.THINK, ("</t>", "8", "<end>"), 1.0, False),  # empty reasoning is still well formed
        (Mode.THINK, ("4+4=8", "</t>", "9", "<end>"), 0.0, False),  # wrong answer
        (Mode.THINK, ("4+4=8", "</t>", "8"), 0.0, False),  # never ended
        (Mode.THINK, ("8", "<end>"), 0.0, False),  # never closed
        (Mode.THINK, ("a", "</t>", "8", "</t>", "<end>"), 0.0, True),  # closed twice
        (Mode.THINK, ("a", "<n>", "</t>", "8", "<end>"), 0.0, True),  # other mode's tag in the reasoning
        (Mode.NO_THINK, ("8", "</n>", "<end>"), 1.0, False),
        (Mode.NO_THINK, ("8", "<end>"), 0.0, False),  # never closed
        (Mode.NO_THINK, ("8 ", "</n>", "<end>"), 0.0, False),  # exact match
        (Mode.NO_THINK, ("<t>", "8", "</n>", "<end>"), 0.0, True),  # reopened a thought
        (Mode.NO_THINK, ("8", "</n>", "8", "</n>", "<end>"), 0.0, True),  # closed twice
    ],
)
def test_judge(tokenizer, mode, parts, score, leaked):
    result = judge(tokenizer, "8", mode, body(tokenizer, *parts))
    assert (result.score, result.leaked) == (score, leaked)


def test_token_counts_add_up(tokenizer):
    ids = body(tokenizer, "4+4=8", "</t>", "8", "<end>")
    result = judge(tokenizer, "8", Mode.THINK, ids)
    assert (result.reasoning_tokens, result.answer_tokens, result.completion_tokens) == (5, 1, 8)
