"""A gateway over the scripted engine on a real socket, for tests of what calls it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from conftest import LoopThread, serve_on_socket
from lhrm_server.app import create_app
from lhrm_server.engine_fake import FakeEngine, Script, Scripted
from lhrm_server.settings import Settings

from lhrm_train.format import ChatTokenizer, Mode, encode_answer

MODEL = "nano-test"


@contextmanager
def fake_gateway(
    loop_thread: LoopThread, tokenizer: ChatTokenizer, script: Script | Scripted | None = None, **settings: object
) -> Iterator[tuple[str, FakeEngine]]:
    """Give the base URL of a running gateway and its engine."""
    engine = FakeEngine(tokenizer, script)
    app = create_app(Settings(**{"model_name": MODEL, **settings}), engine, tokenizer)
    serving = serve_on_socket(app, loop_thread)
    try:
        yield next(serving), engine
    finally:
        next(serving, None)


def scripted(tokenizer: ChatTokenizer, reasoning: str, answer: str, **script: object) -> Script:
    """Return a script that answers with these texts, in think mode after the reasoning."""
    bodies = {
        f"{mode.value}_ids": tuple(encode_answer(tokenizer, mode, reasoning, answer)[1:])
        for mode in (Mode.THINK, Mode.NO_THINK)
    }
    return Script(**bodies, **script)
