"""LHRM: the synchronous shell over the parts that do no I/O."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Self, Unpack

import httpx
from pydantic import JsonValue

from ._call import DEFAULT_TIMEOUT, LIMITS, MODELS_PATH, VERSION_PATH, Call, Core, Deadline, Tries, request_id_of
from ._conversation import Turns
from ._errors import ClientClosedError, StreamInterruptedError
from ._events import ChatEvent, Finished
from ._limited import send
from ._options import ChatOptions
from ._request import build_call
from ._response import first_model, json_object, read_chat, read_models
from ._stream import ChatStreamReader
from ._types import ChatResult, Messages, ModelInfo


class ChatStream:
    """The events of one answer, Finished last; the request is sent when the first is asked for.

    Closing it, or leaving its ``with`` block, closes the connection, which ends the answer in the engine.
    """

    def __init__(
        self, events: Generator[ChatEvent, None, None], on_result: Callable[[ChatResult], None] | None = None
    ) -> None:
        self._events = events
        self._on_result = on_result
        self._result: ChatResult | None = None

    def __iter__(self) -> Iterator[ChatEvent]:
        return self

    def __next__(self) -> ChatEvent:
        event = next(self._events)
        if isinstance(event, Finished):
            self._result = event.result
            if self._on_result is not None:
                self._on_result(event.result)
        return event

    def finish(self) -> ChatResult:
        """Read on to the end and return the result. Raises LHRMError."""
        for _ in self:
            pass
        if self._result is None:
            raise StreamInterruptedError("the stream was closed before the answer was complete")
        return self._result

    def close(self) -> None:
        """Close the connection if the answer is not complete."""
        self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class LHRM:
    """A gateway, synchronously.

    Example::

        with LHRM("http://127.0.0.1:8000") as lhrm:
            result = lhrm.chat("What is 48371 + 92615?")
            print(result.mode, result.answer, result.savings)

    `model` None uses the first model the server lists. `timeout` is how many seconds may pass without a byte.
    `headers` go with every request. `transport` replaces the network, for tests. Raises ArgumentError.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        model: str | None = None,
        timeout: float | httpx.Timeout = DEFAULT_TIMEOUT,
        max_retries: int = 2,
        headers: Mapping[str, str] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._core = Core(base_url, api_key, model, timeout, max_retries, headers)
        self._http = httpx.Client(
            base_url=self._core.base_url, headers=self._core.headers, limits=LIMITS, transport=transport
        )

    def chat(self, messages: Messages, **options: Unpack[ChatOptions]) -> ChatResult:
        """Return the whole answer. Raises LHRMError."""
        call = self._with_model(build_call(messages, stream=False, **options))
        return read_chat(*self._fetch(call))

    def stream(self, messages: Messages, **options: Unpack[ChatOptions]) -> ChatStream:
        """Return the answer's events. Raises ArgumentError now and LHRMError while they are read."""
        return ChatStream(self._events(build_call(messages, stream=True, **options)))

    def conversation(
        self, system: str | None = None, messages: Messages | None = None, **options: Unpack[ChatOptions]
    ) -> Conversation:
        """Open a conversation with a system turn or earlier turns; the options hold for each of its calls."""
        return Conversation(self, Turns(system, messages, options))

    def models(self) -> list[ModelInfo]:
        """Return the models the server offers, each with its capability block."""
        return read_models(*self._fetch(Call("GET", MODELS_PATH)))

    def version(self) -> dict[str, JsonValue]:
        """Return what the server says about itself."""
        return json_object(*self._fetch(Call("GET", VERSION_PATH)))

    def _events(self, call: Call) -> Generator[ChatEvent, None, None]:
        call = self._with_model(call)
        tries = self._core.tries(call)
        with self._open(call, tries) as response:
            reader = ChatStreamReader(request_id_of(response))
            try:
                # Read past the end marker: only a response read to its end leaves the connection usable.
                for chunk in response.iter_bytes():
                    yield from reader.feed(chunk)
            except httpx.RequestError as exc:
                reader.finish(exc)
            reader.finish()

    def _with_model(self, call: Call) -> Call:
        body = call.body or {}
        if body.get("model"):
            return call
        self._core.model = self._core.model or self._first_model(call.deadline)
        return replace(call, body={**body, "model": self._core.model})

    def _first_model(self, deadline: Deadline) -> str:
        return first_model(read_models(*self._fetch(Call("GET", MODELS_PATH, deadline=deadline))))

    def _fetch(self, call: Call) -> tuple[bytes, str | None]:
        tries = self._core.tries(call)
        with self._open(call, tries) as response:
            return _read(response, tries), request_id_of(response)

    @contextmanager
    def _open(self, call: Call, tries: Tries) -> Iterator[httpx.Response]:
        """Open a 2xx response, its body unread; failures before it are tried again where that is safe."""
        if self._http.is_closed:
            raise ClientClosedError("the client is closed")
        while True:
            extensions = {"timeout": tries.limits()}
            request = self._http.build_request(
                call.method, call.path, json=call.body, headers=call.headers, extensions=extensions
            )
            try:
                response = send(self._http, request, call.deadline)
            except httpx.RequestError as exc:
                wait_s = tries.after_failure(exc)
            else:
                with closing(response):
                    if response.is_success:
                        yield response
                        return
                    wait_s = tries.after_status(response.status_code, response.headers, _read(response, tries))
            time.sleep(wait_s)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Conversation:
    """A conversation that keeps its turns; one call at a time.

    A question is kept with its answer, so one that failed or was closed leaves no trace. `turns.messages` has
    the turns, `turns.options` what holds for every call.
    """

    def __init__(self, lhrm: LHRM, turns: Turns) -> None:
        self._lhrm = lhrm
        self.turns = turns

    def chat(self, messages: Messages, **options: Unpack[ChatOptions]) -> ChatResult:
        """Ask, or go on with the results of tools, and return the whole answer. Raises LHRMError."""
        asked, merged = self.turns.asking(messages, options)
        result = self._lhrm.chat(asked, **merged)
        self.turns.keeper(asked)(result)
        return result

    def stream(self, messages: Messages, **options: Unpack[ChatOptions]) -> ChatStream:
        """The same as events; the turns are kept when Finished comes."""
        asked, merged = self.turns.asking(messages, options)
        return ChatStream(self._lhrm._events(build_call(asked, stream=True, **merged)), self.turns.keeper(asked))

    def reset(self) -> None:
        """Go back to the turns the conversation was opened with."""
        self.turns.reset()


def _read(response: httpx.Response, tries: Tries) -> bytes:
    try:
        return response.read()
    except httpx.RequestError as exc:
        raise tries.error(exc) from exc
