"""The URLs of servers, sentinels and clusters, and connections of redis-py that are made from them.

No connection retries by itself. No error quotes a URL, because it may hold a password.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl, unquote, urlencode

import redis
import redis.asyncio
import redis.asyncio.connection
import redis.asyncio.retry
import redis.backoff
import redis.connection
import redis.retry

from sojourn.errors import ConfigurationError
from sojourn_store_redis.deadlines import DeadlineSocket, ThreadDeadline

Node: TypeAlias = tuple[str, int]
"""Host and port of a server."""

_USERINFO: Final = r"(?:[^/?#]*@)?"
_HOST: Final = r"(?:\[[^@/?#\[\]]+\]|[^@/?#:\[\]]*)(?::\d+)?(?:/\d*)?"
_OPTIONS: Final = r"(?:\?(?:[^#&=]+=[^#&]*&?)*)?"
_URL: Final = re.compile(rf"(?:rediss?://{_USERINFO}{_HOST}|unix://{_USERINFO}/[^?#]*){_OPTIONS}")
"""What is read to its end; redis-py passes over the rest, and takes another host or database than the one that is meant."""
_NODE = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(?::(?P<port>\d{1,5}))?")


def read_url(url: str, *, is_async: bool) -> dict[str, Any]:
    """Return the options that redis-py reads in *url*, and its connection class; ConfigurationError when it cannot."""
    kind: Any = redis.asyncio.connection if is_async else redis.connection
    found: Mapping[str, Any] = {}
    is_readable = _URL.fullmatch(url.strip()) is not None
    if is_readable:
        try:
            found = kind.parse_url(url)
        except ValueError:
            is_readable = False
    if not is_readable:
        # outside the handler: the error of urllib quotes the URL, and a traceback would show it as the cause
        raise unreadable_url(url)
    if found.get("decode_responses"):
        raise ConfigurationError("SOJOURN_REDIS_URL must not ask for decode_responses: records are bytes")
    return {"connection_class": kind.Connection, **found}


def unreadable_url(url: str) -> ConfigurationError:
    """Return the error for a URL of no known form; it shows no part of it."""
    userinfo, is_given, _ = url.partition("://")[2].rpartition("@")
    if is_given and not {"/", "?", "#"}.isdisjoint(userinfo):
        return ConfigurationError(
            "SOJOURN_REDIS_URL cannot be read: its user or password holds a '/', '?' or '#' as it is, which ends that part "
            "of a URL; write %2F, %3F and %23 for them, %40 for '@', %3A for ':' and %25 for '%'"
        )
    return ConfigurationError(
        "SOJOURN_REDIS_URL cannot be read; write it as redis://user:password@host:6379/0, rediss://... for TLS, "
        "unix:///path/to/redis.sock?db=0, redis+sentinel://host:26379,host:26379/name-of-the-master/0 or "
        "redis+cluster://host:6379,host:6379/ (rediss+sentinel, rediss+cluster for TLS)"
    )


def read_node(text: str, port: int) -> Node:
    """Return host and port of ``host[:port]``, *port* by default; ValueError."""
    found = _NODE.fullmatch(text)
    if found is None:
        raise ValueError("no host and port")
    return found["host"].strip("[]"), int(found["port"] or port)


def connection_maker(options: Mapping[str, Any]) -> Callable[..., Any]:
    """Return a function that makes connections with *options*, to the host and port that it is called with, if it is.

    ConfigurationError when redis-py does not know an option.
    """
    known = {name: value for name, value in options.items() if name not in {"connection_class", "max_connections"}}

    def make(*node: Any) -> Any:
        return options["connection_class"](**{**known, **dict(zip(("host", "port"), node, strict=False))})

    check_options(make)
    return make


def check_options(make: Callable[[], object]) -> None:
    """Make a connection without connecting it; ConfigurationError when redis-py does not know an option."""
    try:
        make()
    except (TypeError, redis.RedisError):
        is_usable = False
    else:
        is_usable = True
    if not is_usable:
        # outside the handler: the error may quote the URL
        raise ConfigurationError(
            "SOJOURN_REDIS_URL has an option after ? that redis-py does not know; see its documentation of from_url"
        )


def no_retry(*, is_async: bool) -> Any:
    """Return a policy without retries: the manager retries, within the budget of the request."""
    kind: Any = redis.asyncio.retry.Retry if is_async else redis.retry.Retry
    return kind(redis.backoff.NoBackoff(), 0)


def describe(options: Mapping[str, Any]) -> str:
    """Return host and port, or the path of the socket, for messages."""
    if "path" in options:
        return str(options["path"])
    return f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"


def with_deadline(connection_class: type[Any], deadline: ThreadDeadline) -> type[Any]:
    """Return a subclass of *connection_class* whose sockets keep to *deadline*."""

    class DeadlineConnection(connection_class):  # type: ignore[misc] # TCP, TLS or unix: known by the url alone
        def _connect(self) -> Any:
            # raises when waiting for a free connection took all of the time
            deadline.remaining()
            parent: Any = super()
            return DeadlineSocket(parent._connect(), deadline)  # noqa: SLF001 - super() under a name that has a type

    return DeadlineConnection


SENTINEL_SCHEMES: Final = ("redis+sentinel", "rediss+sentinel")
_SENTINEL_PORT: Final = 26_379
_SERVERS: Final = r"://(?P<userinfo>(?:[^@/?]*@)?)(?P<nodes>[^@/?]+)"
_DATABASE: Final = r"(?:/(?P<db>\d*))?(?:\?(?P<query>.*))?"
_SENTINEL_URL: Final = re.compile(rf"(?P<scheme>rediss?)\+sentinel{_SERVERS}/(?P<name>[^/?]+){_DATABASE}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SentinelGroup:
    """The name of a master and the sentinels that watch it."""

    name: str
    nodes: tuple[Node, ...]
    server_url: str = field(repr=False)
    """A URL with the options of the master; its host is a placeholder."""
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    """For the sentinels themselves."""

    @classmethod
    def parse(cls, url: str) -> SentinelGroup:
        """Read ``redis+sentinel://[user:password@]host:port,host:port/name[/db][?options]``; ValueError."""
        found = _SENTINEL_URL.fullmatch(url)
        if found is None:
            raise ValueError("no redis+sentinel url")
        options = dict(parse_qsl(found["query"] or "", strict_parsing=bool(found["query"])))
        username, password = options.pop("sentinel_username", None), options.pop("sentinel_password", None)
        query = "?" + urlencode(options) if options else ""
        return cls(
            name=unquote(found["name"]),
            nodes=tuple(read_node(each, _SENTINEL_PORT) for each in found["nodes"].split(",")),
            server_url=f"{found['scheme']}://{found['userinfo']}master:6379/{found['db'] or 0}{query}",
            username=username,
            password=password,
        )

    @property
    def address(self) -> str:
        """Return the name of the master and its sentinels, for messages."""
        return f"{self.name} of the sentinels at {', '.join(f'{host}:{port}' for host, port in self.nodes)}"


