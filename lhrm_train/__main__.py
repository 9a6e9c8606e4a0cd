"""The ``lhrm-train`` command."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from lhrm_train.config import ConfigError, RunConfig, load_config

# Without these, glibc returns freed tensors to the kernel and page faults take most of a CPU run.
ALLOCATOR = "glibc.malloc.mmap_threshold=2147483648:glibc.malloc.trim_threshold=8589934592:glibc.malloc.mmap_max=0"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lhrm-train", description="Train and evaluate LHRM checkpoints.")
    commands = parser.add_subparsers(dest="command", required=True)
    nano = commands.add_parser("nano", help="train the nano from nothing: base, HFT, HGPO, evaluation")
    nano.add_argument("--out", type=Path, default=Path("runs/nano"), help="run directory; an unfinished run resumes")
    nano.add_argument("--hft", type=Path, help="start from this HFT checkpoint")
    check = commands.add_parser("eval-nano", help="evaluate a nano checkpoint on the test split")
    check.add_argument("--model", type=Path, default=Path("models/lhrm-nano"), help="checkpoint directory")
    check.add_argument("--out", type=Path, default=Path("runs/eval-nano"), help="raw rows, report and plot")
    publish = commands.add_parser("publish", help="choose the best run on validation and write it with its card")
    publish.add_argument("runs", type=Path, nargs="+", help="finished run directories")
    publish.add_argument("--into", type=Path, default=Path("models/lhrm-nano"), help="target directory")
    prompts = commands.add_parser("prompts", help="write test prompts for the load test")
    prompts.add_argument("--count", type=int, default=50)
    prompts.add_argument("--out", type=Path, required=True, help="JSON lines file")
    for command in (nano, check, publish):
        command.add_argument("--config", type=Path, help="TOML file with the run's settings")
        command.add_argument("--set", action="append", default=[], metavar="A.B=VALUE", help="override one setting")
    return parser


def _tune_process(threads: int) -> None:
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = ALLOCATOR
        os.execv(sys.executable, [sys.executable, "-m", "lhrm_train", *sys.argv[1:]])
    import torch

    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    os.environ.setdefault("HF_HUB_OFFLINE", "1")


def _run(arguments: argparse.Namespace, config: RunConfig) -> str:
    from lhrm_train.pipeline import evaluate_run, run_nano, write_report
    from lhrm_train.publish import publish

    if arguments.command == "nano":
        return run_nano(arguments.out, config, arguments.hft)
    if arguments.command == "eval-nano":
        evaluate_run(arguments.model, arguments.out, config.eval)
        return write_report(arguments.out, config.eval)
    return publish(arguments.runs, arguments.into, config)


def main() -> int:
    """Run the command line; returns the exit status."""
    arguments = _parser().parse_args()
    if arguments.command == "prompts":
        from lhrm_train.suite.export import write_prompts

        write_prompts(arguments.out, arguments.count)
        return 0
    try:
        config = load_config(arguments.config, arguments.set)
    except ConfigError as exc:
        print(f"lhrm-train: {exc}", file=sys.stderr)
        return 2
    try:
        import torch  # noqa: F401
    except ImportError:
        print("lhrm-train: torch is missing; install the extra: pip install 'lhrm[train]'", file=sys.stderr)
        return 1
    _tune_process(config.threads)
    print(_run(arguments, config))
    return 0


if __name__ == "__main__":
    sys.exit(main())
