"""The ``lhrm-train`` command."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from lhrm_train.arguments import at_least_one
from lhrm_train.config import ConfigError, RunConfig, load_config, recipe_names
from lhrm_train.suite.mix import KINDS

INTERRUPTED = 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lhrm-train", description="Train and evaluate LHRM checkpoints.")
    commands = parser.add_subparsers(dest="command", required=True)

    init = commands.add_parser("init", help="make any causal LM hybrid-ready: tags, chat template, lhrm.json")
    init.add_argument("--base", required=True, help="directory, GGUF file or hub name")
    init.add_argument("--out", type=Path, required=True, help="directory of the new checkpoint")
    init.add_argument("--name", help="name of the model; default: the last part of --out")
    init.add_argument("--seed", type=int, default=0, help="of the noise on the new embeddings")
    init.add_argument("--overwrite", action="store_true", help="replace a checkpoint that is in --out")

    run = commands.add_parser("run", help="base, HFT, HGPO, evaluation; an unfinished run goes on")
    run.add_argument("config", help=f"TOML file, or a recipe: {', '.join(recipe_names())}")
    run.add_argument("--out", type=Path, help="run directory; default: runs/NAME")
    run.add_argument("--hft", type=Path, help="start HGPO from this HFT checkpoint")
    run.add_argument("--dry-run", action="store_true", help="build everything, print estimates, train nothing")

    check = commands.add_parser("eval", help="accuracy, tokens and Hybrid Accuracy of a checkpoint or a server")
    what = check.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", type=Path, help="checkpoint directory")
    what.add_argument("--url", help="base URL of a running server; its key, if any, from LHRM_API_KEY")
    check.add_argument("--data", required=True, help="suite, a JSON lines file, or gym:NAME of reasoning-gym")
    check.add_argument("--out", type=Path, required=True, help="raw rows, report and plots; goes on if stopped")
    check.add_argument("--config", help="TOML file or recipe; what it leaves out is as in the run that made the model")
    check.add_argument(
        "--calibrate",
        action="store_true",
        help="write the savings calibration into the checkpoint, from a quarter of the questions held out for it",
    )

    publish = commands.add_parser("publish", help="choose the best suite run on validation and write it with its card")
    publish.add_argument("runs", type=Path, nargs="+", help="finished run directories")
    publish.add_argument("--into", type=Path, default=Path("models/lhrm-nano"), help="target directory")
    publish.add_argument("--add", action="store_true", help="beside the runs that --into lists already")
    publish.add_argument("--config", help="TOML file or recipe with the settings")

    prompts = commands.add_parser("prompts", help="write test prompts of the suite for the load test")
    prompts.add_argument("--count", type=at_least_one, default=50)
    prompts.add_argument("--kind", choices=sorted(KINDS), help="questions of this kind alone; default: the workload")
    prompts.add_argument("--out", type=Path, required=True, help="JSON lines file")
    for command in (run, check, publish):
        command.add_argument("--set", action="append", default=[], metavar="A.B=VALUE", help="override one setting")
    return parser


def _tune_process(arguments: argparse.Namespace, config: RunConfig) -> None:
    from lhrm_train.allocator import LARGE_VOCABULARY, has_large_vocabulary, set_allocator

    read = getattr(arguments, "model", None) or getattr(arguments, "hft", None) or config.base.path
    random_base = arguments.command == "run" and not read
    large = config.base.vocab_size >= LARGE_VOCABULARY if random_base else has_large_vocabulary(Path(read or ""))
    set_allocator("lhrm_train", large_vocabulary=large)
    import torch

    torch.set_num_threads(config.threads or len(os.sched_getaffinity(0)))


def _config(arguments: argparse.Namespace) -> RunConfig:
    source, overrides = getattr(arguments, "config", None), getattr(arguments, "set", [])
    if arguments.command == "eval" and arguments.model is not None:
        from lhrm_train.manifest_settings import config_for

        return config_for(arguments.model, source, overrides)
    return load_config(source, overrides)


def _run(arguments: argparse.Namespace, config: RunConfig) -> str:
    if arguments.command == "init":
        from lhrm_train.init import init_base

        made = init_base(arguments.base, arguments.out, arguments.name, arguments.seed, overwrite=arguments.overwrite)
        return f"checkpoint={made}"
    if arguments.command == "run":
        from lhrm_train.dry_run import dry_run
        from lhrm_train.pipeline import run

        if arguments.dry_run:
            return dry_run(config, arguments.hft)
        return run(arguments.out or Path("runs") / config.base.name, config, arguments.hft)
    if arguments.command == "eval":
        from lhrm_train.evaluation import run_evaluation

        key = os.environ.get("LHRM_API_KEY")
        what = arguments.model, arguments.url, arguments.data, arguments.out
        return run_evaluation(*what, config, key, calibrating=arguments.calibrate)
    from lhrm_train.publish import publish

    return publish(arguments.runs, arguments.into, config, adding=arguments.add)


def _prompts(arguments: argparse.Namespace) -> str | int:
    from lhrm_train.suite.export import write_prompts

    try:
        write_prompts(arguments.out, arguments.count, arguments.kind)
    except ValueError as exc:
        return _fail(1, exc)
    return f"prompts={arguments.count}"


def _fail(status: int, error: BaseException | str) -> int:
    """Say on one line of stderr what went wrong, whatever lines the message has, and return `status`."""
    print(f"lhrm-train: {' '.join(str(error).split())}", file=sys.stderr)
    return status


def _trained(arguments: argparse.Namespace) -> str | int:
    """Do what needs torch; returns what to print, or the exit status of a failure."""
    try:
        from lhrm_train.format import FormatError

        config = _config(arguments)
        import torch  # noqa: F401
    except ConfigError as exc:
        return _fail(2, exc)
    except ImportError as exc:
        return _fail(1, f"{exc.name} is missing; install the extra: pip install 'lhrm[train]'")
    except FormatError as exc:
        return _fail(1, exc)
    _tune_process(arguments, config)
    from lhrm_train.errors import USER_ERRORS
    from lhrm_train.stop import InterruptedRunError

    try:
        return _run(arguments, config)
    except InterruptedRunError as exc:
        return _fail(INTERRUPTED, f"{exc}; the same command goes on from there")
    except USER_ERRORS as exc:
        return _fail(1, exc)


def main() -> int:
    """Run the command line; returns the exit status."""
    arguments = _parser().parse_args()
    try:
        done = _prompts(arguments) if arguments.command == "prompts" else _trained(arguments)
    except KeyboardInterrupt:
        goes_on = "" if arguments.command in ("init", "prompts") else "; the same command goes on"
        return _fail(INTERRUPTED, f"interrupted{goes_on}")
    except OSError as exc:  # a full disk, a directory without permission
        return _fail(1, exc)
    if isinstance(done, int):
        return done
    # Under a launcher of several processes the first one speaks.
    if os.environ.get("RANK", "0") == "0":
        print(done)
    return 0


if __name__ == "__main__":
    sys.exit(main())
