"""What a request asks of the answer alone; nothing of it ever touches the reasoning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .engine import Grammar


@dataclass(frozen=True)
class ToolPlan:
    """How tool calls come out of the answer.

    auto: the model may write Hermes ``<tool_call>`` blocks into its answer. required: a grammar makes the answer a
    JSON list of ``{"name", "parameters"}``. named: a grammar makes the answer the arguments of the function `name`.
    """

    kind: Literal["auto", "required", "named"]
    name: str | None = None


@dataclass(frozen=True)
class AnswerPlan:
    """Stop strings, log-probabilities, bias, grammar and tools. `top_logprobs` None: no log-probabilities.

    `grammar_param` is the field that the grammar comes from, for the error of an engine that cannot honour it.
    """

    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    grammar: Grammar | None = None
    tools: ToolPlan | None = None
    grammar_param: str | None = None

    @property
    def needs_own_call(self) -> bool:
        """Whether the engine must be asked for the answer apart from the reasoning."""
        return self.top_logprobs is not None or bool(self.logit_bias) or self.grammar is not None
