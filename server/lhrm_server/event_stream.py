"""Decode a server-sent event stream from bytes, whatever the chunking."""

from __future__ import annotations

from collections.abc import Iterator

_BOM = b"\xef\xbb\xbf"
LONGEST_EVENT_BYTES = 16 << 20


class EventDecoder:
    """Turns chunks of bytes into the ``data`` of each event, still as bytes.

    A line ends with CR, LF or CRLF and with nothing else: U+2028 and its like are text. Comments and fields other
    than ``data`` carry nothing here. An event that no blank line ends is incomplete and never returned.
    """

    def __init__(self, longest_event_bytes: int = LONGEST_EVENT_BYTES) -> None:
        self._longest = longest_event_bytes
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._first_line = True

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of every event that `chunk` completes. Raises ValueError on an event without end."""
        events = [data for line in self._lines(chunk) if (data := self._take(line)) is not None]
        if len(self._line) + self._size > self._longest:
            raise ValueError(f"an event of more than {self._longest} bytes")
        return events

    def _lines(self, chunk: bytes) -> Iterator[bytes]:
        # A CR ends its line at once, and an LF right after it belongs to it, even one chunk later: to wait for it
        # would hold a complete event back.
        for piece in chunk.splitlines(keepends=True):
            if self._after_cr:
                self._after_cr = False
                if piece == b"\n":
                    continue
            body = piece.rstrip(b"\r\n")
            self._line += body
            if len(body) < len(piece):
                self._after_cr = piece.endswith(b"\r")
                line = bytes(self._line)
                self._line.clear()
                yield line

    def _take(self, line: bytes) -> bytes | None:
        if self._first_line:
            self._first_line = False
            line = line.removeprefix(_BOM)
        if not line:
            data, self._data, self._size = self._data, [], 0
            return b"\n".join(data) if data else None
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._size += len(line)
        return None
