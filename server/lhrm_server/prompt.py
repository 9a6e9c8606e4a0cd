"""From a conversation to prompt ids, checked against the context: too long is an error now, not a hang later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lhrm_train.format import ChatTokenizer, Message, Mode, encode_chat

from .errors import ContextLengthError


@dataclass(frozen=True)
class Prompt:
    """The ids up to where the model decides, and how many tokens the completion may have.

    `prompt_tokens` counts the opening tag too: it belongs to the prompt in every mode.
    """

    ids: tuple[int, ...]
    max_tokens: int

    @property
    def prompt_tokens(self) -> int:
        """Tokens in front of the completion."""
        return len(self.ids) + 1

    def opened(self, tokenizer: ChatTokenizer, mode: Mode) -> tuple[int, ...]:
        """Return the ids with the opening tag of `mode`."""
        return (*self.ids, tokenizer.tags.opening(mode))


class PromptBuilder:
    """Encodes conversations for one tokenizer and one context length."""

    def __init__(self, tokenizer: ChatTokenizer, max_model_len: int) -> None:
        self._tokenizer = tokenizer
        self._max_model_len = max_model_len
        longest = max(len(tokenizer.token_bytes(token)) for token in range(tokenizer.vocab_size))
        # No text of more bytes fits, so that a huge one is refused without the cost of encoding it.
        self._max_bytes = max_model_len * longest

    def build(self, messages: Sequence[Message], max_tokens: int | None) -> Prompt:
        """Return the prompt. Raises ContextLengthError, with the counts, when it or the completion does not fit."""
        self._refuse_hopeless(messages)
        ids = tuple(encode_chat(self._tokenizer, messages, None))
        room = self._max_model_len - len(ids) - 1
        if room < 1:
            raise ContextLengthError(
                f"The context has {self._max_model_len} tokens; the messages have {len(ids) + 1}, "
                "and at least 1 is needed for the completion.",
                param="messages",
            )
        if max_tokens is not None and max_tokens > room:
            raise ContextLengthError(
                f"The context has {self._max_model_len} tokens; {len(ids) + 1 + max_tokens} were requested "
                f"({len(ids) + 1} in the messages, {max_tokens} in the completion).",
                param="messages",
            )
        return Prompt(ids, room if max_tokens is None else max_tokens)

    def _refuse_hopeless(self, messages: Sequence[Message]) -> None:
        size = sum(len(message.content.encode("utf-8")) for message in messages)
        if len(messages) > self._max_model_len or size > self._max_bytes:
            raise ContextLengthError(
                f"The context has {self._max_model_len} tokens; {len(messages)} messages of {size} bytes have more.",
                param="messages",
            )
