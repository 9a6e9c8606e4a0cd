"""Fixtures that several test files share: the shipped nano, one real engine, one real gateway on a socket."""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.needed import package

# Before torch is imported anywhere: more threads than free cores make every step wait, and an idle pool of
# threads does not survive the fork of the engine.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

ROOT = Path(__file__).resolve().parent.parent
NANO = ROOT / "models" / "lhrm-nano"

# Whoever runs the tests in the background may have them ignore SIGINT, and every process they start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

T = TypeVar("T")


def pytest_configure(config: pytest.Config) -> None:
    # vLLM leaves the closing of its sockets to the garbage collector.
    config.addinivalue_line("filterwarnings", "ignore:Unclosed context <zmq:ResourceWarning")


class LoopThread:
    """An event loop in a thread: it keeps engine and gateway running while synchronous tests wait."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="engine-loop", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float = 120) -> T:
        """Run a coroutine on the loop and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)

    def stop(self) -> None:
        """Cancel what still runs, end the loop and the thread."""
        self.run(self._cancel_all(), timeout=10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.loop.shutdown_asyncgens()


@pytest.fixture(scope="session")
def loop_thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.stop()


@pytest.fixture(scope="session")
def reasoning_gym():
    """The package, which cannot be built everywhere."""
    return package("reasoning_gym")


@pytest.fixture(scope="session")
def nano_dir() -> Path:
    return NANO


@pytest.fixture(scope="session")
def nano_tokenizer():
    from lhrm_train.format import ChatTokenizer

    return ChatTokenizer.load(NANO)


@pytest.fixture(scope="session")
def vllm_engine(loop_thread, nano_tokenizer):
    """The one real engine of the run; use it only on `loop_thread`."""
    from lhrm_server.engine_vllm import VllmEngine, VllmOptions

    options = VllmOptions(NANO, stop_token_ids=(nano_tokenizer.turn_end_id,), cpu_kv_cache_bytes=1 << 28)
    engine = VllmEngine(options)
    loop_thread.run(engine.start(), timeout=200)
    yield engine
    loop_thread.run(engine.close())


@pytest.fixture(scope="session")
def vllm_server(tmp_path_factory):
    """URL of the one real ``vllm serve`` of the run, a process of its own."""
    from remote_fixtures import vllm_serve

    with vllm_serve(tmp_path_factory.mktemp("vllm-serve") / "log") as server:
        yield server.url


@pytest.fixture(scope="session")
def real_gateway(loop_thread, vllm_engine, nano_tokenizer):
    """Base URL (without /v1) of a gateway on a real socket over the real engine."""
    from lhrm_server.app import create_app
    from lhrm_server.settings import Settings

    settings = Settings(model_name=nano_tokenizer.manifest.name)
    yield from serve_on_socket(create_app(settings, vllm_engine, nano_tokenizer), loop_thread)


def serve_on_socket(app: Any, loop_thread: LoopThread) -> Iterator[str]:
    """Serve `app` on a free port of the loopback address until the generator is closed."""
    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
    serving = asyncio.run_coroutine_threadsafe(server.serve(sockets=[listener]), loop_thread.loop)
    loop_thread.run(_started(server, serving))
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    serving.result(30)


async def _started(server: Any, serving: Any) -> None:
    while not server.started:
        if serving.done():
            raise RuntimeError("the gateway did not start")
        await asyncio.sleep(0.02)


async def collect(stream: AsyncGenerator[T, None]) -> list[T]:
    """Return everything a stream yields."""
    return [item async for item in stream]
