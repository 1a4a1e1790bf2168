"""The sender of a request: its address behind proxies, and the keyed hash that binds a session to it.

The fingerprint reveals nothing without the key, and a part that is absent never equals one that is present.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import islice
from typing import Final, Literal, TypeAlias, cast

from msgspec import Struct

from sojourn.errors import ConfigurationError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
BindingPolicy = Literal["off", "observe", "reject"]

FINGERPRINT_BYTES: Final = 16
"""The length of a fingerprint, in bytes."""
LABEL_LENGTH: Final = 80
"""The most characters of a client's label."""
UNIX_PEER: Final = "unix"
"""The trusted network that stands for a peer without an address: a proxy on a unix socket."""
HOP_LIMIT: Final = 32
"""The most entries of a forwarding header that are read."""

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

_ENTRY_LENGTH: Final = 64
_NODE: Final = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+)(?::[0-9]{1,5})?|([0-9A-Fa-f:.]+)")
_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# As a token, with colons and brackets: some proxies forget the quotes around an address that has them.
_NODE_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z:\[\]]+"
_PAIR: Final = re.compile(rf'[ \t]*({_TOKEN})=(?:({_NODE_TOKEN})|"([\t !#-\[\]-~\x80-\xff]*)")[ \t]*')


class Client(Struct, frozen=True, gc=False):
    """The sender of a request, as far as it is known."""

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


class Peer(Struct, frozen=True):
    """What a request says of its sender, as received; trusted proxies are resolved by the manager (SECURITY R31)."""

    address: str | None = None
    """The address of the peer of the connection, without a port; None for a unix socket."""
    user_agent: str | None = None
    x_forwarded_for: Sequence[str] = ()
    """Every X-Forwarded-For line, in order."""
    forwarded: Sequence[str] = ()
    """Every Forwarded line (RFC 7239), in order."""


PeerOf: TypeAlias = Callable[[], "Peer | Client"] | None
"""Tells who sent a request when called: working it out costs more than reading a session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """The parts of a client that a session is bound to, and the policy for a mismatch (SECURITY R31)."""

    policy: BindingPolicy = "off"
    ip: bool = True
    user_agent: bool = True
    ipv4_prefix: int = 32
    """How many leading bits of an IPv4 address are compared, 24 to 32."""
    ipv6_prefix: int = 64
    """How many leading bits of an IPv6 address are compared, 48 to 128; privacy addresses change below 64."""

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
        """Encode the network of an address; text that is no address is encoded as it is."""
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


# The address of the client, found through the proxies that the settings trust (SECURITY R31). A forwarding header is
# read from the right, and never beyond the first address that is not trusted.


class TrustedProxies:
    """Finds the client's address behind trusted proxies; immutable, and defined for every header value."""

    def __init__(self, networks: Sequence[str] = ()) -> None:
        """Take addresses and networks such as ``10.0.0.0/8``, and ``unix`` for a proxy on a unix socket.

        Raises ``ConfigurationError`` for anything else, and for a network that trusts every address: then the
        leftmost entry would win, which the client writes.
        """
        if isinstance(networks, str):
            msg = f"trusted proxies are a list of networks, not one string; put [ ] around {networks!r}"
            raise ConfigurationError(msg)
        self._trusts_unix = UNIX_PEER in networks
        try:
            self._networks = tuple(parse_network(network) for network in networks if network != UNIX_PEER)
        except ValueError as error:
            raise ConfigurationError(f"SOJOURN_TRUSTED_PROXIES holds {error}") from None

    def __repr__(self) -> str:
        names = [UNIX_PEER] * self._trusts_unix + [str(network) for network in self._networks]
        return f"TrustedProxies({names!r})"

    def address(
        self, peer: str | None, x_forwarded_for: Sequence[str] = (), forwarded: Sequence[str] = ()
    ) -> str | None:
        """Return the client's address in canonical form, or None when not even the peer has one.

        *peer* is the address of the connection, the others are all values of the X-Forwarded-For and Forwarded
        headers in order. A peer that is not trusted is the client. An entry that is no address ends the walk at the
        proxy that sent it. When both headers are present and disagree, one of them was not written by the proxy, and
        the address of the peer is returned.
        """
        connection = parse_address(peer) if peer else None
        if not self._is_proxy(peer, connection):
            return _text(connection)
        claims = {
            self._walk(connection, entries(values))
            for values, entries in ((x_forwarded_for, _x_forwarded_for), (forwarded, _forwarded))
            if any(value.strip(" \t") for value in values)
        }
        return _text(claims.pop() if len(claims) == 1 else connection)

    def site(
        self, peer: str | None, proto: Sequence[str], host: Sequence[str], forwarded: Sequence[str] = ()
    ) -> tuple[str | None, str | None]:
        """Return the scheme and the host that the request was made to, as a trusted proxy says; None for what it leaves out.

        *proto*, *host* and *forwarded* are all values of X-Forwarded-Proto, X-Forwarded-Host and Forwarded. The last entry
        counts, which the proxy that speaks to us has written; empty text, which is no host, where two headers disagree.
        """
        if not self._is_proxy(peer, parse_address(peer) if peer else None):
            return None, None
        said: dict[str, set[str]] = {"proto": set(), "host": set()}
        for name, values in (("proto", proto), ("host", host)):
            said[name].update(value.strip(" \t") for value in islice(_from_the_right(values), 1))
        for element in islice(_from_the_right(forwarded), 1):
            for pair in map(_PAIR.fullmatch, element.split(";")):
                if pair is not None and pair[1].lower() in said:
                    said[pair[1].lower()].add(pair[2] or pair[3] or "")
        scheme, site = (None if not each else each.pop() if len(each) == 1 else "" for each in said.values())
        return scheme, site

    def _is_proxy(self, peer: str | None, connection: Address | None) -> bool:
        return self._trusts(connection) if connection else self._trusts_unix and not peer

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)

    def _walk(self, address: Address | None, entries: Iterator[Address | None]) -> Address | None:
        """Return the first address from the right that is not trusted, or the last that was reached."""
        for entry in islice(entries, HOP_LIMIT):
            if entry is None:
                return address
            address = entry
            if not self._trusts(address):
                return address
        return address


