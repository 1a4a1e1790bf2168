"""What a store declares by an attribute counts for every store alike: the store in memory has no privilege."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sojourn.manager
from sojourn import AtRestStore, EvictingStore, InProcessStore, MemoryStore, SessionManager
from sojourn.crypto.keys import new_secret
from sojourn.errors import ConfigurationError
from sojourn.stores import FORMAT, MOVED, Created, Deleted, Record, Replaced, StoreIO
from sojourn_testing import FakeClock, RecordingObserver
from tests.core.models import make_manager


class Foreign:
    """A store of somebody else: no subclass of ours, in whose payloads one can look."""

    io = StoreIO.NONE

    def __init__(self, clock: FakeClock, **declared: Any) -> None:
        self.inner = MemoryStore(clock=clock)
        self.payloads: list[bytes] = []
        for name, value in declared.items():
            setattr(self, name, value)

    async def load(self, id: str) -> Record | None:
        return await self.inner.load(id)

    async def create(self, record: Record, *, write_id: bytes) -> Created:
        self.payloads.append(record.payload)
        return await self.inner.create(record, write_id=write_id)

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        return await self.inner.replace(record, expected=expected, write_id=write_id)

    async def touch(self, id: str, idle_deadline: float) -> bool:
        return await self.inner.touch(id, idle_deadline)

    async def delete(self, id: str, *, expected: int | None = None) -> Deleted:
        return await self.inner.delete(id, expected=expected)

    async def aclose(self) -> None:
        await self.inner.aclose()


def stored(store: Foreign, clock: FakeClock, **settings: Any) -> bytes:
    """Return the payload that the store was given for a session with a note."""
    manager: SessionManager[Any] = make_manager(store, clock=clock, settings=settings)
    session = manager.blocking.open(None)
    session.data.note = "read me"
    manager.blocking.commit(session)
    (payload,) = store.payloads
    return payload


@pytest.mark.parametrize(
    ("declared", "encrypt", "is_readable"),
    [
        ({}, None, False),
        ({"in_process": True}, None, True),
        ({"in_process": False}, None, False),
        ({"encrypt": None}, None, False),
        ({"encrypt": False}, None, True),
        ({"encrypt": True, "in_process": True}, None, False),
        ({"encrypt": None, "in_process": True}, None, True),
        ({"encrypt": False, "in_process": True}, True, False),
        ({"encrypt": True}, False, True),
    ],
)
def test_a_payload_is_encrypted_as_the_settings_then_the_store_say(
    declared: dict[str, Any], encrypt: bool | None, is_readable: bool
) -> None:
    clock = FakeClock()
    store = Foreign(clock, **declared)
    settings = {} if encrypt is None else {"encrypt": encrypt}
    assert (b"read me" in stored(store, clock, **settings)) is is_readable


@pytest.mark.parametrize(
    ("declared", "warns"), [({}, False), ({"in_process": False}, False), ({"in_process": True}, True)]
)
def test_a_store_that_ends_with_the_process_is_warned_of_in_production(
    declared: dict[str, Any], warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    make_manager(Foreign(clock, **declared), clock=clock, settings={"preset": "production", "secret": new_secret()})
    assert ("kept in the memory of this process" in caplog.text) is warns


def test_high_security_refuses_a_foreign_store_that_declares_no_encryption() -> None:
    values = {"preset": "high_security", "idle_timeout": "15m", "absolute_timeout": "12h", "secret": new_secret()}
    with pytest.raises(ConfigurationError, match="encryption is turned off for Foreign"):
        make_manager(Foreign(FakeClock(), encrypt=False), settings=values)


def test_f14_the_evictions_of_a_foreign_store_are_reported_unless_somebody_else_listens() -> None:
    observer = RecordingObserver()
    clock = FakeClock()
    store: Any = Foreign(clock, on_evict=None)
    make_manager(store, clock=clock, observers=[observer])
    store.on_evict("A" * 43)
    assert [(event.name, event.id) for event in observer.events] == [("evicted", "A" * 43)]

    heard: list[str] = []
    listener: Callable[[str], None] = heard.append
    taken: Any = Foreign(clock, on_evict=listener)
    make_manager(taken, clock=clock)
    assert taken.on_evict is listener


def test_the_store_in_memory_declares_what_it_is() -> None:
    store = MemoryStore()
    assert isinstance(store, InProcessStore)
    assert isinstance(store, EvictingStore)
    assert not isinstance(store, AtRestStore)


def test_the_manager_asks_no_store_for_its_class() -> None:
    folder = Path(str(sojourn.manager.__file__)).parent
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.Name) and node.id == "MemoryStore"), f"{path.name}:{node.lineno}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
                asked = node.args[1].value if isinstance(node.args[1], ast.Constant) else None
                assert asked not in {"encrypt", "longest_load", "spares_tasks", "in_process", "on_evict"}, path.name


@given(st.binary(min_size=1).filter(lambda payload: payload[0] != FORMAT) | st.binary(min_size=1, max_size=2))
def test_no_payload_but_an_envelope_says_of_itself_that_its_session_is_over(payload: bytes) -> None:
    assert not Record("a" * 43, 1, payload, 60.0, 60.0).is_end


@given(st.binary(min_size=1, max_size=1), st.integers(0, 255), st.binary())
def test_an_envelope_says_by_one_flag_that_its_session_moved(suite: bytes, flags: int, rest: bytes) -> None:
    payload = bytes((FORMAT,)) + suite + bytes((flags,)) + rest
    assert Record("a" * 43, 1, payload, 60.0, 60.0).is_end is bool(flags & MOVED)
    assert Record("a" * 43, 1, b"", 60.0, 60.0).is_end
