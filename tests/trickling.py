"""A server on a real socket that sends its answers bit by bit, as a test scripts them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

Step = float | bytes
"""A pause in seconds, or bytes to send."""


@contextmanager
def trickling(*answers: Iterable[Step]) -> Iterator[str]:
    """Give the base URL of a server that plays the answers in order, one a connection, and repeats the last."""
    left = [list(answer) for answer in answers]
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                answer = left.pop(0) if len(left) > 1 else left[0]
                threads.append(threading.Thread(target=play, args=(connection, answer)))
                threads[-1].start()

    def play(connection: socket.socket, answer: list[Step]) -> None:
        with connection, suppress(OSError):
            read_request(connection)
            for step in answer:
                if isinstance(step, bytes):
                    connection.sendall(step)
                elif stop.wait(step):
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stop.set()
            listener.shutdown(socket.SHUT_RDWR)
            for thread in (accepting, *threads):
                thread.join(timeout=10)


def read_request(connection: socket.socket) -> None:
    received = b""
    while b"\r\n\r\n" not in received:
        received += read_some(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    missing = int(lengths[0].partition(b":")[2]) - len(body) if lengths else 0
    while missing > 0:
        missing -= len(read_some(connection))


def read_some(connection: socket.socket) -> bytes:
    received = connection.recv(65536)
    if not received:
        raise ConnectionError("the client is gone")
    return received


def slowly(content: bytes, pieces: int, pause_s: float) -> list[Step]:
    """Return the content in that many pieces, each after a pause."""
    size = -(-len(content) // pieces)
    cuts = [content[start : start + size] for start in range(0, len(content), size)]
    return [step for cut in cuts for step in (pause_s, cut)]


def head(status: str = "200 OK", *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "Connection: close", "", ""]).encode()


@contextmanager
def measured(at_least_s: float, below_s: float) -> Iterator[None]:
    """Check how long the block takes."""
    began_s = time.monotonic()
    yield
    assert at_least_s <= time.monotonic() - began_s < below_s
