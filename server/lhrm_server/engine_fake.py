"""Scripted engine without a model, for tests, demos and load rigs: it speaks both modes, fails and hangs on order."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from itertools import cycle

from lhrm_train.format import ChatTokenizer, Mode, encode_answer

from .engine import (
    EngineDeadError,
    EngineError,
    EngineInfo,
    GenerationRequest,
    Grammar,
    RequestRefusedError,
    Sampling,
    StopReason,
    TokenDelta,
)


@dataclass(frozen=True)
class Script:
    """What the engine does with one request.

    `think_ids` and `no_think_ids` are emitted after the opening tag; None means a default body. They
    are emitted as they are: a body without the end of turn ends with `last_reason`. A prompt that ends
    with the closing think tag gets what follows that tag in `think_ids`. `grammar_ids` answer a call
    with a grammar; None means the first of a choice, else an empty JSON object. The sizes in
    `chunks` are used in turn. Events are counted from 0 within one call; `fail_at` raises and
    `hang_at` waits for ever in place of that event, in the generate call; `fail_decide` and
    `hang_decide` do the same to the decide call.
    """

    p_think: float = 0.5
    tag_mass: float = 1.0
    think_ids: tuple[int, ...] | None = None
    no_think_ids: tuple[int, ...] | None = None
    grammar_ids: tuple[int, ...] | None = None
    chunks: tuple[int, ...] = (1,)
    first_delay_s: float = 0.0
    delay_s: float = 0.0
    decide_delay_s: float = 0.0
    fail_at: int | None = None
    hang_at: int | None = None
    fail_decide: bool = False
    hang_decide: bool = False
    last_reason: StopReason = StopReason.STOP


Scripted = Callable[[tuple[int, ...]], Script]


class FakeEngine:
    """An Engine that follows a script, one for all prompts or a function of the prompt ids.

    It keeps every request and counts those active (hanging among them), finished, failed and aborted by their caller;
    `held` are the sessions that it would keep a prefix for.
    Of a bias only what leaves no choice is followed: an id with 100 or more is all that is emitted.
    """

    def __init__(
        self, tokenizer: ChatTokenizer, script: Script | Scripted | None = None, max_model_len: int = 512
    ) -> None:
        self._tokenizer = tokenizer
        self.script: Script | Scripted = script or default_script(tokenizer)
        self._max_model_len = max_model_len
        self._serving = False
        self._gone = asyncio.Event()
        self.requests: list[GenerationRequest] = []
        self.held: set[str] = set()
        self.finished = 0
        self.failed = 0
        self.aborted = 0
        self.active = 0
        self.hanging = 0
        self.emitted_tokens = 0

    @property
    def info(self) -> EngineInfo:
        """Kind, version and context length."""
        return EngineInfo(kind="fake", version="1", max_model_len=self._max_model_len)

    async def start(self) -> None:
        """Begin to serve."""
        self._serving = True

    async def healthy(self) -> bool:
        """Tell whether the engine was started and is neither closed nor killed."""
        return self._serving and not self._gone.is_set()

    async def close(self) -> None:
        """Stop serving; running requests fail."""
        self.kill()

    def kill(self) -> None:
        """Die like an engine process does: running and later requests raise EngineDeadError."""
        self._gone.set()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[TokenDelta, None]:
        """Stream the script's answer to one request."""
        self._check(request)
        self.requests.append(request)
        script = self.script(request.prompt_ids) if callable(self.script) else self.script
        self.active += 1
        if request.session_id is not None:
            (self.held.add if request.keep else self.held.discard)(request.session_id)
        finished = failed = False
        try:
            async with aclosing(self._play(request, script)) as deltas:
                async for delta in deltas:
                    finished = delta.stop_reason is not None
                    self.emitted_tokens += len(delta.token_ids)
                    yield delta
        except EngineError:
            failed = True
            raise
        finally:
            self.active -= 1
            self.finished += finished
            self.failed += failed
            self.aborted += not (finished or failed)

    async def release(self, session_id: str) -> None:
        """Forget the session."""
        self.held.discard(session_id)

    def _check(self, request: GenerationRequest) -> None:
        if self._gone.is_set() or not self._serving:
            raise EngineDeadError("the fake engine is not running")
        if not request.prompt_ids or not all(0 <= i < self._tokenizer.vocab_size for i in request.prompt_ids):
            raise EngineError(f"{request.request_id}: prompt is empty or has ids outside the vocabulary")
        if request.sampling.max_tokens < 1:
            raise EngineError(f"{request.request_id}: max_tokens={request.sampling.max_tokens}")
        if len(request.prompt_ids) + request.sampling.max_tokens > self._max_model_len:
            raise EngineError(f"{request.request_id}: prompt and max_tokens exceed {self._max_model_len}")
        if request.sampling.grammar is not None:
            _check_grammar(request.sampling.grammar)

    async def _play(self, request: GenerationRequest, script: Script) -> AsyncGenerator[TokenDelta, None]:
        deciding = request.sampling.allowed_token_ids is not None
        body = self._decision(request, script) if deciding else _cut(self._body(request, script), request.sampling)
        if deciding:
            fail_at, hang_at = (0 if script.fail_decide else None), (0 if script.hang_decide else None)
        else:
            fail_at, hang_at = script.fail_at, script.hang_at
        position = 0
        for event, size in enumerate(cycle(script.chunks)):
            await self._pause(script.decide_delay_s if deciding else script.delay_s, event, script)
            if event == hang_at:
                await self._hang()
            if self._gone.is_set():
                raise EngineDeadError("the fake engine died")
            if event == fail_at:
                raise EngineError(f"scripted failure at event {event}")
            ids = body[position : min(position + size, request.sampling.max_tokens)]
            position += len(ids)
            reason = self._reason(body, position, request, script)
            yield TokenDelta(ids, self._logprobs(request, script, ids), reason)
            if reason is not None:
                return

    async def _hang(self) -> None:
        self.hanging += 1
        try:
            await self._gone.wait()
        finally:
            self.hanging -= 1

    async def _pause(self, delay_s: float, event: int, script: Script) -> None:
        # Even without a delay every event gives way, as the real engine does.
        await asyncio.sleep(delay_s + (script.first_delay_s if event == 0 else 0.0))

    def _reason(
        self, body: tuple[int, ...], position: int, request: GenerationRequest, script: Script
    ) -> StopReason | None:
        if position and body[position - 1] in (self._tokenizer.turn_end_id, *request.sampling.stop_token_ids):
            return StopReason.STOP
        if position >= request.sampling.max_tokens:
            return StopReason.LENGTH
        return script.last_reason if position >= len(body) else None

    def _decision(self, request: GenerationRequest, script: Script) -> tuple[int, ...]:
        tags = self._tokenizer.tags
        allowed = request.sampling.allowed_token_ids or ()
        preferred = tags.think if script.p_think >= 0.5 else tags.no_think
        return (preferred if preferred in allowed else allowed[0],) * request.sampling.max_tokens

    def _body(self, request: GenerationRequest, script: Script) -> tuple[int, ...]:
        """Follow the mode that the prompt ends with; without one, open it first as a free model would."""
        tags, last = self._tokenizer.tags, request.prompt_ids[-1]
        forced = [token for token, bias in request.sampling.logit_bias.items() if bias >= 100]
        if forced:
            return (forced[0],) * request.sampling.max_tokens
        if request.sampling.grammar is not None:
            return self._constrained(request.sampling.grammar, script)
        if last == tags.think_end:
            body = self._after_tag(Mode.THINK, script, request)
            return body[body.index(last) + 1 :] if last in body else (self._tokenizer.turn_end_id,)
        if last == tags.think:
            return self._after_tag(Mode.THINK, script, request)
        if last == tags.no_think:
            return self._after_tag(Mode.NO_THINK, script, request)
        mode = Mode.THINK if script.p_think >= 0.5 else Mode.NO_THINK
        return (tags.opening(mode), *self._after_tag(mode, script, request))

    def _after_tag(self, mode: Mode, script: Script, request: GenerationRequest) -> tuple[int, ...]:
        scripted = script.think_ids if mode is Mode.THINK else script.no_think_ids
        if scripted is not None:
            return scripted
        reasoning = f"The prompt has {len(request.prompt_ids)} tokens. No model is loaded, so a script answers."
        return tuple(encode_answer(self._tokenizer, mode, reasoning, "A scripted answer.")[1:])

    def _constrained(self, grammar: Grammar, script: Script) -> tuple[int, ...]:
        if script.grammar_ids is not None:
            return script.grammar_ids
        text = json.loads(grammar.value)[0] if grammar.kind == "choice" else "{}"
        return (*self._tokenizer.encode_text(text), self._tokenizer.turn_end_id)

    def _top(self, token: int, count: int) -> dict[int, float]:
        """Return the emitted token as the most likely one, and its neighbours behind it."""
        size = self._tokenizer.vocab_size
        return {(token + place) % size: -0.25 - place for place in range(max(1, count))}

    def _logprobs(
        self, request: GenerationRequest, script: Script, ids: tuple[int, ...]
    ) -> tuple[dict[int, float], ...] | None:
        wanted, top = request.sampling.logprob_token_ids, request.sampling.top_logprobs
        if top is not None:
            return tuple(self._top(token, top) for token in ids)
        if wanted is None:
            return None
        tags, mass = self._tokenizer.tags, script.tag_mass
        known = {tags.think: mass * script.p_think, tags.no_think: mass * (1 - script.p_think)}
        rest = (1 - mass) / max(1, self._tokenizer.vocab_size - 2)
        row = {i: _log(known.get(i, rest)) for i in wanted}
        return (row,) * len(ids)


def default_script(tokenizer: ChatTokenizer) -> Scripted:
    """Return the script for demos: a last turn with many digits looks hard, so the engine wants to think."""

    def script(prompt_ids: tuple[int, ...]) -> Script:
        turns = tokenizer.decode(prompt_ids).split(tokenizer.manifest.turn_start)
        question = turns[-2] if len(turns) > 1 else turns[-1]
        digits = sum(character.isdigit() for character in question)
        return Script(p_think=min(0.99, 0.05 + 0.1 * digits))

    return script


def _cut(body: tuple[int, ...], sampling: Sampling) -> tuple[int, ...]:
    """Return the body up to the first of the ids that end it."""
    ends = [place for place, token in enumerate(body) if token in sampling.stop_token_ids]
    return body[: ends[0] + 1] if ends else body


def _check_grammar(grammar: Grammar) -> None:
    """Refuse what no engine could compile."""
    try:
        if grammar.kind in ("json", "choice"):
            json.loads(grammar.value)
        elif grammar.kind == "regex":
            re.compile(grammar.value)
    except (ValueError, re.error) as exc:
        raise RequestRefusedError(f"the {grammar.kind} grammar is malformed: {exc}") from exc


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0 else -math.inf