def parse_network(text: str) -> Network:
    """Return the network of a proxy; ValueError for what is none, and for one that trusts every address."""
    fault: object = "it is no text"
    try:
        network = ip_network(text) if isinstance(cast("object", text), str) else None
    except ValueError as error:
        network, fault = None, error
    if network is None:
        raise ValueError(
            f"{text!r}, which is no address and no network ({fault}); use for example '10.0.0.0/8', '2001:db8::/32' "
            f"or {UNIX_PEER!r}"
        )
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped:
        raise ValueError(f"{text!r}; write it as the IPv4 network that it stands for")
    if network.prefixlen == 0:
        raise ValueError(
            f"{text!r}, which trusts every client to name its own address; name the networks of the proxies alone"
        )
    return network


def _from_the_right(values: Sequence[str]) -> Iterator[str]:
    for value in reversed(values):
        yield from reversed(value.split(","))


def _x_forwarded_for(values: Sequence[str]) -> Iterator[Address | None]:
    return (_parse_node(entry.strip(" \t")) for entry in _from_the_right(values))


def _forwarded(values: Sequence[str]) -> Iterator[Address | None]:
    """Yield the addresses of a Forwarded header (RFC 7239) from the right, None for an element without exactly one.

    Commas and semicolons inside quotes end the element too, and make it unreadable: otherwise a client could open a
    quote that swallows what the proxy appends.
    """
    for element in _from_the_right(values):
        found: list[str] = []
        for part in element.split(";"):
            pair = _PAIR.fullmatch(part)
            if pair is None:
                found.clear()
                break
            if pair[1].lower() == "for":
                found.append(pair[2] or pair[3] or "")
        yield _parse_node(found[0]) if len(found) == 1 else None


def _parse_node(text: str) -> Address | None:
    """Parse an address with an optional port; return None for ``unknown`` and obfuscated names."""
    match = _NODE.fullmatch(text) if len(text) <= _ENTRY_LENGTH else None
    return parse_address(match[1] or match[2] or match[3]) if match else None


@lru_cache(maxsize=1024)
def parse_address(text: str) -> Address | None:
    """Parse an address, or return None; an IPv4 address mapped into IPv6 becomes IPv4, a zone is dropped."""
    if len(text) > _ENTRY_LENGTH:
        return None
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _text(address: Address | None) -> str | None:
    return None if address is None else str(address)
