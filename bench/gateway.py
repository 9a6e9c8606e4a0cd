"""Our gateway, embedded and over a remote engine, against bare ``vllm serve`` chat on the same model and machine.

``python -m bench.gateway --out DIR``: starts the three servers, runs every cell on all of them in turn, repeats that,
and prints ratios. Raw rows are kept as they come; the same command goes on where a stopped one ended.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import product
from pathlib import Path

from tqdm import tqdm

from bench.driver import Cell, Measured, measure
from bench.report import report
from bench.servers import ROOT, Server, running

STREAMS = (1, 16, 64)
MODES = ("think", "no_think", "auto")
REQUESTS = {1: 24, 16: 96, 64: 256}
PROMPTS = ROOT / "loadtest" / "lhrm_loadtest" / "prompts" / "default.jsonl"


def cells() -> list[Cell]:
    """Return every combination of streams, mode and streaming."""
    return [Cell(streams, mode, stream) for streams, mode, stream in product(STREAMS, MODES, (True, False))]


def plan(repeats: int, servers: list[Server]) -> Iterator[tuple[int, Cell, Server]]:
    """Yield repeat, cell and server; who goes first changes from repeat to repeat."""
    for repeat in range(repeats):
        turned = servers[repeat % len(servers) :] + servers[: repeat % len(servers)]
        for cell in cells():
            for server in turned:
                yield repeat, cell, server


def questions() -> list[str]:
    """Return the questions of the load test's default prompts."""
    rows = [json.loads(line) for line in PROMPTS.read_text(encoding="utf-8").splitlines()]
    return [row["messages"][-1]["content"] if "messages" in row else row["prompt"] for row in rows]


def done_already(path: Path) -> set[tuple[int, Cell, str]]:
    """Return what a stopped run measured; a last line that was cut off is measured again."""
    if not path.is_file():
        return set()
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    path.write_text("".join(whole), encoding="utf-8")
    rows = [json.loads(line) for line in whole]
    return {(row["repeat"], Cell(**row["cell"]), row["server"]) for row in rows}


def run(out: Path, repeats: int) -> None:
    """Measure what is missing."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "rows.jsonl"
    done, asked = done_already(path), questions()
    with running(out) as servers:
        for server in servers:
            for mode in MODES:
                asyncio.run(measure(server, Cell(4, mode, True), asked, 16))  # warm-up
        todo = [one for one in plan(repeats, servers) if (one[0], one[1], one[2].name) not in done]
        with path.open("a", encoding="utf-8") as rows:
            for repeat, cell, server in tqdm(todo, desc="bench", unit="cell"):
                measured: Measured = asyncio.run(measure(server, cell, asked, REQUESTS[cell.streams]))
                row = {"repeat": repeat, "cell": asdict(cell), "server": server.name, **asdict(measured)}
                rows.write(json.dumps(row) + "\n")
                rows.flush()


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and print its report."""
    parser = argparse.ArgumentParser(prog="bench.gateway", description="Our gateway against bare vllm serve.")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-gateway")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--report-only", action="store_true", help="print the report of the rows that are there")
    options = parser.parse_args(arguments)
    if not options.report_only:
        run(options.out, options.repeats)
    text = report(options.out / "rows.jsonl")
    (options.out / "report.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
