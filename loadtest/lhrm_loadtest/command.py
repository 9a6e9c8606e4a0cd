"""The command line of the load test: run a paired test, or report on one again."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from lhrm_client import LHRM, LHRMError
from pydantic import JsonValue
from rich.console import Console
from rich.progress import Progress

from .report import REPORT_NAME, print_tables, value_line, write_report
from .rows import RUN_NAME, Row, RowWriter, RunInfo
from .runner import Load, run
from .workload import DEFAULT_PROMPTS, Job, LoadTestError, load_prompts, plan

DEFAULT_BASE_URL = "http://127.0.0.1:8000"


def execute(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status: 1 when no pair is complete or nothing could run."""
    args = _parser().parse_args(arguments)
    try:
        if args.command == "run":
            _run(args, shlex.join(["lhrm-loadtest", *arguments]))
        summary = write_report(args.directory)
    except (LoadTestError, LHRMError) as exc:
        print(f"lhrm-loadtest: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"lhrm-loadtest: stopped; rows so far are in {args.directory}", file=sys.stderr)
        return 130
    print_tables(summary, Console())
    print(f"report: {args.directory / REPORT_NAME}")
    print(value_line(summary))
    return 0 if summary.paired.pairs else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lhrm-loadtest",
        description="What adaptive thinking saves, measured against always-think on the same prompts.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    report = commands.add_parser("report", help="compute the report of a run again from its rows")
    report.add_argument("directory", type=Path, metavar="DIR")
    load = commands.add_parser("run", help="ask every prompt in both arms")
    load.add_argument(
        "--out",
        dest="directory",
        type=Path,
        default=Path("out") / f"loadtest-{datetime.now(UTC):%Y%m%dT%H%M%SZ}",
        metavar="DIR",
        help="for rows and report; default: out/loadtest-TIME",
    )
    load.add_argument(
        "--base-url", default=DEFAULT_BASE_URL, help="default: %(default)s; LHRM_API_KEY is sent as the key"
    )
    load.add_argument(
        "--prompts", type=Path, default=DEFAULT_PROMPTS, metavar="FILE.jsonl", help="default: the shipped set"
    )
    load.add_argument("--n", type=int, help="prompts to draw; default: all")
    load.add_argument(
        "--repeats", type=int, default=1, help="times each prompt is asked in each arm; default: %(default)s"
    )
    load.add_argument("--concurrency", type=_at_least(1), default=4, help="requests at a time; default: %(default)s")
    load.add_argument("--warmup", type=_at_least(0), default=2, help="requests before measuring; default: %(default)s")
    load.add_argument("--seed", type=int, default=0, help="of order and sampling; default: %(default)s")
    load.add_argument("--model", help="default: the first the server lists")
    load.add_argument("--threshold", type=float, help="auto thinks when P(think) reaches this; default: the server's")
    load.add_argument("--max-tokens", type=int, help="cap in both arms; default: the server's")
    load.add_argument("--temperature", type=float, help="in both arms; default: the checkpoint's")
    load.add_argument(
        "--timeout", type=float, default=600.0, help="seconds without a byte that fail a request; default: %(default)s"
    )
    load.add_argument("--note", help="kept with the run, for example the commit")
    return parser


def _at_least(low: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        value = int(text)
        if value < low:
            raise argparse.ArgumentTypeError(f"{value} is less than {low}")
        return value

    return integer


def _first_model(client: LHRM) -> str:
    models = client.models()
    if not models:
        raise LoadTestError("the server lists no model; pass --model")
    return models[0].id


def _run(args: argparse.Namespace, command: str) -> None:
    jobs = plan(load_prompts(args.prompts), args.n, args.repeats, args.seed)
    api_key = os.environ.get("LHRM_API_KEY")
    with LHRM(args.base_url, api_key) as client:
        model = args.model or _first_model(client)
        server = client.version()
    load = Load(
        base_url=args.base_url,
        api_key=api_key,
        model=model,
        concurrency=args.concurrency,
        warmup=args.warmup,
        timeout_s=args.timeout,
        think_threshold=args.threshold,
        max_tokens=args.max_tokens,
        temperature=args.temperature,
    )
    with RowWriter(args.directory) as writer:
        info = _run_info(args, command, model, server, jobs)
        (args.directory / RUN_NAME).write_text(info.model_dump_json(indent=1) + "\n", encoding="utf-8")
        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task("requests", total=len(jobs))

            def on_row(row: Row) -> None:
                writer.write(row)
                progress.advance(task)

            asyncio.run(run(load, jobs, on_row))


def _run_info(
    args: argparse.Namespace, command: str, model: str, server: dict[str, JsonValue], jobs: Sequence[Job]
) -> RunInfo:
    return RunInfo(
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        base_url=args.base_url,
        model=model,
        server=server,
        prompts=args.prompts.name,
        prompts_sha256=hashlib.sha256(args.prompts.read_bytes()).hexdigest(),
        n=len({job.prompt.id for job in jobs}),
        repeats=args.repeats,
        concurrency=args.concurrency,
        seed=args.seed,
        think_threshold=args.threshold,
        max_tokens=args.max_tokens,
        temperature=args.temperature,
        client_version=version("lhrm"),
        machine=f"{platform.platform()}, {os.cpu_count()} CPUs",
        python=platform.python_version(),
        note=args.note,
    )
