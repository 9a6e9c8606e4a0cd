"""The options of a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, TypedDict

from pydantic import BaseModel, JsonValue

from ._types import Mode

Schema: TypeAlias = type[BaseModel] | Mapping[str, JsonValue]
"""A pydantic model, or a JSON object: for an answer its JSON schema, for a tool its definition in the OpenAI shape."""

ToolChoice: TypeAlias = Literal["auto", "none", "required"] | type[BaseModel] | Mapping[str, JsonValue]
"""Whether tools are called; a pydantic model among the tools is the one that must be."""


class ChatOptions(TypedDict, total=False):
    """Options of one call; an absent or None option leaves the choice to the server.

    `mode` None follows the model alias and the server's default. `think_threshold` in [0, 1] is the cost
    dial: the model thinks when its P(think) reaches it. `thinking_budget` limits the reasoning to that many
    tokens, -1 not at all; 0 asks for no_think. `max_tokens` limits reasoning and answer together.
    `answer_type` makes the answer JSON that fits it. A pydantic model among `tools` is a function under the
    name of its class, with its docstring and its fields. `deadline_s` is how many seconds the whole call may
    take, retries included; in LHRM, what comes before the headers of a response is limited step by step.
    `request_id` is sent as X-Request-Id. `extra` holds further fields of the request body.
    """

    model: str | None
    mode: Mode | None
    think_threshold: float | None
    thinking_budget: int | None
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    seed: int | None
    n: int | None
    stop: str | Sequence[str] | None
    tools: Sequence[Schema] | None
    tool_choice: ToolChoice | None
    answer_type: Schema | None
    deadline_s: float | None
    request_id: str | None
    extra: Mapping[str, JsonValue] | None
