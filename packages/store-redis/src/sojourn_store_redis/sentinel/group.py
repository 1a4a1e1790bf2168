"""What ``redis+sentinel://`` says: the sentinels, the name of the master, and how to speak to either.

The one rule: nothing here is printed but hosts, ports and the name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote, urlencode

from sojourn_store_redis.connections import Node, read_node

SCHEMES: Final = ("redis+sentinel", "rediss+sentinel")
_PORT: Final = 26_379
_URL: Final = re.compile(
    r"(?P<scheme>rediss?)\+sentinel://(?:(?P<userinfo>[^@/?]*)@)?(?P<nodes>[^@/?]+)/(?P<name>[^/?]+)"
    r"(?:/(?P<db>\d*))?(?:\?(?P<query>.*))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SentinelGroup:
    """A master by its name, and who knows where it is."""

    name: str
    nodes: tuple[Node, ...]
    server_url: str = field(repr=False)
    """How to speak to the master, under a host that is replaced by the one the sentinels name."""
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    """For the sentinels themselves."""

    @classmethod
    def parse(cls, url: str) -> SentinelGroup:
        """Read ``redis+sentinel://[user:password@]host:port,host:port/name[/db][?options]``; ValueError."""
        found = _URL.fullmatch(url)
        if found is None:
            raise ValueError("no redis+sentinel url")
        options = dict(parse_qsl(found["query"] or "", strict_parsing=bool(found["query"])))
        username, password = options.pop("sentinel_username", None), options.pop("sentinel_password", None)
        userinfo = "" if found["userinfo"] is None else found["userinfo"] + "@"
        query = "?" + urlencode(options) if options else ""
        return cls(
            name=unquote(found["name"]),
            nodes=tuple(read_node(each, _PORT) for each in found["nodes"].split(",")),
            server_url=f"{found['scheme']}://{userinfo}master:6379/{found['db'] or 0}{query}",
            username=username,
            password=password,
        )

    @property
    def address(self) -> str:
        """Name the master and the sentinels, for messages."""
        return f"{self.name} of the sentinels at {', '.join(f'{host}:{port}' for host, port in self.nodes)}"
