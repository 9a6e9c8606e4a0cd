"""The arms of a comparison: which model at which endpoint is asked in which mode."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator, model_validator

from .errors import LoadTestError, describe

Asked: TypeAlias = Literal["auto", "think", "no_think", "plain"]
"""The mode that is asked for; ``plain`` says nothing of modes, for endpoints that know none."""

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_KEY_VARIABLE = "LHRM_API_KEY"
MODES: tuple[str, ...] = get_args(Asked)
# The wire's spelling of each mode; `auto` is sent too, so that it wins over a model alias.
_THINKING = {"auto": "auto", "think": "enabled", "no_think": "disabled"}


class Arm(BaseModel):
    """One way to ask a prompt. `model` empty means the first that the endpoint lists.

    `extra` holds further fields of the request body. `answer_after` is the text that ends the reasoning of an endpoint
    that leaves it in the content. The key is read from the environment variable `key_variable` and kept nowhere.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    name: str = Field(pattern=r"^[A-Za-z0-9_.@-]{1,40}$")
    mode: Asked = "auto"
    url: str = DEFAULT_URL
    model: str = ""
    threshold: float | None = Field(default=None, ge=0, le=1)
    extra: dict[str, JsonValue] = Field(default_factory=dict)
    answer_after: str = ""
    key_variable: str = DEFAULT_KEY_VARIABLE

    @field_validator("url")
    @classmethod
    def _some_host(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError("does not start with http://HOST or https://HOST")
        return url.rstrip("/").removesuffix("/v1")

    @model_validator(mode="after")
    def _threshold_needs_auto(self) -> Arm:
        if self.threshold is not None and self.mode != "auto":
            raise ValueError(f"threshold = {self.threshold}: only mode auto decides by one")
        return self

    def mode_fields(self) -> dict[str, JsonValue]:
        """Return the fields of the body that make this arm what it is."""
        fields: dict[str, JsonValue] = {}
        if self.mode in _THINKING:
            fields["thinking"] = {"type": _THINKING[self.mode]}
        if self.threshold is not None:
            fields["think_threshold"] = self.threshold
        return {**fields, **self.extra}

    def headers(self) -> dict[str, str]:
        """Return the HTTP headers that carry the key, none without one."""
        key = os.environ.get(self.key_variable)
        return {"Authorization": f"Bearer {key}"} if key else {}


def named_arms(names: str, url: str, model: str) -> list[Arm]:
    """Return the arms of a list such as ``auto,think,no_think,auto@0.3`` at one endpoint. Raises LoadTestError."""
    arms = []
    for name in filter(None, names.split(",")):
        mode, _, threshold = name.partition("@")
        values: dict[str, object] = {"name": name, "mode": mode, "url": url, "model": model}
        arms.append(_arm(f"arm {name!r}", {**values, "threshold": threshold} if threshold else values))
    return arms


def described_arm(text: str, url: str = DEFAULT_URL) -> Arm:
    """Return the arm that ``NAME,KEY=VALUE,...`` describes; KEY is a field of Arm. Raises LoadTestError.

    `extra` is read as JSON, every other value as text. `url` is where the arm is asked if it does not say.
    """
    name, *pairs = _split(text)
    values: dict[str, object] = {"name": name, "url": url}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise LoadTestError(f"arm {text!r}: {pair!r} is not KEY=VALUE")
        values[key] = _json(text, value) if key == "extra" else value
    return _arm(f"arm {text!r}", values)


def _split(text: str) -> list[str]:
    """Split at commas outside braces."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "{[") - (character in "}]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _json(text: str, value: str) -> object:
    try:
        return json.loads(value)
    except ValueError as exc:
        raise LoadTestError(f"arm {text!r}: extra = {value!r} is not JSON: {exc}") from exc


def _arm(where: str, values: dict[str, object]) -> Arm:
    try:
        return Arm.model_validate(values)
    except ValidationError as exc:
        raise LoadTestError(f"{where}: {describe(exc)}") from exc


def pick_baseline(arms: Sequence[Arm], name: str | None) -> str:
    """Return the arm that the others are compared with: the one named, else the first that always thinks.

    Raises LoadTestError for no arm, a repeated name or an unknown baseline.
    """
    names = [arm.name for arm in arms]
    if not names:
        raise LoadTestError("arms: none is named")
    repeated = next((one for one in names if names.count(one) > 1), None)
    if repeated is not None:
        raise LoadTestError(f"arms: {repeated!r} is named twice")
    if name is not None:
        if name not in names:
            raise LoadTestError(f"baseline = {name!r}: the arms are {', '.join(names)}")
        return name
    return next((arm.name for arm in arms if arm.mode == "think"), names[-1])
