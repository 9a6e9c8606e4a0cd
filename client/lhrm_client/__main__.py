"""The ``lhrm`` command: chat at a terminal or in a pipe, answers on stdout, all about them on stderr."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from io import TextIOWrapper
from typing import get_args

from ._client import LHRM
from ._display import Display, ReasoningView, Sink
from ._errors import LHRMError
from ._line_input import LineInput, default_history
from ._options import ChatOptions
from ._repl import FOLD_HINT, Repl
from ._response import first_model
from ._types import Mode

DEFAULT_BASE_URL = "http://127.0.0.1:8000"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    interactive = args.question is None and sys.stdin.isatty()
    if interactive and args.json:
        parser.error("--json needs a question, or one from a pipe")
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # What the encoding cannot say is no reason to fail.
            stream.reconfigure(errors="replace")
    try:
        return _chat_interactively(args) if interactive else _answer(args)
    except LHRMError as exc:
        print(f"lhrm: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output is gone, and needs no reason.
        _drop_output()
        return 1
    except OSError as exc:
        _drop_output()
        with suppress(OSError):
            print(f"lhrm: input or output failed: {exc}", file=sys.stderr)
        return 1


def _drop_output() -> None:
    """Lead standard output nowhere: the interpreter's flush at exit must not fail on it again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lhrm", description="Talk to an lhrm gateway.")
    parser.add_argument("--version", action="version", version=f"lhrm {version('lhrm')}")
    commands = parser.add_subparsers(dest="command", required=True)
    chat = commands.add_parser(
        "chat",
        help="ask one question, or talk",
        description="Answer QUESTION, or what a pipe brings; at a terminal and without a question, talk. "
        "LHRM_API_KEY is sent as the key if it is set.",
    )
    chat.add_argument("question", nargs="?", help="- reads it from standard input, as a pipe without a question does")
    chat.add_argument("--mode", choices=get_args(Mode), help="default: the server's, normally auto")
    chat.add_argument("--threshold", type=float, metavar="P", help="think when P(think) reaches this, 0 to 1")
    chat.add_argument("--budget", type=int, metavar="TOKENS", help="limit of the reasoning; -1 is none")
    chat.add_argument("--max-tokens", type=int, metavar="TOKENS", help="limit of reasoning and answer together")
    chat.add_argument("--system", metavar="TEXT", help="a system message to begin with")
    chat.add_argument("--model", metavar="NAME", help="default: the first model the server lists")
    chat.add_argument("--base-url", metavar="URL", help=f"default: $LHRM_BASE_URL, else {DEFAULT_BASE_URL}")
    chat.add_argument("--json", action="store_true", help="print the result as one JSON object")
    chat.add_argument("--no-history", action="store_true", help="do not keep the lines that are typed")
    return parser


def _client(args: argparse.Namespace) -> LHRM:
    base_url = args.base_url or os.environ.get("LHRM_BASE_URL") or DEFAULT_BASE_URL
    return LHRM(base_url, os.environ.get("LHRM_API_KEY"), model=args.model)


def _options(args: argparse.Namespace) -> ChatOptions:
    return {
        "mode": args.mode,
        "think_threshold": args.threshold,
        "thinking_budget": args.budget,
        "max_tokens": args.max_tokens,
    }


def _answer(args: argparse.Namespace) -> int:
    question = sys.stdin.read() if args.question in (None, "-") else args.question
    if not question.strip():
        print("lhrm: the question is empty", file=sys.stderr)
        return 1
    with _client(args) as lhrm:
        conversation = lhrm.conversation(args.system, **_options(args))
        if args.json:
            # Flushed here, where it may fail, and not at exit.
            print(conversation.chat(question).model_dump_json(indent=1, exclude={"raw", "choices"}), flush=True)
            return 0
        display = Display(Sink(sys.stdout), Sink(sys.stderr))
        try:
            with conversation.stream(question) as events:
                for event in events:
                    display.show(event)
        finally:
            display.stop()
    return 0


def _chat_interactively(args: argparse.Namespace) -> int:
    with _client(args) as lhrm, LineInput(None if args.no_history else default_history()) as lines:
        display = Display(Sink(sys.stdout), Sink(sys.stderr))
        folded = _folded_view(display.notes)
        model = args.model or first_model(lhrm.models())
        display.notes.note(f"{model}; /help lists the commands")
        if folded is None and display.notes.styled:
            display.notes.note(FOLD_HINT)
        Repl(lhrm.conversation(args.system, **_options(args)), display, lines.read, folded).run()
    return 0


def _folded_view(notes: Sink) -> ReasoningView | None:
    if not notes.styled or find_spec("rich") is None:
        return None
    from ._fold import FoldedReasoning

    return FoldedReasoning()


if __name__ == "__main__":
    sys.exit(main())
