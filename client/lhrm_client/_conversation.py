"""The turns of a conversation, and how an answer is added to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from pydantic import JsonValue

from ._errors import ArgumentError
from ._messages import message_list
from ._options import ChatOptions
from ._types import ChatResult, Messages

Turn: TypeAlias = dict[str, JsonValue]


class Turns:
    """The turns so far and the options of every call; one question is added at a time, and only with its answer.

    `messages` are the turns; they may be read and replaced. `options` hold for every call that does not set them.
    """

    def __init__(self, system: str | None, messages: Messages | None, options: ChatOptions) -> None:
        if system is not None and messages is not None:
            raise ArgumentError("system and messages cannot both open a conversation: put the system turn first")
        opening: list[Turn] = [] if system is None else [{"role": "system", "content": system}]
        self._opening = opening if messages is None else message_list(messages)
        self.messages = list(self._opening)
        self.options = options

    def asking(self, messages: Messages, options: ChatOptions) -> tuple[list[Turn], ChatOptions]:
        """Return the turns and options of the next call."""
        return [*self.messages, *message_list(messages)], {**self.options, **options}

    def keeper(self, asked: list[Turn]) -> Callable[[ChatResult], None]:
        """Return what keeps the turns `asked` once their answer is there."""

        def keep(result: ChatResult) -> None:
            self.messages = [*asked, result.message]

        return keep

    def reset(self) -> None:
        """Go back to the turns the conversation was opened with."""
        self.messages = list(self._opening)
