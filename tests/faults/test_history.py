"""Histories of many clients, judged; and each violation that a history once showed, as the smallest test that shows it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import pytest

from sojourn import LoadOutcome, SessionManager
from sojourn.settings import SessionSettings
from sojourn.stores import MemoryStore
from sojourn.testing import FakeClock
from tests.core.models import Visit


class OvertakenStore(MemoryStore):
    """Something happens between the answer of the index and what the caller does with it."""

    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def ids_of(self, label: str) -> Sequence[str]:
        ids = await super().ids_of(label)
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        return ids


@pytest.mark.anyio
@pytest.mark.parametrize("renews", [False, True])
async def test_revoking_all_ends_a_session_that_is_moved_to_another_token_meanwhile(renews: bool) -> None:
    clock = FakeClock()
    store = OvertakenStore(clock=clock)
    settings = SessionSettings(_env_file=None, preset="testing", renew_after=60 if renews else None)
    sessions: SessionManager[Visit] = SessionManager(Visit, store, settings=settings, clock=clock)
    session = await sessions.open(None)
    session.login("42")
    old = (await sessions.commit(session)).token
    clock.advance(61)
    moved: list[str] = []

    async def move() -> None:
        in_flight = await sessions.open(old)
        in_flight.data.count += 1
        if not renews:
            in_flight.rotate()
        moved.append((await sessions.commit(in_flight)).token or "")

    store.meanwhile = move
    await sessions.revoke_all("42")
    assert moved[0] not in ("", old)
    for token in (old, moved[0]):
        assert (await sessions.open(token)).outcome is LoadOutcome.UNKNOWN
    assert not await sessions.list("42")


@pytest.mark.anyio
async def test_revoking_all_but_one_asks_until_nothing_new_is_found() -> None:
    store = OvertakenStore()
    sessions: SessionManager[Visit] = SessionManager(
        Visit, store, settings=SessionSettings(_env_file=None, preset="testing")
    )
    tokens: list[str] = []
    for _ in range(3):
        session = await sessions.open(None)
        session.login("42")
        tokens.append((await sessions.commit(session)).token or "")
    kept = await sessions.open(tokens[0])
    assert await sessions.revoke_all("42", except_id=kept.id) == 2
    assert [info.id for info in await sessions.list("42")] == [kept.id]
