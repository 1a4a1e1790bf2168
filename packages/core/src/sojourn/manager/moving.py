"""A store with the one behind it from which sessions move, each sealed for where it is (docs/decisions/0032).

What a record is bound to are the namespaces of its store and of the application (SECURITY R25, R42), so what moves is opened
and sealed anew, deadlines and version kept.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sojourn.codec import COMPRESSED, PLAIN, Bound, Codec, CorruptEnvelopeError, FutureEnvelopeError
from sojourn.errors import ConfigurationError, SessionTooLargeError
from sojourn.events import EventDispatcher
from sojourn.manager.engine import LAST_VERSION, TRAIL_BYTES, blocking_twin
from sojourn.stores import (
    STUB,
    ClientSideStore,
    Clock,
    IndexedStore,
    Record,
    ScannableStore,
    Store,
    StoreIO,
    is_client_side,
)
from sojourn.stores.fallback import Carry, FallbackStore

if TYPE_CHECKING:
    from sojourn.settings import SessionSettings

_log: Final = logging.getLogger("sojourn.manager")


def with_fallback(
    store: Store | ClientSideStore,
    fallback: Store,
    settings: SessionSettings,
    codec: Codec,
    fallback_codec: Codec,
    events: EventDispatcher,
    clock: Clock,
    *,
    longest: float,
) -> Store | ClientSideStore:
    """Return both as one until the date that the settings name, then the store alone. Raise ConfigurationError."""
    if is_client_side(store) or is_client_side(fallback) or not isinstance(store, Store):
        msg = "SOJOURN_FALLBACK_STORE is for stores on a server: what is in a cookie cannot be looked up, nor deleted"
        raise ConfigurationError(msg)
    for protocol, what in ((IndexedStore, "find the sessions of a user"), (ScannableStore, "go through its records")):
        if isinstance(store, protocol) and not isinstance(fallback, protocol):
            msg = f"{type(fallback).__name__}, the fallback, cannot {what}, and {type(store).__name__} can: some would be missed"
            raise ConfigurationError(msg)
    until, now = settings.fallback_until, clock.time()
    if until is None or until.timestamp() > now + longest:
        msg = (
            f"SOJOURN_FALLBACK_UNTIL is {until.isoformat() if until else 'not set'}: say until when the fallback is asked, at "
            f"most {timedelta(seconds=longest)} ahead, for no session from before lives longer"
        )
        raise ConfigurationError(msg)
    if until.timestamp() <= now:
        _log.warning(
            "SOJOURN_FALLBACK_UNTIL has passed, and the fallback is asked no more; take it out of the settings"
        )
        return store
    if codec.seals and not fallback_codec.seals:
        if settings.base_preset == "high_security":
            msg = "the fallback holds records that are not encrypted, and the high_security preset opens none"
            raise ConfigurationError(msg)
        _log.warning(
            "until %s records that are not encrypted are opened in the fallback: until then whoever writes there can make "
            "sessions",
            until.isoformat(),
        )
    if {store.io, fallback.io} == {StoreIO.ASYNC, StoreIO.BLOCKING}:
        store, fallback = blocking_twin(store), blocking_twin(fallback)
    return FallbackStore(
        store,
        fallback,
        carry=_carry(fallback_codec, codec, events, clock),
        carry_back=_carry(codec, fallback_codec, events, clock),
        until=until.timestamp(),
        moves=settings.fallback_moves,
        clock=clock,
        on_moved=lambda id_: events.event("moved", id_),
    )


def _carry(source: Codec, target: Codec, events: EventDispatcher, clock: Clock) -> Carry:
    def carry(record: Record, version: int) -> Record | None:
        payload = record.payload
        try:
            if record.version >= LAST_VERSION:
                return None
            if payload:
                plain, flags = source.open(payload, record, clock.time())
                # A roll of `max_sessions` is encrypted nowhere.
                if not flags & STUB or len(plain) == TRAIL_BYTES:
                    bound = Bound(record.id, version, record.idle_deadline, record.absolute_deadline)
                    payload = target.seal(plain, bound, clock.time(), flags & ~COMPRESSED)
                    if target.seals and record.payload[1] == PLAIN and not flags & STUB:
                        events.event("unsealed", record.id)
        except (CorruptEnvelopeError, FutureEnvelopeError, SessionTooLargeError):
            return None
        return Record(record.id, version, payload, record.idle_deadline, record.absolute_deadline, record.index_label)

    return carry
