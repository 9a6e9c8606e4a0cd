"""Where a remote engine listens, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from yarl import URL


@dataclass(frozen=True)
class Timeouts:
    """Seconds that each part of a call may take.

    `first_event_s` includes the wait in the engine's queue; `idle_s` is the longest silence between two events, and
    comments that keep the connection alive do not break it; `total_s` holds from the call to its last event, the
    time included in which the caller does not read; `control_s` is for each question at the start.
    """

    connect_s: float = 5.0
    first_event_s: float = 300.0
    idle_s: float = 60.0
    total_s: float = 3600.0
    control_s: float = 30.0
    health_s: float = 2.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name}={value!r}: expected more than 0")


@dataclass(frozen=True)
class Place:
    """Where the engine listens, without a trailing ``/v1``. Raises ValueError on what is not a plain HTTP URL."""

    url: str
    api_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"engine URL {self.url!r}: expected http://host:port or https://host:port")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("engine URL: expected no user name, query or fragment; the key has its own option")
        try:
            parts.hostname.encode("idna")
            URL(self.url)
        except ValueError as exc:
            raise ValueError(f"engine URL {self.url!r}: {exc}") from exc
        if self.api_key is not None and not self.api_key.isprintable():
            raise ValueError("the engine's API key: expected one line of printable characters")
        object.__setattr__(self, "url", self.url.rstrip("/").removesuffix("/v1"))
