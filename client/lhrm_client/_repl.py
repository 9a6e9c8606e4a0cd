"""The conversation at a terminal: questions, and commands that begin with a slash."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

from ._client import Conversation
from ._display import Display, PlainReasoning, ReasoningView
from ._errors import LHRMError
from ._events import ChatEvent, ModeChosen, ReasoningDelta
from ._options import ChatOptions
from ._types import Mode

FOLD_HINT = "reasoning is folded with rich: pip install 'lhrm[chat]'"


class Repl:
    """Reads lines with `read`, a function of the prompt, until it ends or /quit.

    `folded` is the view that folds the reasoning, None where it cannot be had. `commands` has for each name what
    it does and the method that does it.
    """

    def __init__(
        self,
        conversation: Conversation,
        display: Display,
        read: Callable[[str], str],
        folded: ReasoningView | None,
    ) -> None:
        self._conversation = conversation
        self._display = display
        self._read = read
        self._folded = folded
        self._asked: ChatOptions = {**conversation.turns.options}
        self._reasoning = ""
        self.commands: dict[str, tuple[str, Callable[[str], None]]] = {
            "/mode": ("think, no_think or auto: the mode of the next questions", self._mode),
            "/threshold": ("0 to 1: think where P(think) reaches it", self._threshold),
            "/fold": ("fold the reasoning when it ends, or leave it", self._fold),
            "/reasoning": ("show the reasoning of the last answer", self._show_reasoning),
            "/history": ("show the conversation", self._history),
            "/reset": ("begin a new conversation", self._reset),
            "/help": ("this list", self._help),
            "/quit": ("leave; so does Ctrl-D. Ctrl-C stops an answer", self._help),
        }
        self._set_folding(folded is not None)

    def run(self) -> None:
        """Ask and answer until the end."""
        while True:
            try:
                line = self._read(self._prompt()).strip()
            except EOFError:
                self._display.notes.write("\n")
                return
            except KeyboardInterrupt:
                self._display.notes.write("\n")
                continue
            if line == "/quit":
                return
            if line.startswith("/"):
                self._command(line)
            elif line:
                self._ask(line)

    def _prompt(self) -> str:
        return f"{self._asked.get('mode') or ''}> "

    def _ask(self, question: str) -> None:
        try:
            with self._conversation.stream(question) as events:
                for event in events:
                    self._remember(event)
                    self._display.show(event)
        except KeyboardInterrupt:
            self._display.stop()
            self._note("stopped; the question is not kept")
        except LHRMError as exc:
            self._display.stop()
            self._note(f"lhrm: {exc}")

    def _remember(self, event: ChatEvent) -> None:
        if isinstance(event, ModeChosen):
            self._reasoning = ""
        elif isinstance(event, ReasoningDelta):
            self._reasoning += event.text

    def _command(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        if name in self.commands:
            self.commands[name][1](rest.strip())
        else:
            self._note(f"{name} is no command; /help lists them")

    def _mode(self, text: str) -> None:
        for mode in get_args(Mode):
            if text == mode:
                self._set_options({**self._asked, "mode": mode})
                return
        self._note(f"/mode {text}: not one of {', '.join(get_args(Mode))}")

    def _threshold(self, text: str) -> None:
        try:
            threshold = float(text)
        except ValueError:
            threshold = -1.0
        if not 0 <= threshold <= 1:
            self._note(f"/threshold {text}: not a number from 0 to 1")
        elif self._asked.get("mode") in ("think", "no_think"):
            self._note("a threshold needs /mode auto")
        else:
            self._set_options({**self._asked, "think_threshold": threshold})

    def _set_options(self, asked: ChatOptions) -> None:
        self._asked = asked
        forced = asked.get("mode") in ("think", "no_think")
        # A threshold waits until the model decides again.
        self._conversation.turns.options = {**asked, "think_threshold": None} if forced else asked

    def _fold(self, _: str) -> None:
        if self._folded is None:
            self._note(FOLD_HINT)
            return
        self._set_folding(not self._folding)
        self._note("reasoning folds when it ends" if self._folding else "reasoning stays")

    def _set_folding(self, folding: bool) -> None:
        self._folding = folding
        plain = PlainReasoning(self._display.notes)
        self._display.reasoning_view = self._folded if folding and self._folded is not None else plain

    def _show_reasoning(self, _: str) -> None:
        self._note(self._reasoning or "the last answer has no reasoning")

    def _history(self, _: str) -> None:
        for turn in self._conversation.turns.messages:
            self._note(f"{turn['role']}: {turn['content']}")

    def _reset(self, _: str) -> None:
        self._conversation.reset()
        self._reasoning = ""
        self._note("a new conversation")

    def _help(self, _: str) -> None:
        width = max(map(len, self.commands))
        for name, (about, _act) in self.commands.items():
            self._note(f"{name:{width}}  {about}")

    def _note(self, text: str) -> None:
        self._display.notes.note(text)
