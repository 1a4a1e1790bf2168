"""A process of its own with one TCP proxy for each node's invalidation link."""

from __future__ import annotations

from multiprocessing.connection import Connection
from typing import Any, Self

from tests.store_redis.local_cache.proxy import Proxy
from verification.processes import afresh


class Proxies:
    """Start the process; ``tell`` changes one proxy."""

    def __init__(self, port: int, count: int) -> None:
        context = afresh()
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, port, count), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        self.urls: list[str] = self._pipe.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.send(None)
        self._process.join(5)
        self._process.kill()

    def tell(self, node: int, what: str, value: float = 0.0) -> None:
        """Change the proxy of *node*: `cut`, `blackhole` or `delay`."""
        self._pipe.send((node, what, value))


def _serve(pipe: Connection[Any, Any], port: int, count: int) -> None:
    proxies = [Proxy(port).__enter__() for _ in range(count)]
    pipe.send([proxy.url for proxy in proxies])
    while (order := pipe.recv()) is not None:
        node, what, value = order
        match what:
            case "cut":
                proxies[node].cut()
            case "blackhole":
                proxies[node].is_blackhole = bool(value)
            case _:
                proxies[node].delay = value
