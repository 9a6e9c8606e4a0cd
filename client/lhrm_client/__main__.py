"""The ``lhrm`` command: ask one question, reasoning on stderr, answer on stdout."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ._client import LHRM
from ._errors import LHRMError
from ._types import AnswerDelta, ChatEvent, ChatOptions, ChatResult, ReasoningDelta

DEFAULT_BASE_URL = "http://127.0.0.1:8000"
_DIM, _RESET = "\x1b[2m", "\x1b[0m"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    args = _parser().parse_args(argv)
    question = sys.stdin.read() if args.question == "-" else args.question
    options: ChatOptions = {
        "model": args.model,
        "mode": args.mode,
        "think_threshold": args.threshold,
        "max_tokens": args.max_tokens,
    }
    base_url = args.base_url or os.environ.get("LHRM_BASE_URL") or DEFAULT_BASE_URL
    try:
        with LHRM(base_url, os.environ.get("LHRM_API_KEY")) as lhrm:
            if args.json:
                print(lhrm.chat(question, **options).model_dump_json(indent=1))
            elif args.no_stream:
                _print_whole(lhrm.chat(question, **options))
            else:
                _print_stream(lhrm, question, options)
    except LHRMError as exc:
        print(f"lhrm: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output is gone; the interpreter's flush at exit must not fail on it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lhrm", description="Ask an lhrm gateway one question. LHRM_API_KEY is sent as the key if it is set."
    )
    parser.add_argument("question", help="the question; - reads it from standard input")
    parser.add_argument("--mode", choices=("auto", "think", "no_think"), help="default: the server's, normally auto")
    parser.add_argument("--threshold", type=float, help="think when P(think) reaches this, 0 to 1")
    parser.add_argument("--max-tokens", type=int, help="cap on reasoning plus answer")
    parser.add_argument("--model", help="default: the first model the server lists")
    parser.add_argument("--base-url", help=f"default: $LHRM_BASE_URL, else {DEFAULT_BASE_URL}")
    parser.add_argument("--no-stream", action="store_true", help="print when the answer is complete")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    return parser


def _print_stream(lhrm: LHRM, question: str, options: ChatOptions) -> None:
    shown: ChatEvent | None = None
    try:
        for event in lhrm.chat_stream(question, **options):
            if isinstance(shown, ReasoningDelta) and not isinstance(event, ReasoningDelta):
                _end_line(shown)
            if isinstance(event, ReasoningDelta):
                _print_reasoning(event.text)
            elif isinstance(event, AnswerDelta):
                print(event.text, end="", flush=True)
            else:
                _print_ending(event.result)
            shown = event
    except LHRMError:
        _end_line(shown)
        raise


def _end_line(shown: ChatEvent | None) -> None:
    if isinstance(shown, ReasoningDelta):
        print(file=sys.stderr, flush=True)
    elif isinstance(shown, AnswerDelta):
        print(flush=True)


def _print_whole(result: ChatResult) -> None:
    if result.reasoning:
        _print_reasoning(result.reasoning)
        print(file=sys.stderr, flush=True)
    print(result.answer, end="", flush=True)
    _print_ending(result)


def _print_reasoning(text: str) -> None:
    dim = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    print(f"{_DIM}{text}{_RESET}" if dim else text, end="", file=sys.stderr, flush=True)


def _print_ending(result: ChatResult) -> None:
    print(flush=True)
    print(summary_line(result), file=sys.stderr, flush=True)


def summary_line(result: ChatResult) -> str:
    """Return mode, cost and savings of an answer in one line."""
    parts = [f"mode={result.mode}", f"source={result.source}"]
    if result.p_think is not None:
        parts.append(f"p_think={result.p_think:.3f}")
    parts.append(
        f"tokens={result.usage.completion_tokens} (reasoning {result.reasoning_tokens}, answer {result.answer_tokens})"
    )
    if result.savings is not None:
        interval = result.savings.interval
        between = f" [{interval[0]:.0f}, {interval[1]:.0f}]" if interval else ""
        parts.append(f"saved={result.savings.tokens:.0f}{between}")
    parts.append(f"ended_by={result.ended_by}")
    return " ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
