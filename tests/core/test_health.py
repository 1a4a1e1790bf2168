"""How well sessions are served: up, degraded or down, server by server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import Health, HealthState, MemoryStore, SessionManager
from sojourn.breaker import BreakerState
from sojourn.errors import SessionUnavailableError
from sojourn.stores import StoreIO
from sojourn.testing import FakeClock, Fault, FaultyStore
from tests.core.models import Visit, make_manager
from tests.core.test_server_breakers import SERVERS, SpreadStore
from tests.testing.plain_stores import TokenStore

UP, DEGRADED, DOWN = HealthState
CLOSED, OPEN = BreakerState.CLOSED, BreakerState.OPEN


class Slow(FaultyStore):
    """A store whose reads take a quarter of a second."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        super().__init__(MemoryStore(clock=self.clock))
        self.io = StoreIO.BLOCKING

    async def load(self, id: str):
        self.clock.advance(0.25)
        return await super().load(id)


def manager_of(store: Slow) -> SessionManager[Visit]:
    return make_manager(
        store, clock=store.clock, settings={"retry_attempts": 0, "breaker": True, "breaker_minimum_calls": 5}
    )


def states(health: Health) -> list[tuple[str, str, HealthState]]:
    return [(each.store, each.server, each.state) for each in health.servers]


def test_a_store_that_answers_is_up_with_its_latency_and_its_breakers() -> None:
    health = manager_of(Slow()).blocking.health()
    (server,) = health.servers
    assert (health.state, health.cause) == (UP, "")
    assert (server.store, server.server, server.state, server.cause) == ("sessions", "", UP, "")
    assert (server.latency, server.reads, server.writes) == (0.25, CLOSED, CLOSED)


@pytest.mark.anyio
async def test_a_store_that_does_not_answer_is_down_with_the_cause_until_it_answers() -> None:
    store = Slow()
    sessions = manager_of(store)
    store.follow([Fault.BEFORE])
    health = await sessions.health()
    assert (health.state, health.cause) == (DOWN, "timeout")
    assert (await sessions.health()).state is UP


def test_an_open_breaker_is_the_cause_and_the_store_is_not_asked() -> None:
    store = Slow()
    sessions = manager_of(store).blocking
    store.follow(lambda _method: Fault.BEFORE)
    for _ in range(20):
        if sessions.health().servers[0].reads is OPEN:
            break
    asked = len(store.calls)
    health = sessions.health()
    assert len(store.calls) == asked
    assert (health.state, health.cause, health.servers[0].latency) == (DOWN, "breaker open", 0.0)


def test_a_store_that_reads_and_cannot_write_is_degraded() -> None:
    store = Slow()
    sessions = manager_of(store).blocking
    store.follow(lambda method: Fault.BEFORE if method == "create" else Fault.NONE)
    for _ in range(20):
        session = sessions.open(None)
        session.data.count += 1
        with pytest.raises(SessionUnavailableError):
            sessions.commit(session)
    health = sessions.health()
    (server,) = health.servers
    assert (health.state, health.cause) == (DEGRADED, "breaker of writes not closed")
    assert (server.reads, server.writes) == (CLOSED, OPEN)


@given(down=st.sets(st.sampled_from(SERVERS)))
def test_each_server_of_a_cluster_is_asked_and_it_is_down_when_all_are(down: set[str]) -> None:
    store = SpreadStore(FakeClock())
    store.partition.homes.update({f"{number:03d}{'0' * 40}": SERVERS[number % 3] for number in range(512)})
    store.down = down
    health = make_manager(store, settings={"retry_attempts": 0}).blocking.health()
    assert states(health) == [("sessions", server, DOWN if server in down else UP) for server in SERVERS]
    assert store.asked == list(SERVERS)
    assert health.state is {0: UP, 3: DOWN}.get(len(down), DEGRADED)
    assert health.cause == ("timeout" if down else "")


def test_a_store_in_the_cookie_is_up_and_its_revocation_index_as_it_answers() -> None:
    assert make_manager(TokenStore()).blocking.health() == Health(state=UP, servers=())
    index = FaultyStore(MemoryStore(), [Fault.NONE, Fault.BEFORE])
    settings = {"retry_attempts": 0, "single_process": True}
    sessions = make_manager(TokenStore(), revocation_store=index, settings=settings).blocking
    assert states(sessions.health()) == [("revocations", "", UP)]
    assert states(sessions.health()) == [("revocations", "", DOWN)]
