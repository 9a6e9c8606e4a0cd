"""What adaptive thinking saves on the nano's mixed workload, against always-think on the same server and prompts.

``python -m bench.savings --out DIR``: starts the gateway, measures always-think alone at one stream, fixes the SLOs at
multiples of its p95 first-answer time, then asks other prompts in every mode at every load, each mode alone. All rows
are kept; the same command goes on where a stopped one ended.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from lhrm_loadtest.arms import Arm, Asked
from lhrm_loadtest.errors import LoadTestError
from lhrm_loadtest.figures import latency_quantiles
from lhrm_loadtest.load import SHARES, GoodputRatio
from lhrm_loadtest.plan import Step
from lhrm_loadtest.prompts import Prompt, digest
from lhrm_loadtest.report import Report, read_report, write_report
from lhrm_loadtest.rows import read_rows
from lhrm_loadtest.run_info import Settings, read_run
from lhrm_loadtest.session import About, begin, resume
from lhrm_loadtest.sources import SUITE
from lhrm_loadtest.summary import Summary
from lhrm_loadtest.values import Values, bounds, joined

from bench.driver import MAX_TOKENS
from bench.mix import read_prompts
from bench.servers import MODEL, NANO, ROOT, gateway
from lhrm_train.digest import weights_digest

ALONE, RUN, SLO_NAME = "alone", "run", "slo.json"
MODES: tuple[Asked, ...] = ("auto", "think", "no_think")
# The first is the one that counts; the others show how much the figure depends on it.
SLO_FACTORS = (3, 2, 5)
P95 = 2  # the place of .95 among the quantiles
ROUNDS = 8  # requests per stream, at least
SEED, ALONE_SEED = 70_001, 70_002


@dataclass(frozen=True)
class Size:
    """What is measured: prompts alone at one stream; loads, prompts per load and arm, and repeats after that.

    `hard_share` of the prompts are of kinds and levels that need thinking; None is the suite's own mix.
    """

    alone: int
    streams: tuple[int, ...]
    per_step: int
    repeats: int
    warmup: int
    hard_share: float | None = None

    @property
    def steps(self) -> tuple[Step, ...]:
        """The loads."""
        return tuple(Step(concurrency=one, requests=max(self.per_step, ROUNDS * one)) for one in self.streams)

    @property
    def prompts(self) -> int:
        """How many prompts are measured; questions of closed sets come more than once."""
        return self.repeats * sum(step.requests for step in self.steps)


def measure_alone(out: Path, url: str, size: Size) -> None:
    """Measure always-think at one stream. Raises LoadTestError."""
    settings = Settings(
        arms=(_arm("think", url),),
        baseline="think",
        steps=(Step(concurrency=1, requests=size.alone),),
        layout="blocks",
        warmup=size.warmup,
        seed=ALONE_SEED,
        max_tokens=MAX_TOKENS,
    )
    begin_or_resume(out / ALONE, settings, read_prompts(size.alone, ALONE_SEED, size.hard_share))


def fix_slos(out: Path) -> tuple[str, ...]:
    """Return the SLOs that follow from always-think alone, and keep them before anything else is measured."""
    path = out / SLO_NAME
    if not path.is_file():
        rows = [row for row in read_rows(out / ALONE) if not row.warmup and row.error is None]
        p95_ms = latency_quantiles(rows, "first_answer")[P95]
        if p95_ms is None:
            raise LoadTestError(f"{out / ALONE}: no request was answered, so there is no SLO")
        slos = [f"first_answer<={factor * p95_ms:.1f}" for factor in SLO_FACTORS]
        kept = {"always_think_alone_first_answer_p95_ms": p95_ms, "factors": SLO_FACTORS, "slos": slos}
        path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return tuple(json.loads(path.read_text(encoding="utf-8"))["slos"])


def measure_run(out: Path, url: str, size: Size, slos: tuple[str, ...]) -> None:
    """Ask every prompt in every mode. Raises LoadTestError."""
    settings = Settings(
        arms=tuple(_arm(mode, url) for mode in MODES),
        baseline="think",
        steps=size.steps,
        layout="blocks",
        repeats=size.repeats,
        warmup=size.warmup,
        seed=SEED,
        max_tokens=MAX_TOKENS,
        slos=slos,
    )
    begin_or_resume(out / RUN, settings, read_prompts(size.prompts, SEED, size.hard_share))


def _arm(mode: Asked, url: str) -> Arm:
    return Arm(name=mode, mode=mode, url=url, model=MODEL)


def begin_or_resume(directory: Path, settings: Settings, prompts: list[Prompt]) -> None:
    """Make the requests that `directory` lacks; the server may have moved to another port. Raises LoadTestError."""
    info, note = read_run(directory), f"{MODEL}, weights {weights_digest(NANO)}"
    if info is None:
        command = shlex.join(["python", "-m", "bench.savings", *sys.argv[1:]])
        begin(directory, settings, prompts, About(command, SUITE, note))
        return
    same = info.settings.model_copy(update={"arms": settings.arms}) == settings
    if not same or info.prompts_sha256 != digest(prompts) or info.note != note:
        raise LoadTestError(f"{directory} was begun with other settings, prompts or weights; choose another --out")
    resume(directory, arms=settings.arms)


def key_line(report: Report) -> str:
    """Return the figures that count as name=value pairs: shares and ratios; na where one is missing."""
    summary = report.summary
    auto = summary.differences["auto"]
    values: Values = {
        "pairs": auto.pairs,
        "accuracy_auto": summary.arms["auto"].accuracy,
        "accuracy_think": summary.arms["think"].accuracy,
        "accuracy_no_think": summary.arms["no_think"].accuracy,
        **bounds("accuracy_difference", auto.accuracy),
        **bounds("tokens_ratio", auto.ratio),
        **bounds("tokens_ratio_oracle", summary.oracle.ratio if summary.oracle else None),
    }
    for factor, slo in zip(SLO_FACTORS, report.slos, strict=True):
        for share, name in zip(SHARES, ("", "_at_90_pct"), strict=True):
            found = _goodput(summary, str(slo), share)
            values[f"goodput_ratio_{factor}x{name}"] = found.ratio if found else None
        values[f"slo_{factor}x_ms"] = slo.limit_ms
    online = summary.online
    values |= {
        "estimated_saved_tokens": online.estimated_mean if online else None,
        "true_saved_tokens": online.true_mean if online else None,
        **bounds("estimate_bias_tokens", online.bias if online else None),
        "errors": sum(arm.errors for arm in summary.arms.values()),
        "driver_cpu_share": summary.driver.cpu_share,
    }
    return joined(values)


def _goodput(summary: Summary, slo: str, share: float) -> GoodputRatio | None:
    wanted = ("auto", slo, share)
    return next((one for one in summary.goodput if (one.arm, one.slo, one.share) == wanted), None)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="bench.savings", description="Auto against always-think on the nano.")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-savings")
    parser.add_argument("--alone", type=int, default=200, help="prompts at one stream that fix the SLO")
    parser.add_argument("--streams", default="1,2,4,8,16,32,64", help="loads, requests at a time")
    parser.add_argument("--per-step", type=int, default=256, help="prompts of each load, mode and repeat, at least")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=8, help="unmeasured prompts of each load, mode and repeat")
    parser.add_argument("--hard-share", type=share, help="share that needs thinking; otherwise the suite's mix")
    parser.add_argument("--report-only", action="store_true", help="print the report of the rows that are there")
    return parser.parse_args(arguments)


def share(text: str) -> float:
    """Return a share from 0 to 1. Raises argparse.ArgumentTypeError, which argparse prints."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share from 0 to 1")
    return value


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and print its report; the last line has the figures that count."""
    options = parse(arguments)
    streams = tuple(int(one) for one in options.streams.split(","))
    size = Size(options.alone, streams, options.per_step, options.repeats, options.warmup, options.hard_share)
    out: Path = options.out
    try:
        if not options.report_only:
            out.mkdir(parents=True, exist_ok=True)
            with gateway(out) as server:
                measure_alone(out, server.url, size)
                measure_run(out, server.url, size, fix_slos(out))
        report = read_report(out / RUN)
        write_report(out / RUN, report)
        print((out / RUN / "report.md").read_text(encoding="utf-8"))
        print(key_line(report))
    except LoadTestError as exc:
        print(f"bench.savings: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
