"""What the gateway's tests share: a tokenizer with a known calibration, and a gateway over a scripted engine."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from lhrm_server.accounting import UsageRecord
from lhrm_server.app import create_app
from lhrm_server.engine_fake import FakeEngine, Script, Scripted
from lhrm_server.settings import Settings

from lhrm_train.format import ChatTokenizer, Manifest, Mode, SavingsBin, SavingsCalibration, encode_answer

NANO = Path(__file__).resolve().parent.parent / "models" / "lhrm-nano"
MODEL = "lhrm-test"
CHAT = "/v1/chat/completions"

# One bin, for requests that the model hardly wants to think about: always-think costs 60 tokens, 40 to 90.
CALIBRATION = SavingsCalibration(
    confidence=0.9,
    prompts=200,
    bins=(SavingsBin((0.0, 0.3), (0, 200), 120, 60.4, 40.2, 90.0, 10.0, 50.4, 45.0, 55.0),),
)


def load_tokenizer(calibration: SavingsCalibration | None = CALIBRATION) -> ChatTokenizer:
    """Return the nano's tokenizer under a name and a calibration of the tests' own."""
    manifest = replace(
        Manifest.load(NANO), name=MODEL, savings_calibration=calibration, evaluation={"hybrid_accuracy": 0.98}
    )
    return ChatTokenizer((NANO / "tokenizer.json").read_text(encoding="utf-8"), manifest)


def think(tokenizer: ChatTokenizer, reasoning: str, answer: str) -> tuple[int, ...]:
    """Return what follows the think tag."""
    return tuple(encode_answer(tokenizer, Mode.THINK, reasoning, answer)[1:])


def no_think(tokenizer: ChatTokenizer, answer: str) -> tuple[int, ...]:
    """Return what follows the no-think tag."""
    return tuple(encode_answer(tokenizer, Mode.NO_THINK, "", answer)[1:])


def scripted(tokenizer: ChatTokenizer, **changes: Any) -> Script:
    """Return a script that reasons and answers with more than ASCII."""
    base = Script(
        think_ids=think(tokenizer, "Zwei plus drei, naïve 思考 🤔.", "5 ✓"), no_think_ids=no_think(tokenizer, "fünf ✓")
    )
    return replace(base, **changes)


@dataclass
class Rig:
    """One gateway in this process, with all that it wrote down."""

    app: FastAPI
    engine: FakeEngine
    tokenizer: ChatTokenizer
    client: httpx.AsyncClient
    records: list[UsageRecord] = field(default_factory=list)

    async def chat(self, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        """Post a chat request; `model` and `messages` have defaults."""
        return await self.client.post(CHAT, json=body(**fields), headers=headers)

    async def metric(self, name: str, **labels: str) -> float:
        """Return the value of one series."""
        value = self.app.state.gateway.metrics.registry.get_sample_value(name, {"model": MODEL, **labels})
        assert value is not None, f"{name} {labels} does not exist"
        return float(value)


def body(**fields: Any) -> dict[str, Any]:
    """Return a request body."""
    return {"model": MODEL, "messages": [{"role": "user", "content": "2+3?"}], **fields}


@asynccontextmanager
async def gateway(
    script: Script | Scripted | None = None, *, started: bool = True, max_model_len: int = 512, **settings: Any
) -> AsyncIterator[Rig]:
    """Give a gateway over a scripted engine."""
    tokenizer = load_tokenizer()
    engine = FakeEngine(tokenizer, script or scripted(tokenizer), max_model_len=max_model_len)
    records: list[UsageRecord] = []
    app = create_app(Settings(MODEL, **settings), engine, tokenizer, on_record=records.append)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        rig = Rig(app, engine, tokenizer, client, records)
        if not started:
            yield rig
            return
        async with app.router.lifespan_context(app):
            yield rig


async def until(condition: Callable[[], object], timeout_s: float = 10) -> None:
    """Let other tasks run until `condition` holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - what is waited for is a plain counter
            await asyncio.sleep(0.001)


def eventually(condition: Callable[[], object], timeout_s: float = 10) -> None:
    """Wait, in a thread, until `condition` holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def frames(text: str) -> list[Any]:
    """Return the data of an event stream: JSON values, and the final [DONE] as it is."""
    events = [event for event in text.split("\n\n") if event and not event.startswith(":")]
    assert all(event.startswith("data: ") for event in events)
    data = [event.removeprefix("data: ") for event in events]
    return [value if value == "[DONE]" else json.loads(value) for value in data]


def texts(chunks: list[Any]) -> tuple[str, str]:
    """Return the reasoning and the answer that chunks spell."""
    deltas = [choice["delta"] for chunk in chunks if chunk != "[DONE]" for choice in chunk["choices"]]
    assert all(delta.get("reasoning") == delta.get("reasoning_content") for delta in deltas)
    reasoning = "".join(delta.get("reasoning") or "" for delta in deltas)
    return reasoning, "".join(delta.get("content") or "" for delta in deltas)
