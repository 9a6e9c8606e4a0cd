"""What `/v1/models` tells: the served names and what the model behind them can do."""

from __future__ import annotations

from lhrm_train.format import NO_THINK_CLOSE, NO_THINK_OPEN, THINK_CLOSE, THINK_OPEN, Mode
from lhrm_train.tool_format import TOOL_CALL_FORMAT

from .control import EFFORT_LEVELS, EFFORTS, THINKING_TYPES, UNLIMITED, Shown, Wish
from .errors import ModelNotFoundError
from .gateway import Gateway
from .policy import MODE_HEADER, ModePolicy
from .tool_fields import CHOICES
from .wire import Json

SWITCH = (True, False)


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
    default = gateway.settings.policy.default_mode
    return {name: _entry(gateway, name, wish or default) for name, wish in gateway.settings.served_names.items()}


def _entry(gateway: Gateway, name: str, default_mode: Wish) -> Json:
    return {
        "id": name,
        "object": "model",
        "created": gateway.created,
        "owned_by": "lhrm",
        "root": gateway.settings.model_name,
        "max_model_len": gateway.max_model_len,
        "lhrm": _capabilities(gateway, default_mode),
    }


def _capabilities(gateway: Gateway, default_mode: Wish) -> Json:
    settings, manifest = gateway.settings, gateway.tokenizer.manifest
    policy = settings.policy
    return {
        "format_version": manifest.format_version,
        "modes": [mode.value for mode in Mode],
        "default_mode": default_mode.value,
        "allowed_modes": [wish.value for wish in policy.allowed_modes],
        "think_threshold": policy.think_threshold,
        "aliases": {wish.value: name for name, wish in settings.served_names.items() if wish is not None},
        "tags": {
            Mode.THINK.value: [THINK_OPEN, THINK_CLOSE],
            Mode.NO_THINK.value: [NO_THINK_OPEN, NO_THINK_CLOSE],
        },
        "control": _controls(),
        "budgets": _budgets(policy),
        "visibility": _visibility(),
        "tools": _tools(manifest.tool_call_format),
        "max_choices": settings.max_choices,
        "base_model": manifest.base_model,
        "evaluation": manifest.evaluation,
    }


def _controls() -> Json:
    """Return the spellings that ask for a mode, with the values that each takes."""
    return {
        "reasoning_effort": list(EFFORTS),
        "reasoning.effort": list(EFFORTS),
        "reasoning.enabled": list(SWITCH),
        "thinking.type": list(THINKING_TYPES),
        "chat_template_kwargs.enable_thinking": list(SWITCH),
        "chat_template_kwargs.thinking": list(SWITCH),
        "enable_thinking": list(SWITCH),
        "think_threshold": [0, 1],
        MODE_HEADER: [wish.value for wish in Wish],
    }


def _budgets(policy: ModePolicy) -> Json:
    """Return what limits reasoning tokens; null where nothing does."""
    return {
        "effort": {level: policy.capped(policy.effort_budgets.get(level)) for level in EFFORT_LEVELS},
        "max_reasoning_tokens": policy.max_reasoning_tokens or None,
        "answer_reserve": policy.answer_reserve,
        "unlimited": UNLIMITED,
        "fields": [
            "reasoning.max_tokens",
            "thinking.budget_tokens",
            "thinking_budget",
            "thinking_token_budget",
            "thinking_budget_tokens",
            "nvext.max_thinking_tokens",
        ],
    }


def _visibility() -> Json:
    """Return where reasoning text can go, and the fields that send it there."""
    return {
        Shown.SEPARATE.value: [],
        Shown.HIDDEN.value: ["include_reasoning: false", "reasoning.exclude: true", "thinking.display: omitted"],
        Shown.INLINE.value: ["separate_reasoning: false"],
    }


def _tools(tool_call_format: str | None) -> Json:
    """Return which values of `tool_choice` work: a model that was not trained to call tools can only be made to."""
    choices = [choice for choice in CHOICES if choice != "auto" or tool_call_format == TOOL_CALL_FORMAT]
    return {"format": tool_call_format, "tool_choice": [*choices, "function"]}
