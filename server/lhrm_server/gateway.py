"""The parts of one gateway and their life cycle: starting, serving, draining."""

from __future__ import annotations

import time
from enum import Enum
from importlib import metadata

from lhrm_train.format import ChatTokenizer

from .chat import ChatPipeline
from .engine import Engine
from .errors import NotReadyError
from .intake import ChatIntake
from .ledger import Ledger, RecordSink
from .metrics import Metrics
from .prompt import PromptBuilder
from .settings import Settings


class Stage(Enum):
    """Where the gateway is in its life."""

    STARTING = "starting"
    SERVING = "ready"
    DRAINING = "draining"


class Gateway:
    """One model behind one engine; built without work, usable after `start`."""

    def __init__(
        self, settings: Settings, engine: Engine, tokenizer: ChatTokenizer, on_record: RecordSink | None = None
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.tokenizer = tokenizer
        self.metrics = Metrics(settings.model_name)
        self.intake = ChatIntake(settings, tokenizer)
        self.created = int(time.time())
        self.stage = Stage.STARTING
        self._ledger = Ledger(self.metrics, on_record)
        self._serving: tuple[PromptBuilder, ChatPipeline] | None = None
        self._owns_engine = False

    async def start(self) -> None:
        """Start the engine, unless its owner already did, and begin to serve. Raises EngineError."""
        self._owns_engine = not await self.engine.healthy()
        if self._owns_engine:
            await self.engine.start()
        limit = self.settings.max_concurrent_requests
        self._serving = (
            PromptBuilder(self.tokenizer, self.engine.info.max_model_len),
            ChatPipeline(self.engine, self.tokenizer, self._ledger, self.metrics, limit),
        )
        self.metrics.engine_started(version(), self.engine.info)
        self.stage = Stage.SERVING

    def begin_drain(self) -> None:
        """Take no new work; requests in flight go on."""
        self.stage = Stage.DRAINING

    async def close(self) -> None:
        """Stop serving, and stop the engine if this gateway started it."""
        self.begin_drain()
        if self._owns_engine:
            await self.engine.close()

    @property
    def draining(self) -> bool:
        """Tell whether the server is on its way out."""
        return self.stage is Stage.DRAINING

    def serving(self) -> tuple[PromptBuilder, ChatPipeline]:
        """Return what serves requests. Raises NotReadyError while starting or draining."""
        if self._serving is None or self.stage is not Stage.SERVING:
            raise NotReadyError(f"The server is {self.stage.value}.")
        return self._serving

    @property
    def max_model_len(self) -> int | None:
        """The context in tokens, None while the engine has not started."""
        return None if self._serving is None else self.engine.info.max_model_len

    def engine_versions(self) -> dict[str, str] | None:
        """Return kind, version and details of the engine, None while it has not started."""
        if self._serving is None:
            return None
        info = self.engine.info
        return {"kind": info.kind, "version": info.version, **info.details}

    async def readiness(self) -> tuple[bool, str]:
        """Tell whether requests are served now, and the state in one word."""
        if self.stage is not Stage.SERVING:
            return False, self.stage.value
        healthy = await self.engine.healthy()
        return healthy, self.stage.value if healthy else "engine_unavailable"


def version() -> str:
    """Return the version of the installed distribution."""
    return metadata.version("lhrm")
