"""Decide whether and when a failed attempt is tried again."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_RETRY_STATUSES = frozenset({408, 409, 429})
_BASE_S, _CAP_S = 0.5, 8.0
_HINT_CAP_S = 60.0


@dataclass(frozen=True)
class RetryRule:
    """At most `max_retries` further attempts. `hint_cap_s` bounds the wait a server may ask for."""

    max_retries: int
    hint_cap_s: float = _HINT_CAP_S

    def delay_s(self, attempt: int, headers: Mapping[str, str], rng: random.Random) -> float | None:
        """Return the wait before attempt number `attempt` + 1 (from 0), or None when there is to be none.

        A server's hint is a lower bound, so jitter only adds to it; one beyond the cap ends the retries,
        as coming back earlier would disobey it.
        """
        if attempt >= self.max_retries:
            return None
        hint_s = server_hint_s(headers, datetime.now(UTC))
        if hint_s is None:
            return min(_CAP_S, _BASE_S * 2.0**attempt) * rng.uniform(0.5, 1.0)
        if hint_s > self.hint_cap_s:
            return None
        return hint_s * rng.uniform(1.0, 1.1)


def is_retryable(status: int) -> bool:
    """Tell whether an error status may pass by itself."""
    return status in _RETRY_STATUSES or status >= 500


def server_hint_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the wait that ``Retry-After-Ms`` or ``Retry-After`` (seconds or a date) asks for."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        seconds = _number(headers.get(name))
        if seconds is not None:
            return seconds * unit_s
    try:
        when = parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    aware = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (aware - now).total_seconds())


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
