"""Who sent a request, and the keyed hash that binds a session to its sender.

The one rule: the fingerprint tells nothing without the key, and a part that is absent never equals one that is there.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from sojourn.binding.proxies import parse_address
from sojourn.errors import ConfigurationError

BindingPolicy = Literal["off", "observe", "reject"]

FINGERPRINT_BYTES: Final = 16
"""The length of a fingerprint, in bytes."""
LABEL_LENGTH: Final = 80
"""The most characters of a client's label."""

_USER_AGENT_READ: Final = 512
_UNKNOWN_CLIENT: Final = "unknown client"
_PRODUCT: Final = re.compile(r"[0-9A-Za-z._-]+")
_BROWSERS: Final = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
)
_SYSTEMS: Final = (
    ("Windows", "Windows"),
    ("Android", "Android"),
    ("iPhone", "iOS"),
    ("iPad", "iPadOS"),
    ("CrOS", "ChromeOS"),
    ("Mac OS X", "macOS"),
    ("Macintosh", "macOS"),
    ("Linux", "Linux"),
)


class Client(Struct, frozen=True, gc=False):
    """What is known about the sender of a request."""

    address: str | None = None
    """The IP address, from ``TrustedProxies.address``."""
    user_agent: str | None = None
    """The User-Agent header as received."""

    @property
    def label(self) -> str:
        """Return a few words for a list of sessions, such as ``Firefox on Linux``: printable ASCII, at most 80."""
        return _label((self.user_agent or "")[:_USER_AGENT_READ])


@lru_cache(maxsize=256)
def _label(text: str) -> str:
    browser = _first_named(_BROWSERS, text)
    system = _first_named(_SYSTEMS, text)
    if browser is None:
        product = _PRODUCT.match(text)
        browser = product[0] if product else _UNKNOWN_CLIENT
    return (f"{browser} on {system}" if system else browser)[:LABEL_LENGTH]


def _first_named(names: Iterable[tuple[str, str]], text: str) -> str | None:
    return next((name for mark, name in names if mark in text), None)


ClientOf: TypeAlias = Callable[[], Client | None] | None
"""Tells the client of a request when it is asked for: working it out costs more than reading a session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What a session is bound to, and what follows when it does not match (SECURITY R31)."""

    policy: BindingPolicy = "off"
    ip: bool = True
    user_agent: bool = True
    ipv4_prefix: int = 32
    """How many leading bits of an IPv4 address are compared, 24 to 32."""
    ipv6_prefix: int = 64
    """How many leading bits of an IPv6 address are compared, 48 to 128; privacy addresses change below 64."""

    def __post_init__(self) -> None:
        if self.policy not in {"off", "observe", "reject"}:
            msg = f"SOJOURN_BINDING is {self.policy!r}; use 'off', 'observe' or 'reject'"
            raise ConfigurationError(msg)
        if not 24 <= self.ipv4_prefix <= 32:
            msg = f"SOJOURN_BINDING_IPV4_PREFIX is {self.ipv4_prefix}; use 24 to 32"
            raise ConfigurationError(msg)
        if not 48 <= self.ipv6_prefix <= 128:
            msg = f"SOJOURN_BINDING_IPV6_PREFIX is {self.ipv6_prefix}; use 48 to 128"
            raise ConfigurationError(msg)
        if self.policy != "off" and not self.ip and not self.user_agent:
            msg = (
                f"SOJOURN_BINDING is {self.policy!r} but compares nothing; set SOJOURN_BINDING_IP or "
                "SOJOURN_BINDING_USER_AGENT to true, or SOJOURN_BINDING to 'off'"
            )
            raise ConfigurationError(msg)

    def fingerprint(self, client: Client | None, key: bytes) -> bytes | None:
        """Return the keyed hash of what the session is bound to, 16 bytes; None when the policy is off.

        A part that the request lacks hashes as absent, which is not the same as empty. Compare with
        ``hmac.compare_digest`` (SECURITY R7).
        """
        if self.policy == "off":
            return None
        client = client or Client()
        message = b""
        if self.ip:
            message += b"ip" + self._network(client.address)
        if self.user_agent:
            message += b"ua" + _part(client.user_agent)
        return hmac.digest(key, message, "sha256")[:FINGERPRINT_BYTES]

    def _network(self, text: str | None) -> bytes:
        """Encode the network of an address; what is no address counts as it is."""
        address = None if text is None else parse_address(text)
        if address is None:
            return _part(text)
        prefix = self.ipv4_prefix if address.version == 4 else self.ipv6_prefix
        return bytes((address.version,)) + (int(address) >> (address.max_prefixlen - prefix)).to_bytes(16, "big")


def _part(text: str | None) -> bytes:
    """Encode one part so that no two lists of parts share their bytes."""
    if text is None:
        return b"\x00"
    raw = text.encode("utf-8", "surrogatepass")
    return b"\x01" + len(raw).to_bytes(8, "big") + raw
