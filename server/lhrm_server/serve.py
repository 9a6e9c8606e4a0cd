"""The life of the server process: check everything cheap, load the engine, serve, stop, and say why it ended."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from lhrm_train.format import ChatTokenizer, FormatError

from .app import begin_drain, create_app
from .cli import ModelNotFoundError, ServeOptions, find_model
from .engine import Engine, EngineError
from .engine_fake import FakeEngine
from .engine_remote import make_remote_engine
from .engine_vllm import VllmEngine, VllmOptions
from .operators import load_operators
from .policy_file import load_policy
from .setting_checks import SettingsError
from .settings import Settings

HEALTH_POLL_S = 0.5
LINGER_S = 2.0
"""How long a server whose engine died keeps answering, so that probes and waiting clients learn of it."""


class StartError(Exception):
    """The server cannot start; the message is one line for the user."""


class GatewayServer(uvicorn.Server):
    """uvicorn's server that prints the ready line once it accepts requests, and drains from the first signal on."""

    def __init__(self, app: FastAPI, settings: Settings, engine: Engine) -> None:
        super().__init__(_uvicorn_config(app, settings))
        self._app = app
        self._settings = settings
        self._engine = engine

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then announce."""
        await super().startup(sockets)
        if self.started and sockets:
            url = public_url(self._settings.host, sockets[0].getsockname()[1])
            name, info = self._settings.model_name, self._engine.info
            print(f"lhrm-serve: ready on {url} ({name}, {info.kind} {info.version})")
            print(f"try: {example(url, name)}", flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop on a signal; connections that stay open learn at once that there is no new work here."""
        begin_drain(self._app)
        super().handle_exit(sig, frame)


def run(options: ServeOptions) -> int:
    """Serve until asked to stop; return the exit code."""
    try:
        return _run(options)
    except (StartError, ModelNotFoundError, FormatError, SettingsError, EngineError) as exc:
        complain(str(exc))
        return 1


def _run(options: ServeOptions) -> int:
    model_dir = find_model(options.model)
    tokenizer = ChatTokenizer.load(model_dir)
    settings = make_settings(options, tokenizer)
    engine = make_engine(options, model_dir, tokenizer)
    listener = listen(settings.host, settings.port)
    server = GatewayServer(create_app(settings, engine, tokenizer), settings, engine)
    _log_to_stderr()
    # Until the engine is up there is nothing to tidy: a signal ends the process, and the kernel its children.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner, listener:
        where = options.engine if options.remote is None else options.remote.url
        print(f"lhrm-serve: loading {model_dir} ({where})", file=sys.stderr, flush=True)
        return runner.run(_serve(server, engine, listener))


def make_settings(options: ServeOptions, tokenizer: ChatTokenizer) -> Settings:
    """Return the settings, with what the operator's files say. Raises SettingsError."""
    name = options.name or tokenizer.manifest.name
    return Settings(
        model_name=name,
        policy=load_policy(options.policy_file, name, options.policy_flags),
        operators=load_operators(options.operator_keys, options.trusted_proxies),
        **options.settings,
    )


def _log_to_stderr() -> None:
    """Write the gateway's own log, one line per chat request, to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("lhrm_server")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def make_engine(options: ServeOptions, model_dir: Path, tokenizer: ChatTokenizer) -> Engine:
    """Build the chosen engine, not started. Raises StartError where vLLM is not installed, EngineError on a bad URL."""
    if options.remote is not None:
        return make_remote_engine(
            options.remote.url,
            model_dir,
            tokenizer,
            model=options.remote.model,
            api_key_file=options.remote.api_key_file,
            max_model_len=options.engine_options.get("max_model_len"),
        )
    if options.engine == "fake":
        return FakeEngine(tokenizer)
    if find_spec("vllm") is None:
        raise StartError("vLLM is not installed; run `make setup`, or on a CUDA machine: pip install 'lhrm[gpu]'")
    return VllmEngine(VllmOptions(model_dir, stop_token_ids=(tokenizer.turn_end_id,), **options.engine_options))


def listen(host: str, port: int) -> socket.socket:
    """Take the port before the engine loads. Connections wait until the server is ready. Raises StartError."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as exc:
        raise StartError(f"cannot listen on {host}:{port}: {exc.strerror or exc}") from exc
    # A forked engine would keep the port open after the server has closed it.
    os.register_at_fork(after_in_child=listener.close)
    return listener


def _uvicorn_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        # The peer's address gives operator rights, so no header may replace it.
        proxy_headers=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=max(1, round(settings.shutdown_grace_s)),
    )


async def _serve(server: uvicorn.Server, engine: Engine, listener: socket.socket) -> int:
    await engine.start()
    # uvicorn repeats the signal that stopped it once it is done; by then it has been obeyed.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    watching = asyncio.create_task(_watch(server, engine))
    try:
        await server.serve(sockets=[listener])
    finally:
        await engine.close()
    if not server.started:
        return 1
    return await watching


async def _watch(server: uvicorn.Server, engine: Engine) -> int:
    """Return 0 when the server was asked to stop; when the engine dies first, stop it and return 1."""
    while not server.should_exit:
        await asyncio.sleep(HEALTH_POLL_S)
        # An engine of its own life may come back: until then /ready says 503.
        if not server.should_exit and not engine.info.recovers and not await engine.healthy():
            complain("the engine died; stopping")
            await asyncio.sleep(LINGER_S)
            server.should_exit = True
            return 1
    return 0


def public_url(host: str, port: int) -> str:
    """Return a URL that works on this machine; an address that means "all" becomes the loopback one."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def example(url: str, model_name: str) -> str:
    """Return a curl command line that asks one question."""
    body = json.dumps({"model": model_name, "messages": [{"role": "user", "content": "What is 2+3?"}]})
    return f"curl {url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'"


def complain(message: str) -> None:
    """Write one line to stderr."""
    print(f"lhrm-serve: error: {' '.join(message.split())}", file=sys.stderr, flush=True)
