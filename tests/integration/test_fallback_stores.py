"""The published suite over two real stores as one: from Redis to Redis, and from Redis to a database."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import settings

from sojourn.manager.engine import blocking_twin
from sojourn.stores import Clock, Store
from sojourn.stores.fallback import FallbackStore
from sojourn.testing import StoreSuite
from sojourn_store_redis import RedisStore
from sojourn_store_sql import SqlStore
from tests.core.test_fallback_store import Divided, options
from tests.servers import RedisServer

_numbers = itertools.count(1)


class _PairSuite(StoreSuite):
    indexed = True
    scannable = True
    tolerance = 0.0
    schedules = 4
    machine_settings = settings(max_examples=10)
    server: RedisServer
    folder: Path

    @pytest.fixture(autouse=True)
    def _on_a_server(self, redis_server: RedisServer, tmp_path: Path) -> None:
        redis_server.start_if_stopped()
        type(self).server, type(self).folder = redis_server, tmp_path

    def redis(self, clock: Clock, namespace: str) -> Store:
        return RedisStore.from_url(self.server.url, clock=clock, namespace=namespace, timeout=20.0)


@pytest.mark.server
@pytest.mark.slow
class TestFromRedisToRedis(_PairSuite):
    def make_store(self, clock: Clock) -> Store:
        number = next(_numbers)
        old, new = self.redis(clock, f"old-{number}"), self.redis(clock, f"new-{number}")
        return FallbackStore(new, old, moves=True, **options(clock))


class _FromBefore(_PairSuite):
    # The bench makes records in two steps, which others may come between.
    test_s20_threads_create_a_record_once = None  # type: ignore[assignment]
    test_s20_two_programs_meet_in_every_order_of_their_calls = None  # type: ignore[assignment]
    test_s20_tasks_create_a_record_once = None


@pytest.mark.server
@pytest.mark.slow
class TestRecordsInRedisFromBefore(_FromBefore):
    def make_store(self, clock: Clock) -> Store:
        number = next(_numbers)
        old, new = self.redis(clock, f"old-{number}"), self.redis(clock, f"new-{number}")
        return Divided(new, old, moves=True, **options(clock)).blocking_twin()


@pytest.mark.server
@pytest.mark.slow
class TestFromRedisToADatabase(_PairSuite):
    def make_store(self, clock: Clock) -> Store:
        number = next(_numbers)
        url = f"sqlite:///{self.folder}/sessions.db"
        new = SqlStore.from_url(url, clock=clock, namespace=f"new_{number}", create=True, durable=False, timeout=20.0)
        old = blocking_twin(self.redis(clock, f"old-{number}"))
        return FallbackStore(new, old, moves=True, **options(clock))
