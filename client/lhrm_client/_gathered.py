"""Join the pieces of one streamed choice into the choice a whole response would hold."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, JsonValue

from ._events import AnswerDelta, ChatEvent, ReasoningDelta, ToolCallDelta


class _FunctionPiece(BaseModel):
    name: str | None = None
    arguments: str = ""


class _CallPiece(BaseModel):
    index: int
    id: str | None = None
    function: _FunctionPiece = _FunctionPiece()


class _Delta(BaseModel):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_CallPiece] | None = None


class _Logprobs(BaseModel):
    content: list[JsonValue] | None = None


class ChoicePiece(BaseModel):
    """One choice of one chunk."""

    index: int = 0
    delta: _Delta | None = None
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None
    stop_reason: str | None = None
    lhrm: dict[str, JsonValue] | None = None


class GatheredChoice:
    """What has come of the choice with that index."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._reasoning: list[str] = []
        self._answer: list[str] = []
        self._calls: list[dict[str, Any]] = []
        self._logprobs: list[JsonValue] | None = None
        self._last = ChoicePiece()

    def take(self, piece: ChoicePiece) -> list[ChatEvent]:
        """Add a piece and return its events. Raises ValueError on a tool call that does not follow the others."""
        if piece.finish_reason is not None:
            self._last = piece
        if piece.logprobs is not None and piece.logprobs.content is not None:
            self._logprobs = [*(self._logprobs or []), *piece.logprobs.content]
        delta = piece.delta or _Delta()
        events: list[ChatEvent] = []
        # Both names carry the same text; reading one of them avoids doubling it.
        reasoning = delta.reasoning_content if delta.reasoning is None else delta.reasoning
        if reasoning:
            self._reasoning.append(reasoning)
            events.append(ReasoningDelta(reasoning, self._index))
        if delta.content:
            self._answer.append(delta.content)
            events.append(AnswerDelta(delta.content, self._index))
        return events + [self._call(call) for call in delta.tool_calls or []]

    def _call(self, piece: _CallPiece) -> ToolCallDelta:
        if piece.index == len(self._calls):
            function = {"name": piece.function.name, "arguments": ""}
            self._calls.append({"id": piece.id, "type": "function", "function": function})
        if not 0 <= piece.index < len(self._calls):
            raise ValueError(f"tool_calls index {piece.index} comes after {len(self._calls)} calls")
        self._calls[piece.index]["function"]["arguments"] += piece.function.arguments
        return ToolCallDelta(piece.index, piece.function.arguments, piece.id, piece.function.name, self._index)

    def whole(self, thinking: bool) -> JsonValue:
        """Return the choice as a whole response has it; `thinking` tells whether the mode is think."""
        answer = "".join(self._answer)
        message: dict[str, JsonValue] = {
            "role": "assistant",
            "content": answer or (None if self._calls else ""),
            "refusal": None,
        }
        if not self._hidden(thinking):
            reasoning = "".join(self._reasoning) if thinking or self._reasoning else None
            message |= {"reasoning": reasoning, "reasoning_content": reasoning}
        if self._calls:
            message["tool_calls"] = [*self._calls]
        return {
            "index": self._index,
            "message": message,
            "logprobs": None if self._logprobs is None else {"content": self._logprobs, "refusal": None},
            "finish_reason": self._last.finish_reason,
            "stop_reason": self._last.stop_reason,
            "lhrm": self._last.lhrm,
        }

    def _hidden(self, thinking: bool) -> bool:
        """Tell whether there was reasoning of which no text came."""
        return thinking and not self._reasoning and bool((self._last.lhrm or {}).get("reasoning_tokens"))
