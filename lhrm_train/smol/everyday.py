"""Everyday prompts: greetings, questions, small writing tasks; the answers come from the base itself.

`everyday.jsonl` beside this file holds them, one a line: `group`, `prompt`, and `key`, which names what the prompt is
about, so that two ways to ask one thing share a split. Greetings and the like come with an `answer`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType

from lhrm_train.suite.mix import split_of

# What a think sample says before an everyday answer, by group; `OTHER_PLAN` for all the others.
PLANS: Mapping[str, str] = MappingProxyType(
    {
        "greeting": "This is a greeting or a farewell. I answer in the same friendly tone.",
        "smalltalk": "This is small talk. I answer kindly and keep it short.",
        "facts": "This asks for a fact. I recall it and state it.",
        "define": "This asks for the meaning of a word. I give a short definition.",
        "explain": "This asks for an explanation. I name the main idea in plain words.",
        "lists": "This asks for a list. I collect fitting examples.",
        "rewrite": "This asks for another wording. I keep the meaning.",
        "summarise": "This asks for a summary. I pick the main point.",
        "creative": "This asks for something creative. I pick one image and keep it short.",
    }
)
OTHER_PLAN = "This is an everyday request. No steps are needed, so I answer directly."
# Who answers: written here, because the base would call itself by its own name.
NAME = "lhrm-smol"
WHO = f"I am {NAME}, a small language model that decides for each question whether thinking pays."
CAN = "I can chat, explain things briefly, and work out small puzzles step by step. I make mistakes, so check me."
IDENTITY: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("Who are you?", "What are you?", "What is your name?", "Introduce yourself."), WHO),
        **dict.fromkeys(("Are you a robot?", "Are you human?", "Who am I talking to?", "What model are you?"), WHO),
        **dict.fromkeys(("What can you do?", "How can you help me?", "What are you good at?", "Help"), CAN),
        **dict.fromkeys(("Can I trust you?", "Do you make mistakes?", "What should I ask you?"), CAN),
    }
)


@dataclass(frozen=True)
class Prompt:
    """One everyday prompt; `answer` is given where the base would hardly find a sensible one."""

    group: str
    key: str
    prompt: str
    answer: str = ""

    @property
    def split(self) -> str:
        """The split it belongs to."""
        return split_of(f"everyday {self.key}")

    @property
    def plan(self) -> str:
        """The reasoning of a think sample."""
        return PLANS.get(self.group, OTHER_PLAN)


@cache
def prompts() -> tuple[Prompt, ...]:
    """Return all prompts, in the order of the file."""
    text = resources.files("lhrm_train.smol").joinpath("everyday.jsonl").read_text(encoding="utf-8")
    return tuple(Prompt(**json.loads(line)) for line in text.split("\n") if line)


def prompts_of(split: str) -> list[Prompt]:
    """Return the prompts of `split`."""
    return [prompt for prompt in prompts() if prompt.split == split]
