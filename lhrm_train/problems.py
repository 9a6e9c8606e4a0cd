"""The two things training consumes: a problem to answer and score, and a demonstration of an answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from lhrm_train.format import Message, Mode

NO_FIELDS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Problem:
    """A question in its conversation with what is needed to score an answer to it.

    `scorer` names a row of the scorer table (empty = the run's default) and `fields` holds what only that
    scorer reads. `kind` and `level` group the reports; `key` names the content apart from its phrasing.
    `closed` marks content that all splits share.
    """

    messages: tuple[Message, ...]
    reference: str = ""
    scorer: str = ""
    kind: str = "all"
    level: int = 0
    closed: bool = False
    context: str = "bare"
    key: str = ""
    fields: Mapping[str, Any] = field(default_factory=lambda: NO_FIELDS, hash=False)

    @property
    def question(self) -> str:
        """The last user message."""
        return self.messages[-1].content


@dataclass(frozen=True)
class Demonstration:
    """An answer to learn from in one mode; `reasoning` is empty in no-think."""

    problem: Problem
    mode: Mode
    reasoning: str
    answer: str
