"""The client's address, found through the proxies that the settings name.

The one rule: a forwarding header counts from the right, and never beyond the first address that is not trusted
(SECURITY R31).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import islice
from typing import Final

from sojourn.errors import ConfigurationError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

UNIX_PEER: Final = "unix"
"""The trusted network that stands for a peer without an address: a proxy on a unix socket."""
HOP_LIMIT: Final = 32
"""How many entries of a forwarding header are looked at."""

_ENTRY_LENGTH: Final = 64
_NODE: Final = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+)(?::[0-9]{1,5})?|([0-9A-Fa-f:.]+)")
_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_NODE_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z:\[\]]+"  # some proxies forget the quotes around colons and brackets
_PAIR: Final = re.compile(rf'[ \t]*({_TOKEN})=(?:({_NODE_TOKEN})|"([\t !#-\[\]-~\x80-\xff]*)")[ \t]*')


class TrustedProxies:
    """Find the client's address behind the proxies that the settings name; immutable, total on any header."""

    __slots__ = ("_networks", "_trusts_unix")

    def __init__(self, networks: Sequence[str] = ()) -> None:
        """Take addresses and networks such as ``10.0.0.0/8``, and ``unix`` for a proxy on a unix socket.

        Raises ``ConfigurationError`` for anything else, and for a network that trusts every address: then the
        leftmost entry would win, which the client writes.
        """
        self._trusts_unix = UNIX_PEER in networks
        self._networks = tuple(_parse_network(network) for network in networks if network != UNIX_PEER)

    def __repr__(self) -> str:
        names = [UNIX_PEER] * self._trusts_unix + [str(network) for network in self._networks]
        return f"TrustedProxies({names!r})"

    def address(
        self, peer: str | None, x_forwarded_for: Sequence[str] = (), forwarded: Sequence[str] = ()
    ) -> str | None:
        """Return the client's address in canonical form, or None when not even the peer has one.

        *peer* is the address of the connection, the others are all values of the X-Forwarded-For and Forwarded
        headers in order. A peer that is not trusted is the client. An entry that is no address ends the walk at the
        proxy that sent it. When both headers are there and disagree, one of them was not written by the proxy, and
        the peer itself is the answer.
        """
        connection = parse_address(peer) if peer else None
        trusted = self._trusts(connection) if connection else self._trusts_unix and not peer
        if not trusted:
            return _text(connection)
        claims = {
            self._walk(connection, entries(values))
            for values, entries in ((x_forwarded_for, _x_forwarded_for), (forwarded, _forwarded))
            if any(value.strip(" \t") for value in values)
        }
        return _text(claims.pop() if len(claims) == 1 else connection)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)

    def _walk(self, address: Address | None, entries: Iterator[Address | None]) -> Address | None:
        """Go from right to left as long as the address reached is trusted."""
        for entry in islice(entries, HOP_LIMIT):
            if entry is None:
                return address
            address = entry
            if not self._trusts(address):
                return address
        return address


def _parse_network(text: str) -> Network:
    try:
        network = ip_network(text)
    except ValueError as error:
        msg = (
            f"SOJOURN_TRUSTED_PROXIES holds {text!r}, which is no address and no network ({error}); "
            "use for example '10.0.0.0/8', '2001:db8::/32' or 'unix'"
        )
        raise ConfigurationError(msg) from error
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped:
        msg = f"SOJOURN_TRUSTED_PROXIES holds {text!r}; write it as the IPv4 network that it stands for"
        raise ConfigurationError(msg)
    if network.prefixlen == 0:
        msg = (
            f"SOJOURN_TRUSTED_PROXIES holds {text!r}, which trusts every client to name its own address; "
            "name the networks of the proxies alone"
        )
        raise ConfigurationError(msg)
    return network


def _from_the_right(values: Sequence[str]) -> Iterator[str]:
    for value in reversed(values):
        yield from reversed(value.split(","))


def _x_forwarded_for(values: Sequence[str]) -> Iterator[Address | None]:
    return (_parse_node(entry.strip(" \t")) for entry in _from_the_right(values))


def _forwarded(values: Sequence[str]) -> Iterator[Address | None]:
    """Read RFC 7239 from the right.

    Commas and semicolons inside quotes end the element all the same, and make it unreadable: otherwise a client could
    open a quote that swallows what the proxy appends.
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
    """Read an address with an optional port; ``unknown`` and obfuscated names are None."""
    match = _NODE.fullmatch(text) if len(text) <= _ENTRY_LENGTH else None
    return parse_address(match[1] or match[2] or match[3]) if match else None


@lru_cache(maxsize=1024)
def parse_address(text: str) -> Address | None:
    """Read an address, or return None; an IPv4 one inside IPv6 becomes IPv4, a zone is dropped."""
    if len(text) > _ENTRY_LENGTH:
        return None
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _text(address: Address | None) -> str | None:
    return None if address is None else str(address)
