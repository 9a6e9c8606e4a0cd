"""What `/v1/models` tells: the served names and what the model behind them can do."""

from __future__ import annotations

from lhrm_train.format import NO_THINK_CLOSE, NO_THINK_OPEN, THINK_CLOSE, THINK_OPEN, Mode

from .errors import ModelNotFoundError
from .gateway import Gateway
from .policy import MODE_HEADER, Wish
from .request import EFFORTS, THINKING_TYPES
from .wire import Json


def list_models(gateway: Gateway) -> Json:
    """Return all served names."""
    return {"object": "list", "data": list(_entries(gateway).values())}


def get_model(gateway: Gateway, model_id: str) -> Json:
    """Return one entry. Raises ModelNotFoundError."""
    entries = _entries(gateway)
    if model_id not in entries:
        raise ModelNotFoundError(model_id, entries)
    return entries[model_id]


def _entries(gateway: Gateway) -> dict[str, Json]:
    settings = gateway.settings
    modes = {
        settings.model_name: settings.default_mode,
        settings.think_alias: Wish.THINK.value,
        settings.no_think_alias: Wish.NO_THINK.value,
    }
    return {name: _entry(gateway, name, mode) for name, mode in modes.items()}


def _entry(gateway: Gateway, name: str, default_mode: str) -> Json:
    return {
        "id": name,
        "object": "model",
        "created": gateway.created,
        "owned_by": "lhrm",
        "root": gateway.settings.model_name,
        "max_model_len": gateway.max_model_len,
        "lhrm": _capabilities(gateway, default_mode),
    }


def _capabilities(gateway: Gateway, default_mode: str) -> Json:
    settings, manifest = gateway.settings, gateway.tokenizer.manifest
    return {
        "format_version": manifest.format_version,
        "modes": [mode.value for mode in Mode],
        "default_mode": default_mode,
        "think_threshold": settings.think_threshold,
        "aliases": {Mode.THINK.value: settings.think_alias, Mode.NO_THINK.value: settings.no_think_alias},
        "tags": {
            Mode.THINK.value: [THINK_OPEN, THINK_CLOSE],
            Mode.NO_THINK.value: [NO_THINK_OPEN, NO_THINK_CLOSE],
        },
        "control": {
            "reasoning_effort": list(EFFORTS),
            "thinking.type": list(THINKING_TYPES),
            "chat_template_kwargs.enable_thinking": [True, False],
            "chat_template_kwargs.thinking": [True, False],
            "think_threshold": [0, 1],
            MODE_HEADER: [wish.value for wish in Wish],
        },
        "base_model": manifest.base_model,
        "evaluation": manifest.evaluation,
    }
