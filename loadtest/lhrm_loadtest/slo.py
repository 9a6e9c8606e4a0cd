"""Service level objectives: how late a request may be and still count as good."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .errors import LoadTestError
from .rows import Row

POINTS = ("first_token", "first_answer", "total")


@dataclass(frozen=True)
class Slo:
    """`point` of a request within `limit_ms` milliseconds of its scheduled arrival, without an error."""

    point: str
    limit_ms: float

    def __str__(self) -> str:
        return f"{self.point}<={self.limit_ms:g}"

    def met(self, row: Row) -> bool:
        """Tell whether a request is good; one that never reached the point is not."""
        reached = latency_ms(row, self.point)
        return row.error is None and reached is not None and reached <= self.limit_ms


def latency_ms(row: Row, point: str) -> float | None:
    """Return milliseconds from the scheduled arrival of a request to `point`, None where it was not reached."""
    at_ms = {"first_token": row.first_token_ms, "first_answer": row.first_answer_ms, "total": row.end_ms}[point]
    return None if at_ms is None else at_ms - row.scheduled_ms


def parse_slo(text: str) -> Slo:
    """Read ``POINT<=MILLISECONDS``, for example ``first_answer<=900``. Raises LoadTestError."""
    point, sign, limit = text.partition("<=")
    if not sign or point not in POINTS:
        raise LoadTestError(f"slo = {text!r}: expected POINT<=MILLISECONDS, POINT one of {', '.join(POINTS)}")
    try:
        limit_ms = float(limit)
    except ValueError:
        limit_ms = math.nan
    if not 0 < limit_ms < math.inf:
        raise LoadTestError(f"slo = {text!r}: {limit!r} is not a positive number of milliseconds")
    return Slo(point, limit_ms)
