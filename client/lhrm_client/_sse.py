"""Decode a server-sent event stream from bytes, whatever the chunking."""

from __future__ import annotations

from collections.abc import Iterator

_BOM = b"\xef\xbb\xbf"


class SSEDecoder:
    """Turn chunks of bytes into the ``data`` of each event.

    Lines end with CR, LF or CRLF. Lines are cut as bytes and decoded whole, so a character split across
    chunks is never seen in part. Comments and fields other than ``data`` carry nothing here; an event
    that no blank line ends is incomplete and never returned.
    """

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[str] = []
        self._skip_lf = False
        self._first_line = True

    def feed(self, chunk: bytes) -> list[str]:
        """Return the data of every event that `chunk` completes."""
        return [data for line in self._lines(chunk) if (data := self._take(line)) is not None]

    def _lines(self, chunk: bytes) -> Iterator[bytes]:
        # A CR ends its line at once and an LF right after it is swallowed, even one chunk later:
        # waiting for the LF would hold a complete event back.
        for piece in chunk.splitlines(keepends=True):
            if self._skip_lf:
                self._skip_lf = False
                if piece == b"\n":
                    continue
            body = piece.rstrip(b"\r\n")
            self._line += body
            if len(body) < len(piece):
                self._skip_lf = piece.endswith(b"\r")
                line = bytes(self._line)
                self._line.clear()
                yield line

    def _take(self, line: bytes) -> str | None:
        if self._first_line:
            self._first_line = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" ").decode("utf-8", errors="replace"))
        return None

    def _dispatch(self) -> str | None:
        data, self._data = self._data, []
        return "\n".join(data) if data else None
