"""How much of one processor the load test itself needs: many streams from a server that only plays a recording.

``python -m bench.driver_share --out DIR``: driver and server are pinned to different processors where there are two.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from lhrm_loadtest.arms import Arm
from lhrm_loadtest.plan import Step
from lhrm_loadtest.prompts import Prompt, Turn
from lhrm_loadtest.report import read_report
from lhrm_loadtest.run_info import Settings
from lhrm_loadtest.session import About, begin
from lhrm_loadtest.summary import Summary
from lhrm_loadtest.values import joined

from bench.servers import ROOT, process

PROMPT_CHARACTERS = 400


def measure(out: Path, streams: int, requests: int, tokens: int, gap_ms: float) -> Summary:
    """Ask `requests` prompts, `streams` at a time, for `tokens` events each, `gap_ms` apart."""
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "bench.canned"]
    with process("canned", lambda port: [*command, str(port), str(tokens), str(gap_ms)], out) as (url, pid):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) > 1:
            os.sched_setaffinity(pid, {cores[1]})
            os.sched_setaffinity(0, {cores[0]})
        settings = Settings(
            arms=(Arm(name="plain", mode="plain", url=url),),
            baseline="plain",
            steps=(Step(concurrency=streams, requests=requests),),
            layout="blocks",
            warmup=streams,
        )
        turn = Turn(role="user", content="x" * PROMPT_CHARACTERS)
        prompts = [Prompt(id=str(i), messages=(turn,)) for i in range(requests)]
        try:
            begin(out / "run", settings, prompts, About("bench.driver_share", "canned"))
        finally:
            os.sched_setaffinity(0, set(cores))
    return read_report(out / "run").summary


def main(arguments: list[str] | None = None) -> int:
    """Measure and print one line: the share of a processor, what was held, and what a token costs."""
    parser = argparse.ArgumentParser(prog="bench.driver_share", description="The load test's own need of processor.")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-driver")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--requests", type=int, default=640)
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--gap-ms", type=float, default=15.0, help="between tokens; 15 is 4,000 tokens/s at 64 streams")
    options = parser.parse_args(arguments)
    summary = measure(options.out, options.streams, options.requests, options.tokens, options.gap_ms)
    step = summary.steps[0]
    per_token_us = None
    if step.tokens_per_s:
        per_token_us = 1e6 * summary.driver.busiest_share / step.tokens_per_s
    values = {
        "streams": options.streams,
        "driver_cpu_share": summary.driver.busiest_share,
        "tokens_per_s": step.tokens_per_s,
        "cpu_us_per_token": per_token_us,
        "asked_gap_ms": options.gap_ms,
        "total_mean_ms": step.total_mean_ms,
        "errors": step.errors,
    }
    print(joined(values))
    return 0


if __name__ == "__main__":
    sys.exit(main())
