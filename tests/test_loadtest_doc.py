"""docs/loadtest.md: its commands, its tables of keys and its limits are those of the code."""

import re
import shlex
from itertools import dropwhile, takewhile

import pytest
from conftest import ROOT
from lhrm_loadtest.arms import Arm
from lhrm_loadtest.compare import LIMITS, parse_limit
from lhrm_loadtest.options import parser, settings_of
from lhrm_loadtest.prompts import Prompt
from lhrm_loadtest.slo import parse_slo

TEXT = (ROOT / "docs" / "loadtest.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^lhrm-loadtest (.+)$", TEXT, re.MULTILINE)
PROMPTS = [Prompt(id="1", messages=[{"role": "user", "content": "q"}], arrival_s=0.0)]


def keys(section: str) -> set[str]:
    """The names in the first column of the table below `section`."""
    below = dropwhile(lambda line: not line.startswith("|"), TEXT.split(section)[1].splitlines())
    table = takewhile(lambda line: line.startswith("|"), below)
    return {name for line in table for name in re.findall(r"`(\w+)`", line.split("|")[1])}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command):
    args = parser().parse_args(shlex.split(command))
    if args.command == "run":
        settings = settings_of(args, PROMPTS)
        assert len(settings.arms) >= 2
    for text in args.slo:
        parse_slo(text)
    for text in getattr(args, "limit", []):
        parse_limit(text)


def test_every_command_is_shown():
    assert {command.split()[0] for command in COMMANDS} == {"run", "report", "compare", "resume"}


def test_tables_name_every_key():
    assert keys("adds any model at any endpoint:") | {"name"} == set(Arm.model_fields)
    shown = keys("A line of a file has `prompt`, or `messages`; all else is optional:")
    assert shown | {"messages"} == set(Prompt.model_fields)


def test_the_limits_are_those_that_hold():
    shown = "accuracy 0.01, completion tokens 5 %, error rate 0.01, p95 of first answer and total 20 %, goodput 10 %"
    assert shown in " ".join(TEXT.split())
    assert {name: str(limit) for name, limit in LIMITS.items()} == {
        "accuracy": "0.01",
        "completion_tokens": "5%",
        "error_rate": "0.01",
        "first_answer_p95_ms": "20%",
        "total_p95_ms": "20%",
        "goodput": "10%",
    }
