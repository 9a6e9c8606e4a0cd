"""The same plan with three load tests: ours, ``vllm bench serve`` and AIPerf.

``python -m bench.judges --out DIR``: what they count on the nano's gateway, then, in turn and several times, the times
they measure against a server that plays a recording, with that server and the judge on different processors. AIPerf is
installed below DIR in an environment of its own. All raw results are kept; the same command goes on where a stopped one
ended.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from lhrm_loadtest.errors import LoadTestError
from lhrm_loadtest.estimate import quantile
from lhrm_loadtest.sources import SUITE, read_source
from pydantic import ValidationError

from bench.aiperf_install import REQUIREMENT, installed, named
from bench.driver import MAX_TOKENS
from bench.judge_kinds import JUDGES, PROMPTS_NAME, TEXTS_NAME, VLLM_CODE, Asked
from bench.judge_process import run_watched
from bench.judge_report import Result, counts_table, key_line, times_table
from bench.servers import MODEL, ROOT, gateway, process

PLAN_NAME, RESULT_NAME, SERVER_NAME = "plan.json", "judge.json", "server-ms.txt"
COUNTS, TIMES = "counts", "times"
CANNED = "canned"
LIMIT_S = 1800.0
SEED = 70_003
OURS, VLLM = [sys.executable, "-m", "lhrm_loadtest"], [sys.executable, "-c", VLLM_CODE]
# Two in three of the suite's questions have no earlier turns, and few come twice.
POOL = 3

Programs = Mapping[str, Callable[[], list[str]]]


@dataclass(frozen=True)
class Plan:
    """What every judge asks, and what the recording plays: `tokens` of them, `gap_ms` apart."""

    requests: int
    streams: int
    warmup: int
    tokens: int
    gap_ms: float
    pinned: bool

    def asked(self, url: str, model: str, prompts: Path) -> Asked:
        """Return what a judge is told."""
        return Asked(url, model, prompts, self.requests, self.streams, self.warmup, MAX_TOKENS)


@dataclass(frozen=True)
class Part:
    """One judge once; `repeat` is None where it counts on the gateway."""

    judge: str
    repeat: int | None

    def folder(self, out: Path) -> Path:
        """Return where its results are kept."""
        return out / (COUNTS if self.repeat is None else f"{TIMES}-{self.repeat}") / self.judge


def parts(repeats: int) -> Iterator[Part]:
    """Yield the parts in their order; who goes first changes from repeat to repeat."""
    names = list(JUDGES)
    yield from (Part(name, None) for name in names)
    for repeat in range(repeats):
        first = repeat % len(names)
        yield from (Part(name, repeat) for name in [*names[first:], *names[:first]])


def questions(count: int) -> list[str]:
    """Return different suite questions without earlier turns. Raises LoadTestError."""
    asked = (prompt.messages for prompt in read_source(SUITE, POOL * count, SEED))
    alone = dict.fromkeys(turns[0].content for turns in asked if len(turns) == 1)
    if len(alone) < count:
        raise LoadTestError(f"requests = {count}: the suite gave {len(alone)} different questions")
    return list(alone)[:count]


def prepare(out: Path, plan: Plan) -> None:
    """Write the prompts and the plan. Raises LoadTestError where `out` has the results of another one."""
    path, told = out / PLAN_NAME, json.dumps(asdict(plan)) + "\n"
    if path.is_file() and path.read_text(encoding="utf-8") != told:
        raise LoadTestError(f"{out} was begun with another plan; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    asked = questions(plan.requests)
    for name, field in ((PROMPTS_NAME, "prompt"), (TEXTS_NAME, "text")):
        lines = [json.dumps({field: question}) + "\n" for question in asked]
        (out / name).write_text("".join(lines), encoding="utf-8")
    path.write_text(told, encoding="utf-8")


def measure(out: Path, plan: Plan, repeats: int, programs: Programs) -> None:
    """Run the parts that have no result yet. Raises LoadTestError, and SystemExit where a server does not start."""
    prepare(out, plan)
    todo = [part for part in parts(repeats) if not (part.folder(out) / RESULT_NAME).is_file()]
    commands = {name: programs[name]() for name in {part.judge for part in todo}}
    counts = [part for part in todo if part.repeat is None]
    if counts:
        with gateway(out) as server:
            for part in counts:
                _run(part, out, commands[part.judge], plan.asked(server.url, MODEL, out))
    for part in todo:
        if part.repeat is not None:
            _time(part, out, commands[part.judge], plan)


def _time(part: Part, out: Path, command: Sequence[str], plan: Plan) -> None:
    folder = part.folder(out).with_name(f"{part.judge}-server")
    folder.mkdir(parents=True, exist_ok=True)
    noted = folder / SERVER_NAME
    play = [sys.executable, "-m", "bench.canned"]
    told = [str(plan.tokens), str(plan.gap_ms), str(noted)]
    with process(CANNED, lambda port: [*play, str(port), *told], folder) as (url, pid), _apart(pid, plan.pinned):
        _run(part, out, command, plan.asked(url, CANNED, out), noted)


def _run(part: Part, out: Path, command: Sequence[str], asked: Asked, noted: Path | None = None) -> None:
    """Run one judge and keep its result; what a stopped one left is removed. Raises LoadTestError."""
    folder, judge = part.folder(out), JUDGES[part.judge]
    print(f"bench.judges: {folder.relative_to(out)}", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    called = [*command, *judge.options(asked, folder)]
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "HF_HUB_OFFLINE")}
    usage = run_watched(judge.title, called, folder, {**kept, **judge.environment(folder)}, LIMIT_S)
    measured = judge.measured(folder)
    result = Result(
        measured=measured,
        cpu_share=usage.share(measured.began_s, measured.ended_s),
        cpu_s=usage.total_s,
        server_ms=_server_ms(noted, asked.requests) if noted else None,
        command=tuple(called),
    )
    unfinished = folder / f".{RESULT_NAME}"
    unfinished.write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")
    unfinished.replace(folder / RESULT_NAME)


def _server_ms(noted: Path, requests: int) -> tuple[float, float] | None:
    """Return p50 and p95 of the last `requests` answers, which are the measured ones."""
    values = [float(line) for line in noted.read_text(encoding="utf-8").splitlines()][-requests:]
    p50, p95 = quantile(values, 0.5), quantile(values, 0.95)
    return None if p50 is None or p95 is None else (p50, p95)


@contextmanager
def _apart(server: int, pinned: bool) -> Iterator[None]:
    """Give a server the last processor and this process, with all that it starts, the others, where there are two."""
    cores = sorted(os.sched_getaffinity(0))
    if not pinned or len(cores) == 1:
        yield
        return
    os.sched_setaffinity(server, cores[-1:])
    os.sched_setaffinity(0, cores[:-1])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def report(out: Path, repeats: int) -> str:
    """Return the tables and the line of key figures. Raises LoadTestError."""
    results = {part: _read(part.folder(out) / RESULT_NAME) for part in parts(repeats)}
    counts = {name: results[Part(name, None)] for name in JUDGES}
    times = {name: [results[Part(name, repeat)] for repeat in range(repeats)] for name in JUDGES}
    return "\n\n".join([counts_table(counts), times_table(times), key_line(counts, times)])


def _read(path: Path) -> Result:
    try:
        return Result.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as exc:
        raise LoadTestError(f"{path} cannot be read; without it that part is run again") from exc


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="bench.judges", description="The same plan with three load tests.")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-judges")
    parser.add_argument("--aiperf", metavar="PATH", help=f"an executable; else {REQUIREMENT} is installed in --out")
    parser.add_argument("--repeats", type=_count, default=3, help="of the times, the judges in turn")
    parser.add_argument("--requests", type=_count, default=256, help="different suite questions, all measured")
    parser.add_argument("--streams", type=_count, default=8, help="requests at a time")
    parser.add_argument("--warmup", type=_count, default=8, help="unmeasured requests before")
    parser.add_argument("--tokens", type=_count, default=30, help="of the recording")
    parser.add_argument("--gap-ms", type=float, default=20.0, help="between its tokens")
    parser.add_argument("--unpinned", action="store_true", help="leave the processors to the system")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a count from 1 on")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing and print two tables; the last line has the figures that count."""
    options = parse(arguments)
    out: Path = options.out.resolve()
    plan = Plan(options.requests, options.streams, options.warmup, options.tokens, options.gap_ms, not options.unpinned)
    programs: Programs = {
        "lhrm": lambda: OURS,
        "vllm": lambda: VLLM,
        "aiperf": lambda: [named(options.aiperf) if options.aiperf else installed(out)],
    }
    try:
        measure(out, plan, options.repeats, programs)
        text = report(out, options.repeats)
    except LoadTestError as exc:
        print(f"bench.judges: {exc}", file=sys.stderr)
        return 1
    (out / "report.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
