"""An OpenAI endpoint that gives the same stream to everybody, byte for byte; for what no gateway of ours would send."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USAGE = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}


@dataclass
class Canned:
    """What is told: its one model, its version, the contents of the stream. Requests wait while `held` is set."""

    contents: Sequence[str] = ("right",)
    model: str = "m"
    version: str = "1"
    headers: dict[str, str] = field(default_factory=dict)
    held: bool = False
    status: int = 200
    url: str = ""
    asked: int = 0
    freed: threading.Event = field(default_factory=threading.Event)

    def stream(self) -> bytes:
        """Return the events."""
        events = [*({"choices": [{"delta": {"content": text}}]} for text in self.contents), USAGE]
        return b"".join(b"data: %s\n\n" % json.dumps(one).encode() for one in events) + b"data: [DONE]\n\n"


@contextmanager
def canned_endpoint(canned: Canned) -> Iterator[Canned]:
    """Serve `canned` on a free port; what it says may change meanwhile."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told = {"version": canned.version} if self.path == "/version" else {"data": [{"id": canned.model}]}
            self._send(json.dumps(told).encode(), 200)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            canned.asked += 1
            if canned.held:
                canned.freed.wait(60)
                return
            self._send(canned.stream(), canned.status)

        def _send(self, body: bytes, status: int) -> None:
            self.send_response(status)
            for name, value in {**canned.headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    canned.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield canned
    finally:
        canned.freed.set()
        server.shutdown()
        thread.join()
        server.server_close()
