"""From the body and headers of a chat request to what was asked for and how its mode comes about."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import Scope

from lhrm_train.format import ChatTokenizer, Mode

from .body import JsonObject
from .errors import OperatorRightsError
from .limits import RequestLimits
from .policy import FORCE_HEADER, MODE_HEADER, ModePlan, Wanted, parse_force_header, parse_mode_header, plan_mode
from .request import ChatRequest, parse_chat
from .settings import Settings


class ChatIntake:
    """Checks the chat requests of one server."""

    def __init__(self, settings: Settings, tokenizer: ChatTokenizer) -> None:
        self._settings = settings
        self._limits = RequestLimits.of(settings, tokenizer)

    def read(self, body: JsonObject, scope: Scope) -> tuple[ChatRequest, ModePlan]:
        """Return the request and its plan. Raises GatewayError on what cannot or may not be asked for."""
        request = parse_chat(body, self._limits)
        header = _header(scope, MODE_HEADER)
        wanted = Wanted(
            asks=request.asks,
            think_threshold=request.think_threshold,
            header=None if header is None else parse_mode_header(header),
            alias=self._settings.alias_wish(request.model),
            forced=self._forced(scope),
        )
        return request, plan_mode(wanted, self._settings.policy)

    def _forced(self, scope: Scope) -> Mode | None:
        value = _header(scope, FORCE_HEADER)
        if value is None:
            return None
        if not self._settings.operators.allow(scope):
            raise OperatorRightsError(FORCE_HEADER)
        return parse_force_header(value)


def _header(scope: Scope, name: str) -> str | None:
    """Return a header; one that was sent twice has both values, which are then no valid one."""
    values = Headers(scope=scope).getlist(name)
    return ", ".join(values) if values else None
