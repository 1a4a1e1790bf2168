"""The reader of the sessions that Django's engines ``db`` and ``cached_db`` keep in the database."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from importlib import import_module
from typing import Any, Final

from sojourn import ForeignSession
from sojourn.errors import StoreUnavailableError
from sojourn.stores import SYSTEM_CLOCK, Clock, StoreIO
from sojourn_contrib_migrate.signing import DjangoSigner, RefusedError, require_secrets

_KEY: Final = re.compile(r"[0-9a-z]{8,40}")


class DjangoDatabase:
    """Reads the table ``django_session``, signed JSON; never pickle.

    *fetch* returns ``session_data`` and ``expire_date``, an aware datetime, for a session key, or None; *delete* deletes
    its row. Without them Django's own model does both, over the database *using*. With *end* the row is deleted once our
    session has taken its place. *salt* names the class of the engine, where the application has one of its own.
    """

    io = StoreIO.BLOCKING

    def __init__(
        self,
        secret_key: str | bytes,
        *,
        fallbacks: Sequence[str | bytes] = (),
        fetch: Callable[[str], tuple[str, datetime] | None] | None = None,
        delete: Callable[[str], object] | None = None,
        using: str | None = None,
        salt: str = "django.contrib.sessions.SessionStore",
        cookie_name: str = "sessionid",
        end: bool = False,
        slides: bool = False,
        name: str = "django-db",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.name = name
        self.cookie_name = cookie_name
        self._signer = DjangoSigner(require_secrets(name, [secret_key, *fallbacks]), salt)
        self._fetch = fetch or self._fetch_row
        self._delete = delete or self._delete_row
        self._using = using
        self._ends = end
        self._slides = slides
        self._clock = clock

    async def read(self, value: str) -> ForeignSession | None:
        """Return the session of a cookie; None when there is none, or it is damaged or expired."""
        if not _KEY.fullmatch(value):
            return None
        try:
            row = self._fetch(value)
        except Exception as error:
            raise StoreUnavailableError(f"the sessions of {self.name}: {type(error).__name__}") from error
        if row is None:
            return None
        signed, expire_date = row
        ends = expire_date.timestamp()
        try:
            data, _ = self._signer.loads(signed)
        except RefusedError:
            return None
        if self._clock.time() >= ends:
            return None
        return ForeignSession(
            reader=self.name, identity=value.encode(), data=data, expires_at=ends, slides=self._slides
        )

    async def end(self, session: ForeignSession) -> None:
        """Delete the row, if that was asked for."""
        if self._ends:
            try:
                self._delete(session.identity.decode())
            except Exception as error:
                raise StoreUnavailableError(f"the sessions of {self.name}: {type(error).__name__}") from error

    async def aclose(self) -> None:
        """Do nothing: the connections are Django's or the application's."""

    def _fetch_row(self, key: str) -> tuple[str, datetime] | None:
        row: tuple[str, datetime] | None = (
            self._rows().filter(session_key=key).values_list("session_data", "expire_date").first()
        )
        return row

    def _delete_row(self, key: str) -> None:
        self._rows().filter(session_key=key).delete()

    def _rows(self) -> Any:
        # In a worker thread nobody else does it; inside a transaction it does nothing.
        import_module("django.db").close_old_connections()
        return import_module("django.contrib.sessions.models").Session.objects.using(self._using)
