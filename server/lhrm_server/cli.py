"""The command line of ``lhrm-serve``: arguments to one ServeOptions."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .engine_vllm import VllmOptions
from .settings import DEFAULT_MODES, Settings

ENGINES = ("vllm", "fake")
EXECUTIONS = ("auto", "eager", "compiled")
SOURCE_ROOT = Path(__file__).resolve().parents[2]


class ModelNotFoundError(ValueError):
    """The model is neither a directory nor a known short name."""


@dataclass(frozen=True)
class ServeOptions:
    """What the user asked for; the checkpoint is not read yet, so its own name is not known."""

    model: str
    name: str | None
    engine: str
    settings: dict[str, Any]
    engine_options: dict[str, Any]


def find_model(model: str, roots: Sequence[Path] | None = None) -> Path:
    """Return the checkpoint directory that `model`, a path or a short name like ``nano``, stands for."""
    if Path(model).is_dir():
        return Path(model)
    folders = [root / "models" for root in roots or (Path.cwd(), SOURCE_ROOT)]
    for folder in folders:
        if "/" not in model and (folder / f"lhrm-{model}").is_dir():
            return folder / f"lhrm-{model}"
    names = sorted({path.name.removeprefix("lhrm-") for folder in folders for path in folder.glob("lhrm-*")})
    known = f"known short names: {', '.join(names)}" if names else "and no short names are known here"
    raise ModelNotFoundError(f"model {model!r} is not a directory; {known}")


def parse_arguments(arguments: Sequence[str] | None) -> ServeOptions:
    """Read the command line; argparse ends the process on errors and on ``--help``."""
    given = vars(_parser().parse_args(arguments))
    settings = {f.name: given[f.name] for f in fields(Settings) if f.name in given}
    engine_options = {f.name: given[f.name] for f in fields(VllmOptions) if f.name in given}
    return ServeOptions(given["model"], given["name"], given["engine"], settings, engine_options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lhrm-serve",
        description="Serve a large hybrid-reasoning model over an OpenAI-compatible API.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", default="nano", help="checkpoint directory or short name")
    parser.add_argument("--name", help="model id shown to clients; default: the checkpoint's own name")
    parser.add_argument("--engine", choices=ENGINES, default="vllm", help="fake: scripted answers, no model is loaded")
    _add_gateway_arguments(parser.add_argument_group("gateway"))
    _add_engine_arguments(parser.add_argument_group("engine"))
    return parser


def _add_gateway_arguments(group: argparse._ArgumentGroup) -> None:
    default = {f.name: f.default for f in fields(Settings)}
    group.add_argument("--host", default=default["host"], help="address to listen on")
    group.add_argument("--port", type=int, default=default["port"], help="port to listen on; 0 takes a free one")
    group.add_argument(
        "--default-mode",
        choices=DEFAULT_MODES,
        default=default["default_mode"],
        help="mode of requests that ask for none",
    )
    group.add_argument(
        "--think-threshold",
        type=float,
        default=default["think_threshold"],
        metavar="P",
        help="think where the model's P(think) is at least this; 0 always thinks, 1 never",
    )
    group.add_argument(
        "--max-concurrent-requests",
        type=int,
        default=default["max_concurrent_requests"],
        metavar="N",
        help="requests beyond this many get 503",
    )
    group.add_argument(
        "--shutdown-grace-s",
        type=float,
        default=default["shutdown_grace_s"],
        metavar="S",
        help="seconds that running requests get to finish at shutdown",
    )


def _add_engine_arguments(group: argparse._ArgumentGroup) -> None:
    default = {f.name: f.default for f in fields(VllmOptions)}
    group.add_argument("--max-model-len", type=int, metavar="N", help="context in tokens; default: the checkpoint's")
    group.add_argument(
        "--max-num-seqs", type=int, default=default["max_num_seqs"], metavar="N", help="sequences in one engine step"
    )
    group.add_argument(
        "--cpu-kv-cache-bytes",
        type=int,
        default=default["cpu_kv_cache_bytes"],
        metavar="N",
        help="memory of the KV cache on CPU",
    )
    group.add_argument(
        "--execution",
        choices=EXECUTIONS,
        default=default["execution"],
        help="eager starts faster, compiled runs faster and on CPU needs a C++ compiler; auto: eager on CPU",
    )
