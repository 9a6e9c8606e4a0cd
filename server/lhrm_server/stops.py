"""Stop strings on the text of an answer, the same for every chunking."""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Gives text out up to the first stop string; what may be the beginning of one is held back.

    The first match is the one whose last character comes first, as if the text came character by character; of
    those that end at the same character it is the longest.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.matched: str | None = None

    def feed(self, text: str) -> str:
        """Return the text that no stop string can take back any more; nothing follows a match."""
        if self.matched is not None:
            return ""
        text = self._held + text
        found = [(start + len(stop), start, stop) for stop in self._stops if (start := text.find(stop)) >= 0]
        if found:
            # At equal ends the smaller start is the longer string.
            _, start, self.matched = min(found)
            self._held = ""
            return text[:start]
        size = prefix_at_end(text, self._stops)
        self._held = text[len(text) - size :]
        return text[: len(text) - size]

    def finish(self) -> str:
        """Return what was held: no more text comes."""
        held, self._held = self._held, ""
        return held


def prefix_at_end(text: str, strings: Sequence[str]) -> int:
    """Return how many characters at the end of `text` begin one of the strings without completing it."""
    longest = 0
    for string in strings:
        start = max(0, len(text) - len(string) + 1)
        while (start := text.find(string[0], start)) >= 0:
            if string.startswith(text[start:]):
                longest = max(longest, len(text) - start)
                break
            start += 1
    return longest
