"""The kinds of store on which every adapter passes the scenarios, to be mixed into its suite."""

from __future__ import annotations

import pytest
import redis

from sojourn import ClientSideStore, Store
from sojourn_store_cookie import CookieStore
from sojourn_store_redis import RedisStore
from tests.servers import RedisServer


class InCookies:
    def make_store(self) -> ClientSideStore:
        return CookieStore()


@pytest.mark.server
class OnRedis:
    """Over connections that suspend, for adapters under an event loop."""

    @pytest.fixture(autouse=True)
    def _server(self, redis_server: RedisServer) -> None:
        self.url = redis_server.url

    def make_store(self) -> Store:
        return RedisStore.from_url(self.url, timeout=10.0, connect_timeout=10.0)


class OnBlockingRedis(OnRedis):
    """Over connections that block, for adapters under WSGI."""

    def make_store(self) -> Store:
        return RedisStore(redis.Redis.from_url(self.url))
