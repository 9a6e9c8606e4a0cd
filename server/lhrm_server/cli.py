"""The command line of ``lhrm-serve``: arguments to one ServeOptions."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

from lhrm_train.format import MANIFEST_NAME
from lhrm_train.shipped_delta import built_from_its_delta, has_delta

from .control import Wish
from .engine_vllm import VllmOptions
from .policy import FORCE_HEADER, ModePolicy
from .settings import MOST_CHOICES, Settings

ENGINES = ("vllm", "fake")
EXECUTIONS = ("auto", "eager", "compiled")
SOURCE_ROOT = Path(__file__).resolve().parents[2]


class ModelNotFoundError(ValueError):
    """The model is neither a directory nor a known short name."""


@dataclass(frozen=True)
class RemoteFlags:
    """Which running `vllm serve` answers; `model` None: the only one it serves."""

    url: str
    model: str | None
    api_key_file: Path | None


@dataclass(frozen=True)
class ServeOptions:
    """What the user asked for; the checkpoint is not read yet, so its own name is not known.

    `policy_flags` are the policy's keys that have a flag, None where it was not given.
    """

    model: str
    name: str | None
    engine: str
    settings: dict[str, Any]
    engine_options: dict[str, Any]
    policy_file: Path | None = None
    policy_flags: dict[str, object] = field(default_factory=dict)
    operator_keys: Path | None = None
    trusted_proxies: str | None = None
    remote: RemoteFlags | None = None


def find_model(model: str, roots: Sequence[Path] | None = None) -> Path:
    """Return the checkpoint directory that `model`, a path or a short name like ``nano``, stands for.

    Raises ModelNotFoundError for an unknown name, and for a model that is still to be built from the delta beside it.
    """
    folders = [root / "models" for root in roots or (Path.cwd(), SOURCE_ROOT)]
    named = [folder / f"lhrm-{model}" for folder in folders if "/" not in model]
    if Path(model).is_dir():
        named = [Path(model)]
    for place in named:
        if (place / MANIFEST_NAME).is_file():
            if has_delta(place) and not built_from_its_delta(place):
                raise ModelNotFoundError(
                    f"model {model!r}: {place} was built from another delta than it holds; {_build(place)}"
                )
            return place
    for place in named:
        if has_delta(place):
            raise ModelNotFoundError(f"model {model!r}: {place} holds a delta and no {MANIFEST_NAME}; {_build(place)}")
    if Path(model).is_dir():
        return Path(model)  # whoever reads it says what it lacks
    found = (path.parent.name for folder in folders for path in folder.glob(f"lhrm-*/{MANIFEST_NAME}"))
    names = sorted({name.removeprefix("lhrm-") for name in found})
    known = f"known short names: {', '.join(names)}" if names else "and no short names are known here"
    raise ModelNotFoundError(f"model {model!r} is not a directory; {known}")


def _build(place: Path) -> str:
    name = place.resolve().name
    made = f"run `make {name.removeprefix('lhrm-')}`" if name.startswith("lhrm-") else "build it (docs/smol.md)"
    return f"{made} first"


def parse_arguments(arguments: Sequence[str] | None) -> ServeOptions:
    """Read the command line; argparse ends the process on errors and on ``--help``."""
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    settings = {f.name: given[f.name] for f in fields(Settings) if f.name in given and f.name != "policy"}
    engine_options = {f.name: given[f.name] for f in fields(VllmOptions) if f.name in given}
    return ServeOptions(
        model=given["model"],
        name=given["name"],
        engine=given["engine"],
        settings=settings,
        engine_options=engine_options,
        policy_file=given["policy"],
        policy_flags={f.name: given[f.name] for f in fields(ModePolicy) if f.name in given},
        operator_keys=given["operator_keys"],
        trusted_proxies=given["trusted_proxies"],
        remote=_remote(parser, given, engine_options),
    )


def _remote(
    parser: argparse.ArgumentParser, given: Mapping[str, Any], engine_options: Mapping[str, Any]
) -> RemoteFlags | None:
    """Return what was said of a remote engine; options that such an engine would not see are an error."""
    if given["engine_url"] is None:
        for name in ("engine_model", "engine_api_key_file"):
            if given[name] is not None:
                parser.error(f"--{name.replace('_', '-')} needs --engine-url")
        return None
    defaults = {f.name: f.default for f in fields(VllmOptions)}
    given_here = [name for name, value in engine_options.items() if value != defaults[name] and name != "max_model_len"]
    if given["engine"] != ENGINES[0]:
        given_here.append("engine")
    if given_here:
        parser.error(f"--{given_here[0].replace('_', '-')} does not go with --engine-url: that engine is started apart")
    return RemoteFlags(given["engine_url"], given["engine_model"], given["engine_api_key_file"])


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say it on one line, as every other mistake of the start."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="lhrm-serve",
        description="Serve a large hybrid-reasoning model over an OpenAI-compatible API.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", default="nano", help="checkpoint directory or short name")
    parser.add_argument("--name", help="model id shown to clients; default: the checkpoint's own name")
    parser.add_argument("--engine", choices=ENGINES, default="vllm", help="fake: scripted answers, no model is loaded")
    _add_remote_arguments(parser.add_argument_group("remote engine"))
    _add_gateway_arguments(parser.add_argument_group("gateway"))
    _add_policy_arguments(parser.add_argument_group("policy"))
    _add_engine_arguments(parser.add_argument_group("engine"))
    return parser


def _add_remote_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--engine-url", metavar="URL", help="use a running `vllm serve` instead of an engine of our own")
    group.add_argument("--engine-model", metavar="NAME", help="the name it serves the model by; default: its only one")
    group.add_argument("--engine-api-key-file", type=Path, metavar="FILE", help="file with the key that it asks for")


def _add_gateway_arguments(group: argparse._ArgumentGroup) -> None:
    default = {f.name: f.default for f in fields(Settings)}
    group.add_argument("--host", default=default["host"], help="address to listen on")
    group.add_argument("--port", type=int, default=default["port"], help="port to listen on; 0 takes a free one")
    group.add_argument(
        "--max-choices",
        type=int,
        default=default["max_choices"],
        metavar="N",
        help=f"choices (n) that one request may ask for, at most {MOST_CHOICES}",
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


def _add_policy_arguments(group: argparse._ArgumentGroup) -> None:
    default = ModePolicy()
    group.add_argument("--policy", type=Path, metavar="FILE.toml", help="the operator's policy of modes and budgets")
    group.add_argument(
        "--default-mode",
        choices=[wish.value for wish in Wish],
        help=f"mode of requests that ask for none; default: the policy's, else {default.default_mode.value}",
    )
    group.add_argument(
        "--think-threshold",
        type=float,
        metavar="P",
        help="think where the model's P(think) is at least this; 0 always thinks, 1 never; "
        f"default: the policy's, else {default.think_threshold}",
    )
    group.add_argument(
        "--operator-keys",
        type=Path,
        metavar="FILE",
        help=f"keys, one in each line, whose bearers may send {FORCE_HEADER}",
    )
    group.add_argument(
        "--trusted-proxies",
        metavar="CIDR[,CIDR]",
        help=f"networks whose connections may send {FORCE_HEADER}; such a proxy must drop the header of its clients",
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
