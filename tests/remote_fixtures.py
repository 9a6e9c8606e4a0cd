"""What the tests of the remote engine share: a scripted server on a socket, a real one, engines that drive them."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fake_vllm import FakeVllm
from gateway_fixtures import until
from lhrm_server.checkpoint_sampling import checkpoint_sampling
from lhrm_server.engine import GenerationRequest, Sampling
from lhrm_server.engine_fake import FakeEngine, Script, Scripted
from lhrm_server.engine_remote import RemoteEngine, RemoteOptions
from lhrm_server.engine_vllm import DEFAULTS, EAGER_DEFAULTS, OFFLINE
from lhrm_server.remote_place import Timeouts

from lhrm_train.format import ChatTokenizer

NANO = Path(__file__).resolve().parent.parent / "models" / "lhrm-nano"
QUICK = Timeouts(connect_s=2, first_event_s=5, idle_s=5, total_s=20, control_s=5, health_s=2)
# As docs/remote.md says, and what makes the nano start quickly on a CPU.
SERVE_ARGUMENTS = ["--scheduling-policy", "priority", "--served-model-name", "lhrm-nano"]
CPU_ARGUMENTS = [
    *("--enforce-eager", "--distributed-executor-backend", "uni", "--block-size", "32"),
    *("--kv-cache-memory-bytes", str(1 << 28), "--max-num-seqs", "64"),
    *("--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}'),
]


@dataclass
class Pair:
    """A scripted server and an engine that was started on it."""

    server: FakeVllm
    engine: RemoteEngine
    url: str


@dataclass
class Server:
    """A real ``vllm serve`` that answers."""

    url: str
    process: "subprocess.Popen[bytes]"


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fake_vllm(tokenizer: ChatTokenizer, script: Script | Scripted | None = None) -> FakeVllm:
    """Return a scripted server, not yet listening."""
    return FakeVllm(FakeEngine(tokenizer, script, max_model_len=1024), tokenizer)


def remote_engine(url: str, tokenizer: ChatTokenizer, **options: Any) -> RemoteEngine:
    """Return an engine for the nano at `url`, not started."""
    settings = {"sampling_defaults": checkpoint_sampling(NANO), "timeouts": QUICK, **options}
    return RemoteEngine(RemoteOptions(url, **settings), tokenizer)


@asynccontextmanager
async def listening(server: FakeVllm, port: int = 0) -> AsyncIterator[str]:
    """Serve on the loopback address, in this event loop."""
    await server.engine.start()
    config = uvicorn.Config(server.app(), log_level="critical", lifespan="off", timeout_graceful_shutdown=0)
    uvicorn_server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", port))
    serving = asyncio.create_task(uvicorn_server.serve(sockets=[listener]))
    try:
        await until(lambda: uvicorn_server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        uvicorn_server.should_exit = uvicorn_server.force_exit = True
        await serving
        listener.close()


@asynccontextmanager
async def pair(
    tokenizer: ChatTokenizer, script: Script | Scripted | None = None, **options: Any
) -> AsyncIterator[Pair]:
    """Give a scripted server and a started engine on it."""
    server = fake_vllm(tokenizer, script)
    async with listening(server) as url:
        engine = remote_engine(url, tokenizer, **options)
        await engine.start()
        server.bodies.clear()
        server.headers.clear()
        server.paths.clear()
        try:
            yield Pair(server, engine, url)
        finally:
            await engine.close()


def asked(prompt: tuple[int, ...], name: str = "r", priority: int = 0, **sampling: Any) -> GenerationRequest:
    """Return a request for one sequence."""
    return GenerationRequest(name, prompt, Sampling(**sampling), priority)


@contextmanager
def vllm_serve(log: Path, arguments: Sequence[str] = SERVE_ARGUMENTS, port: int | None = None) -> Iterator[Server]:
    """Run the real server on the nano, as a process of its own."""
    port = port or free_port()
    environment = {**DEFAULTS, **EAGER_DEFAULTS, **os.environ, **OFFLINE}
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(NANO)]
    command += ["--host", "127.0.0.1", "--port", str(port), *arguments, *CPU_ARGUMENTS]
    with (
        log.open("wb") as output,
        subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT) as process,
    ):
        url = f"http://127.0.0.1:{port}"
        try:
            _await_health(url, process, log)
            yield Server(url, process)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def _await_health(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 200
    while True:
        try:
            if httpx.get(f"{url}/health", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert process.poll() is None, f"vllm serve ended:\n{log.read_text(errors='replace')[-3000:]}"
        assert time.monotonic() < deadline, f"vllm serve did not start:\n{log.read_text(errors='replace')[-3000:]}"
        time.sleep(0.2)
