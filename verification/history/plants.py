"""Bugs to plant, so that it shows that they are found.

They stand between the product and its store or its client; the product itself is never touched.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final, cast

from sojourn.errors import SessionUnavailableError
from sojourn.stores import WRITE_ID_BYTES, Created, Deleted, Record, Replaced, Store, TwinnedStore

PLANTS: Final = ("retry-without-write-id", "clear-cookie-on-error", "upsert", "shifted-reply")


def planted(store: Store, plant: str) -> Store:
    """Return the store, with a bug between it and the manager where one of the store's bugs is asked for."""
    if plant in ("", "clear-cookie-on-error"):
        return store
    return PlantedStore(store, plant)


class PlantedStore:
    """A store with one bug; everything else is the real one's."""

    def __init__(self, store: Store, plant: str) -> None:
        self._store: Any = store
        self._plant = plant
        self._shifted: list[str] = []
        self.io = store.io
        self.encrypt = getattr(store, "encrypt", None)

    def blocking_twin(self) -> Store:
        """Return the twin with the same bug."""
        inner = self._store
        return PlantedStore(inner.blocking_twin() if isinstance(inner, TwinnedStore) else inner, self._plant)

    async def load(self, id: str) -> Record | None:
        """Answer with the reply that the call before was owed, after a call that failed."""
        if self._plant != "shifted-reply":
            return cast("Record | None", await self._store.load(id))
        owed = self._shifted.pop() if self._shifted else id
        try:
            record: Record | None = await self._store.load(owed)
        except SessionUnavailableError:
            self._shifted = [id]
            raise
        return replace(record, id=id) if record is not None else None

    async def create(self, record: Record, *, write_id: bytes) -> Created:
        return cast("Created", await self._store.create(record, write_id=write_id))

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        """Forget the write id, or bring back what is gone."""
        if self._plant == "retry-without-write-id":
            write_id = secrets.token_bytes(WRITE_ID_BYTES)
        answer: Replaced = await self._store.replace(record, expected=expected, write_id=write_id)
        if answer is Replaced.GONE and self._plant == "upsert":
            await self._store.create(record, write_id=write_id)
            return Replaced.OK
        return answer

    async def touch(self, id: str, idle_deadline: float) -> bool:
        return bool(await self._store.touch(id, idle_deadline))

    async def delete(self, id: str, *, expected: int | None = None) -> Deleted:
        return cast("Deleted", await self._store.delete(id, expected=expected))

    async def ids_of(self, label: str) -> Sequence[str]:
        return cast("Sequence[str]", await self._store.ids_of(label))

    async def sleep(self, seconds: float) -> None:
        await self._store.sleep(seconds)

    async def aclose(self) -> None:
        await self._store.aclose()


def clearing_asgi(application: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Clear the cookie with every 503, as a middleware does that takes an outage for an unknown session."""

    async def cleared(scope: Any, receive: Any, send: Any) -> None:
        async def send_wrapped(message: Any) -> None:
            if message["type"] == "http.response.start" and message["status"] == 503:
                line = f"{name}=; Max-Age=0".encode()
                message = {**message, "headers": [*message["headers"], (b"set-cookie", line)]}
            await send(message)

        await application(scope, receive, send_wrapped)

    return cleared


def clearing_wsgi(application: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Do what `clearing_asgi` does, under WSGI."""

    def cleared(environ: Any, start_response: Any) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            more = [("Set-Cookie", f"{name}=; Max-Age=0")] if status.startswith("503") else []
            return start_response(status, [*headers, *more], exc_info)

        return cast("Iterable[bytes]", application(environ, start))

    return cleared
