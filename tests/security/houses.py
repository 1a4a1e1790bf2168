"""Deployments under attack: nodes that share a store, a clock and secrets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sojourn import CookieAction, MemoryStore, SessionManager, new_secret
from sojourn.manager import BlockingManager
from sojourn.stores import Record
from sojourn.testing import FakeClock, RecordingObserver
from sojourn_store_cookie import CookieStore
from sojourn_store_redis import RedisStore
from sojourn_store_redis.records import HEAD_BYTES, unpack
from tests.core.models import make_manager
from tests.servers import RedisServer

Change = Callable[[bytes], bytes]


class House:
    """One deployment on one kind of store: ``memory`` (sealed), ``redis`` or ``cookie``."""

    def __init__(self, kind: str, server: RedisServer | None) -> None:
        self.kind = kind
        self.server = server
        self.clock = FakeClock()
        self.secret = new_secret()
        self.observer = RecordingObserver()
        self.memory = MemoryStore(clock=self.clock)
        self._clients: list[Any] = []

    @property
    def is_client_side(self) -> bool:
        return self.kind == "cookie"

    def store(self, namespace: str = "sojourn") -> Any:
        if self.kind == "redis":
            assert self.server is not None
            client = self.server.client()
            self._clients.append(client)
            return RedisStore(client, namespace=namespace, clock=self.clock)
        return CookieStore() if self.kind == "cookie" else self.memory

    def node(self, *, store: Any = None, parts: dict[str, Any] | None = None, **settings: Any) -> SessionManager[Any]:
        """Return a manager over the store, as one process would build it."""
        values = {"encrypt": True, "secret": self.secret, **settings}
        if "secrets" in settings:
            del values["secret"]
        return make_manager(
            store if store is not None else self.store(),
            clock=self.clock,
            settings=values,
            **{"observers": [self.observer], **(parts or {})},
        )

    def raw(self, id: str) -> bytes:
        """Return the payload that the store holds for an id."""
        if self.kind == "redis":
            assert self.server is not None
            with self.server.client() as client:
                value = client.get(f"sojourn:session:{id}")
            record = unpack(id, value)
            assert record is not None
            return record.payload
        blob = self.memory._blobs[id.encode()]
        return blob[self._payload_at(blob) :]

    def write_raw(self, id: str, payload: bytes, source: str | None = None) -> None:
        """Put *payload* behind the head of the record *source* (or *id* itself), as one who can write may."""
        source = source or id
        if self.kind == "redis":
            assert self.server is not None
            with self.server.client() as client:
                value: bytes = client.get(f"sojourn:session:{source}")
                length = 0 if value[HEAD_BYTES - 1] == 255 else value[HEAD_BYTES - 1]
                client.set(f"sojourn:session:{id}", value[: HEAD_BYTES + length] + payload)
            return
        blob = self.memory._blobs[source.encode()]
        self.memory._blobs[id.encode()] = blob[: self._payload_at(blob)] + payload

    @staticmethod
    def _payload_at(blob: bytes) -> int:
        return 26 + blob[24] * 8 + blob[25]

    def close(self) -> None:
        for client in self._clients:
            client.close()


def begin(node: BlockingManager[Any], *, principal: str | None = None, note: str = "a note") -> str:
    """Make a session with data in it, and return its token."""
    session = node.open(None)
    session.data.note = note
    if principal is not None:
        session.login(principal)
    change = node.commit(session)
    assert change.action is CookieAction.SET
    assert change.token is not None
    return change.token


def outcome(node: BlockingManager[Any], token: str) -> str:
    """Return how opening ends; whatever is no session must look like a new one."""
    session = node.open(token)
    if session.outcome.value != "loaded":
        assert session.principal is None
        assert session.data.note == ""
        assert session.authenticated_at is None
        assert dict(session) == {}
    return session.outcome.value


def copy_of(record: Record, **changes: Any) -> Record:
    """Return the record with changes."""
    from dataclasses import replace

    return replace(record, **changes)
