"""The servers that are measured: bare vLLM, and our gateway with an engine of its own and over that vLLM."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from lhrm_server.parent_death import PR_SET_PDEATHSIG

ROOT = Path(__file__).resolve().parents[1]
NANO = ROOT / "models" / "lhrm-nano"
MODEL = "lhrm-nano"
START_S = 240.0
KV_CACHE_BYTES = 1 << 28
# What the embedded engine sets for itself, so that both engines run alike.
ENGINE_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "OMP_NUM_THREADS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TORCHDYNAMO_DISABLE": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("server", ".")),
}


@dataclass(frozen=True)
class Server:
    """One server: where it listens, whether it is the bare vLLM, and the processes whose CPU time is its cost."""

    name: str
    url: str
    bare: bool
    roots: tuple[int, ...]

    def cpu_s(self) -> float:
        """Return the CPU seconds that its processes have used so far."""
        total = 0.0
        for root in self.roots:
            process = psutil.Process(root)
            for one in (process, *process.children(recursive=True)):
                times = one.cpu_times()
                total += times.user + times.system
        return total


@contextmanager
def gateway(folder: Path) -> Iterator[Server]:
    """Start our gateway with an engine of its own, with its log in `folder`; stop it in the end."""
    own = ("--cpu-kv-cache-bytes", str(KV_CACHE_BYTES))
    with process("embedded", lambda port: [*_gateway_command(port), *own], folder) as (url, pid):
        yield Server("embedded", url, False, (pid,))


@contextmanager
def running(folder: Path) -> Iterator[list[Server]]:
    """Start all three, one after the other, with their logs in `folder`; stop them in the end."""
    with ExitStack() as stack:
        vllm_url, vllm = stack.enter_context(process("vllm", _vllm_command, folder))
        embedded = stack.enter_context(gateway(folder))
        remote_url, remote = stack.enter_context(
            process("remote", lambda port: [*_gateway_command(port), "--engine-url", vllm_url], folder)
        )
        yield [
            Server("vllm", vllm_url, True, (vllm,)),
            embedded,
            Server("remote", remote_url, False, (remote, vllm)),
        ]


def _vllm_command(port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(NANO)),
        *("--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port), "--enforce-eager"),
        *("--max-num-seqs", "64", "--block-size", "32", "--kv-cache-memory-bytes", str(KV_CACHE_BYTES)),
        *("--scheduling-policy", "priority", "--distributed-executor-backend", "uni"),
        *("--disable-log-stats", "--no-enable-log-requests", "--uvicorn-log-level", "warning"),
    ]


def _gateway_command(port: int) -> list[str]:
    return [sys.executable, "-m", "lhrm_server", "--model", str(NANO), "--port", str(port)]


@contextmanager
def process(name: str, command: Callable[[int], list[str]], folder: Path) -> Iterator[tuple[str, int]]:
    """Run ``command(port)`` until the end, its output in ``folder/name.log``; give URL and process id when it answers.

    Raises SystemExit when it ends or is not ready in time.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with (folder / f"{name}.log").open("w") as log:
        started = subprocess.Popen(
            command(port),
            cwd=ROOT,
            stdout=log,
            stderr=log,
            env={**os.environ, **ENGINE_ENVIRONMENT},
            start_new_session=True,
            preexec_fn=ending_with_parent(),
        )
        try:
            _wait(name, url, started)
            yield url, started.pid
        finally:
            started.send_signal(signal.SIGTERM)
            try:
                started.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(started.pid, signal.SIGKILL)


def ending_with_parent() -> Callable[[], None]:
    """Return what makes a child end with this process, however that ends (Linux)."""
    libc = ctypes.CDLL(None)

    def in_child() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    return in_child


def _wait(name: str, url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"bench: the server {name} ended with {process.returncode}; see its log")
        try:
            with urllib.request.urlopen(f"{url}/v1/models", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise SystemExit(f"bench: the server {name} was not ready in {START_S:.0f} s")
