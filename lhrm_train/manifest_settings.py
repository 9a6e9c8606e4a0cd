"""How a run scores and samples, recorded in its checkpoints: the defaults of whoever evaluates them later."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lhrm_train.config import ConfigError, RunConfig, load_config, recipe_text
from lhrm_train.format import MANIFEST_NAME, Manifest, SavingsCalibration

EVAL = ("samples", "temperature", "max_new_tokens", "margin")


def recorded(config: RunConfig) -> dict[str, object]:
    """Return the part of a manifest's recipe that says how the run scores and samples."""
    return {"reward": asdict(config.reward), "eval": {name: getattr(config.eval, name) for name in EVAL}}


def finish_manifest(
    checkpoint: Path, config: RunConfig, evaluation: Mapping[str, object], calibration: SavingsCalibration | None
) -> None:
    """Write figures, settings and, if there is one, the savings calibration into a checkpoint's manifest."""
    manifest = Manifest.load(checkpoint)
    replace(
        manifest,
        recipe={**manifest.recipe, **recorded(config)},
        evaluation=dict(evaluation),
        savings_calibration=calibration or manifest.savings_calibration,
    ).save(checkpoint)


def config_for(model: Path, source: str | None, overrides: list[str]) -> RunConfig:
    """Return the settings for an evaluation of `model`: those of the run that made it, unless `source` (a TOML file or
    recipe) or an override names them. Raises FormatError when `model` is no checkpoint, else what load_config raises.
    """
    recipe = Manifest.load(model).recipe
    given = _given(source)
    defaults = []
    for section in ("reward", "eval"):
        recorded_here = recipe.get(section, {})
        if not isinstance(recorded_here, dict):
            raise ConfigError(f"{model / MANIFEST_NAME}: recipe.{section} = {recorded_here!r} is not a table")
        for name, value in recorded_here.items():
            if name not in given.get(section, {}):
                defaults.append(f"{section}.{name}={json.dumps(value)}")
    return load_config(source, [*defaults, *overrides])


def _given(source: str | None) -> dict[str, Any]:
    try:
        return tomllib.loads(recipe_text(source)) if source is not None else {}
    except tomllib.TOMLDecodeError:
        return {}  # load_config says so
