"""Operator rights: who may force a mode, by a key or by the address that a request comes from."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import Scope

from .setting_checks import SettingsError

Network = IPv4Network | IPv6Network
BEARER = "bearer "


@dataclass(frozen=True)
class Operators:
    """Who has operator rights: SHA-256 digests of keys, and networks of trusted proxies; nobody by default.

    Whatever a trusted proxy sends is taken as the operator's own word, so it must drop the header of its clients.
    """

    key_digests: tuple[bytes, ...] = ()
    networks: tuple[Network, ...] = ()

    def allow(self, scope: Scope) -> bool:
        """Tell whether the sender of a request has operator rights.

        The address is that of the connection: headers that name another one are not believed.
        """
        return self._knows_key(Headers(scope=scope).getlist("authorization")) or self._trusts(scope.get("client"))

    def _knows_key(self, authorizations: Sequence[str]) -> bool:
        if len(authorizations) != 1 or not authorizations[0].lower().startswith(BEARER):
            return False
        key = authorizations[0][len(BEARER) :].strip()
        digest = hashlib.sha256(key.encode("utf-8")).digest()
        # Every comparison is made: the time tells neither whether a key fits nor which.
        fits = [hmac.compare_digest(digest, known) for known in self.key_digests]
        return any(fits)

    def _trusts(self, client: tuple[str, int] | None) -> bool:
        address = None if client is None else _address(client[0])
        return address is not None and any(address in network for network in self.networks)


def load_operators(key_file: Path | None, trusted_proxies: str | None) -> Operators:
    """Read a file with one key in each line, and networks like ``10.0.0.0/8,::1``. Raises SettingsError."""
    return Operators(
        () if key_file is None else _key_digests(key_file),
        () if trusted_proxies is None else tuple(_network(part.strip()) for part in trusted_proxies.split(",")),
    )


def _key_digests(path: Path) -> tuple[bytes, ...]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"operator_keys={str(path)!r}: {getattr(exc, 'strerror', None) or exc}") from exc
    keys = [line for line in lines if line]
    if not keys:
        raise SettingsError(f"operator_keys={str(path)!r}: expected one key in each line, but there is none")
    for number, line in enumerate(lines, 1):
        # The key itself stays out of the message.
        if not line.isascii() or " " in line:
            raise SettingsError(f"operator_keys={str(path)!r}: line {number} has a character that no header can carry")
    return tuple(hashlib.sha256(key.encode("utf-8")).digest() for key in keys)


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as exc:
        raise SettingsError(f"trusted_proxies={text!r}: expected networks like 10.0.0.0/8,::1 ({exc})") from exc


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # A socket that listens on IPv6 sees IPv4 peers under such an address.
    return getattr(address, "ipv4_mapped", None) or address
