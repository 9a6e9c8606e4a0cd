"""The command line of the load test: run or resume a test, report on one again, hold two against each other."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterable, Sequence

from .compare import LIMITS, Side, changes_grid, compare, parse_limit, unlike
from .errors import LoadTestError
from .options import parser, price_of, settings_of
from .report import PAGE_NAME, REPORT_NAME, print_grid, print_tables, read_report, write_report
from .run_info import RUN_NAME
from .session import About, begin, resume
from .sources import read_source
from .terminal import console
from .values import value_line

OK, FAILED, REGRESSED, STOPPED = 0, 1, 3, 130


def execute(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status.

    1: nothing could be run or compared, or no pair is complete; 3: a comparison is past a limit or lacks a figure; 130:
    stopped.
    """
    args = parser().parse_args(arguments)
    try:
        if args.command == "compare":
            return _compare(args)
        if args.command == "run":
            _run(args, shlex.join(["lhrm-loadtest", *arguments]))
        elif args.command == "resume":
            resume(args.directory, args.retry_errors)
        return _report(args)
    except LoadTestError as exc:
        print(f"lhrm-loadtest: {exc}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        _say_how_to_go_on(args)
        return STOPPED


def _run(args: argparse.Namespace, command: str) -> None:
    prompts = read_source(args.prompts, args.n, args.seed)
    begin(args.directory, settings_of(args, prompts), prompts, About(command, args.prompts, args.note))


def _report(args: argparse.Namespace) -> int:
    report = read_report(args.directory, args.slo, price_of(args))
    write_report(args.directory, report)
    print_tables(report.summary, console())
    _warn(report.caveats)
    print(f"report: {args.directory / REPORT_NAME} and {args.directory / PAGE_NAME}")
    print(value_line(report.summary))
    return OK if report.summary.pairs else FAILED


def _compare(args: argparse.Namespace) -> int:
    chosen = dict(map(parse_limit, args.limit))
    reports = [read_report(folder, args.slo, price_of(args)) for folder in (args.before, args.after)]
    before, after = (Side(one.rows, one.summary, next(iter(one.slos), None)) for one in reports)
    changes = compare(before, after, {**LIMITS, **chosen}, chosen)
    if len({one.run.prompts_sha256 for one in reports if one.run is not None}) > 1:
        _warn(["the runs asked different prompts"])
    _warn(unlike(before, after))
    for name, one in zip("AB", reports, strict=True):
        _warn(f"{name}: {caveat}" for caveat in one.caveats)
    print_grid(changes_grid(changes), console())
    regressed = [f"{one.arm}.{one.figure}" for one in changes if one.regressed]
    print(f"regressions={len(regressed)} {' '.join(regressed)}".rstrip())
    return REGRESSED if regressed else OK


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        print(f"lhrm-loadtest: warning: {warning}", file=sys.stderr)


def _say_how_to_go_on(args: argparse.Namespace) -> None:
    where = getattr(args, "directory", None)
    if where is not None and args.command == "run" and not (where / RUN_NAME).is_file():
        print(f"lhrm-loadtest: stopped before the first request; there is no run in {where}", file=sys.stderr)
    elif where is not None:
        print(
            f"lhrm-loadtest: stopped; rows so far are in {where}; lhrm-loadtest resume {where} goes on", file=sys.stderr
        )
