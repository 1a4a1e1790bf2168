"""What ``redis+cluster://`` says: some of the nodes, and how to speak to all of them.

The one rule: nothing here is printed but hosts and ports.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl

from sojourn.errors import ConfigurationError
from sojourn_store_redis.connections import Node, read_node

SCHEMES: Final = ("redis+cluster", "rediss+cluster")
_PORT: Final = 6379
_URL: Final = re.compile(
    r"(?P<scheme>rediss?)\+cluster://(?:(?P<userinfo>[^@/?]*)@)?(?P<nodes>[^@/?]+)"
    r"(?:/(?P<db>\d*))?(?:\?(?P<query>.*))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterGroup:
    """A cluster by some of its nodes; the others are learnt from these."""

    nodes: tuple[Node, ...]
    server_url: str = field(repr=False)
    """How to speak to a node, under a host that is replaced by the node's."""

    @classmethod
    def parse(cls, url: str) -> ClusterGroup:
        """Read ``redis+cluster://[user:password@]host:port,host:port/[?options]``; ValueError.

        ConfigurationError when it names a database: a cluster has only number 0.
        """
        found = _URL.fullmatch(url)
        if found is None:
            raise ValueError("no redis+cluster url")
        query = found["query"]
        databases = [found["db"], *(value for name, value in parse_qsl(query or "") if name == "db")]
        if any(int(each) for each in databases if each):
            raise ConfigurationError(
                "SOJOURN_REDIS_URL names a database other than 0, which a Redis Cluster does not have; end it with "
                "/0 or /, and set SOJOURN_REDIS_NAMESPACE to keep applications apart"
            )
        userinfo = "" if found["userinfo"] is None else found["userinfo"] + "@"
        return cls(
            nodes=tuple(read_node(each, _PORT) for each in found["nodes"].split(",")),
            server_url=f"{found['scheme']}://{userinfo}node:{_PORT}/0" + ("" if query is None else "?" + query),
        )

    @property
    def address(self) -> str:
        """Name the cluster by the nodes that were given, for messages."""
        return f"the cluster at {', '.join(f'{host}:{port}' for host, port in self.nodes)}"
