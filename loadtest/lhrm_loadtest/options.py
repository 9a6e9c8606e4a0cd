"""The command line's options, and what they make of a run."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from .arms import DEFAULT_URL, described_arm, named_arms, pick_baseline
from .errors import LoadTestError, describe
from .figures import Price
from .plan import Layout, Step
from .prompts import DEFAULT_PROMPTS, Prompt
from .run_info import Settings

ROUNDS = 4  # requests per stream that a step of a ramp makes at least: fewer never fill the load
DEFAULT_CONCURRENCY = 4


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command."""
    top = argparse.ArgumentParser(
        prog="lhrm-loadtest",
        description="What adaptive thinking saves, measured against always-think on the same prompts.",
    )
    commands = top.add_subparsers(dest="command", required=True)
    load = commands.add_parser("run", help="ask every prompt in every arm and report")
    _add_arms(load)
    _add_prompts(load)
    _add_load(load)
    _add_reading(load)
    resumed = commands.add_parser("resume", help="make the requests that a stopped run did not, and report")
    resumed.add_argument("directory", type=Path, metavar="DIR")
    resumed.add_argument("--retry-errors", action="store_true", help="make those that failed again, too")
    _add_reading(resumed)
    report = commands.add_parser("report", help="compute the report of a run again from its rows")
    report.add_argument("directory", type=Path, metavar="DIR")
    _add_reading(report)
    against = commands.add_parser("compare", help="hold run B against run A; status 3 where B got worse past a limit")
    against.add_argument("before", type=Path, metavar="A")
    against.add_argument("after", type=Path, metavar="B")
    against.add_argument(
        "--limit", action="append", default=[], metavar="FIGURE=N", help="how much worse is allowed, 0.02 or 10%%"
    )
    _add_reading(against)
    return top


def _add_arms(load: argparse.ArgumentParser) -> None:
    load.add_argument(
        "--arms",
        metavar="NAMES",
        help="of auto, think, no_think, plain and auto@THRESHOLD; default: auto,think,no_think, "
        "and with --arm none unless named",
    )
    load.add_argument(
        "--arm",
        action="append",
        default=[],
        metavar="NAME,KEY=VALUE",
        help="another model or endpoint: url, model, mode, threshold, extra (JSON), answer_after, key_variable",
    )
    load.add_argument("--baseline", metavar="NAME", help="what arms are compared with; default: the first that thinks")
    load.add_argument(
        "--base-url",
        default=DEFAULT_URL,
        help="of every arm that names no url; default: %(default)s; LHRM_API_KEY is the key",
    )
    load.add_argument("--model", default="", help="of the arms in --arms; default: the first the server lists")


def _add_prompts(load: argparse.ArgumentParser) -> None:
    load.add_argument(
        "--out",
        dest="directory",
        type=Path,
        default=Path("out") / f"loadtest-{datetime.now(UTC):%Y%m%dT%H%M%SZ}",
        metavar="DIR",
        help="for rows and report; default: out/loadtest-TIME",
    )
    load.add_argument(
        "--prompts",
        default=str(DEFAULT_PROMPTS),
        metavar="SOURCE",
        help="a JSONL file, nano, or gym:NAME,NAME; default: the shipped set",
    )
    load.add_argument("--n", type=int, help="prompts to draw; default: all of a file, 500 of anything generated")
    load.add_argument("--max-tokens", type=int, help="cap in every arm; default: the server's")
    load.add_argument("--temperature", type=float, help="in every arm; default: the server's")
    load.add_argument("--seed", type=int, default=0, help="of prompts, order, arrivals and sampling")
    load.add_argument("--note", help="kept with the run, for example the commit")


def _add_load(load: argparse.ArgumentParser) -> None:
    shape = load.add_mutually_exclusive_group()
    shape.add_argument(
        "--concurrency",
        type=_numbers(int),
        metavar="N[,N...]",
        help=f"closed loop: requests at a time; several are a ramp; default: {DEFAULT_CONCURRENCY}",
    )
    shape.add_argument(
        "--rate", type=_numbers(float), metavar="R[,R...]", help="open loop: Poisson arrivals per second, or a ramp"
    )
    shape.add_argument("--trace", action="store_true", help="open loop: each prompt arrives at its arrival_s")
    load.add_argument(
        "--per-step", type=int, metavar="N", help="prompts that each step asks in each arm; default: all of them"
    )
    load.add_argument(
        "--layout",
        choices=("mixed", "blocks"),
        help="mixed: all arms at the same time; blocks: each arm alone in turn; default: mixed for one closed-loop "
        "load, else blocks",
    )
    load.add_argument("--repeats", type=int, default=1, help="times the whole is done; default: %(default)s")
    load.add_argument(
        "--warmup", type=int, default=2, help="prompts of each block that are not measured; default: %(default)s"
    )
    load.add_argument(
        "--timeout", type=float, default=600.0, help="seconds without a byte that fail a request; default: %(default)s"
    )


def _add_reading(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--slo", action="append", default=[], metavar="POINT<=MS", help="first_token, first_answer or total; repeatable"
    )
    command.add_argument("--price-prompt", type=float, metavar="P", help="money per million prompt tokens")
    command.add_argument("--price-completion", type=float, metavar="P", help="money per million completion tokens")


def _numbers(kind: Callable[[str], float]) -> Callable[[str], list[float]]:
    def read(text: str) -> list[float]:
        try:
            return [kind(part) for part in text.split(",")]
        except ValueError as exc:
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers") from exc

    return read


def settings_of(args: argparse.Namespace, prompts: list[Prompt]) -> Settings:
    """Return the settings that the options of ``run`` describe. Raises LoadTestError naming what is wrong."""
    names = args.arms if args.arms is not None else ("" if args.arm else "auto,think,no_think")
    arms = [*named_arms(names, args.base_url, args.model), *(described_arm(text, args.base_url) for text in args.arm)]
    try:
        steps = _steps(args, len(prompts))
        layout: Layout = args.layout or ("mixed" if len(steps) == 1 and steps[0].concurrency else "blocks")
        return Settings(
            arms=tuple(arms),
            baseline=pick_baseline(arms, args.baseline),
            steps=tuple(steps),
            layout=layout,
            repeats=args.repeats,
            warmup=args.warmup,
            seed=args.seed,
            max_tokens=args.max_tokens,
            temperature=args.temperature,
            timeout_s=args.timeout,
            slos=tuple(args.slo),
            price=price_of(args),
        )
    except ValidationError as exc:
        raise LoadTestError(describe(exc)) from exc


def _steps(args: argparse.Namespace, prompts: int) -> list[Step]:
    if args.trace:
        return [Step(requests=prompts)]
    wanted = prompts if args.per_step is None else args.per_step
    if args.rate:
        return [Step(rate=rate, requests=wanted) for rate in args.rate]
    several = args.concurrency or [DEFAULT_CONCURRENCY]
    if len(several) == 1:
        return [Step(concurrency=several[0], requests=wanted)]
    return [Step(concurrency=one, requests=max(wanted, ROUNDS * one)) for one in several]


def price_of(args: argparse.Namespace) -> Price | None:
    """Return the price that is given; a half of it alone is 0 for the other. Raises LoadTestError."""
    prompt, completion = args.price_prompt, args.price_completion
    if prompt is None and completion is None:
        return None
    for name, value in (("price-prompt", prompt), ("price-completion", completion)):
        if value is not None and not 0 <= value < float("inf"):
            raise LoadTestError(f"{name} = {value}: not a price")
    return Price(prompt or 0.0, completion or 0.0)