CLUSTER_SCHEMES: Final = ("redis+cluster", "rediss+cluster")
_CLUSTER_PORT: Final = 6379
_CLUSTER_URL: Final = re.compile(rf"(?P<scheme>rediss?)\+cluster{_SERVERS}{_DATABASE}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterGroup:
    """Some nodes of a cluster; the others are learnt from them."""

    nodes: tuple[Node, ...]
    server_url: str = field(repr=False)
    """A URL with the options of a node; its host is a placeholder."""

    @classmethod
    def parse(cls, url: str) -> ClusterGroup:
        """Read ``redis+cluster://[user:password@]host:port,host:port/[?options]``; ValueError.

        ConfigurationError when it names a database: a cluster has only number 0.
        """
        found = _CLUSTER_URL.fullmatch(url)
        if found is None:
            raise ValueError("no redis+cluster url")
        query = found["query"]
        databases = [found["db"], *(value for name, value in parse_qsl(query or "") if name == "db")]
        if any(int(each) for each in databases if each):
            raise ConfigurationError(
                "SOJOURN_REDIS_URL names a database other than 0, which a Redis Cluster does not have; end it with "
                "/0 or /, and set SOJOURN_REDIS_NAMESPACE to keep applications apart"
            )
        return cls(
            nodes=tuple(read_node(each, _CLUSTER_PORT) for each in found["nodes"].split(",")),
            server_url=f"{found['scheme']}://{found['userinfo']}node:{_CLUSTER_PORT}/0"
            + ("" if query is None else "?" + query),
        )

    @property
    def address(self) -> str:
        """Return the nodes that were given, for messages."""
        return f"the cluster at {', '.join(f'{host}:{port}' for host, port in self.nodes)}"
