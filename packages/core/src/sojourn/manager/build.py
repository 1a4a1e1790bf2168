"""From settings and parts to the engine of a manager: what is named is found, what does not fit is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sojourn import metrics as names
from sojourn.breaker import BreakerState, CircuitBreaker, ServerBreakers
from sojourn.codec import COMPRESSED, PLAIN, Bound, Codec, CorruptEnvelopeError, FutureEnvelopeError, read_head
from sojourn.crypto.ciphers import BUILTIN_CIPHERS, Cipher
from sojourn.errors import ConfigurationError, SessionTooLargeError
from sojourn.events import EventDispatcher, Levels
from sojourn.hookspecs import Convert, Observer, Reader
from sojourn.manager import opening
from sojourn.manager.client_side import ClientSide
from sojourn.manager.committing import ServerSide
from sojourn.manager.engine import LAST_VERSION, TRAIL_BYTES, Engine, Takeover, blocking_twin
from sojourn.manager.guarded_store import DirectStore, GuardedStore
from sojourn.manager.nodes import Nodes
from sojourn.manager.revocations import Revocations
from sojourn.metrics import Metrics, NullMetrics
from sojourn.plugins import PluginLoader, warn_about_unknown_variables
from sojourn.retry import Lane, RetryBudget
from sojourn.serializers import Serializer, SerializerFactory, builtin_serializer
from sojourn.session.model import Migrate, Model
from sojourn.session.payload import Lifetimes
from sojourn.session.session import Session
from sojourn.stores import (
    STUB,
    AnnouncingStore,
    AtRestStore,
    ClientSideStore,
    Clock,
    ConfirmingStore,
    EvictingStore,
    IndexedStore,
    InProcessStore,
    LinkedStore,
    NamespacedStore,
    PartitionedStore,
    Record,
    RefusingStore,
    RetainingStore,
    ScannableStore,
    Store,
    StoreIO,
    TimedStore,
    is_client_side,
)
from sojourn.stores.fallback import Carry, FallbackStore, parts_of

if TYPE_CHECKING:
    from sojourn.settings import SessionSettings

T = TypeVar("T")
_log = logging.getLogger("sojourn.manager")
_DAY = 86_400.0
_LABELS_KEPT = 1024
# Seconds that one login may ask for, by preset (SECURITY R11).
_LONGEST = {"high_security": 12 * 3600.0, "development": 400 * _DAY, "testing": 400 * _DAY}
_LONGEST_ELSEWHERE = 30 * _DAY
_LONGEST_TAKEOVER = timedelta(days=90)
_FAULTS_MET_AT_ONCE = 5
"""How many faults within one window a process may meet with all of its retries, however few its calls (FAILURES F35)."""


def build_engine(
    model: type[T],
    store: Store | ClientSideStore,
    *,
    new: Callable[[], T] | None,
    migrate: Migrate | None,
    settings: SessionSettings,
    serializer: str | Serializer[T] | SerializerFactory | None,
    cipher: str | Cipher | None,
    metrics: str | Metrics | None,
    observers: Sequence[Observer],
    clock: Clock,
    revocation_store: Store | None,
    fallback_store: Store | None,
    is_authenticated: Callable[[Session[T]], bool] | None,
    readers: Sequence[Reader],
    convert: Convert[T] | None,
) -> Engine[T]:
    """Return the parts of a manager. Raise ConfigurationError saying what does not fit and what to do."""
    loader = PluginLoader(settings)
    cipher = loader.cipher(cipher) if isinstance(cipher, str) else cipher
    metrics = loader.metrics(metrics) if isinstance(metrics, str) else metrics
    if serializer is None and settings.serializer != "json":
        serializer = loader.serializer(settings.serializer)
    client_side = is_client_side(store)
    _refuse_what_the_store_lacks(store, settings, client_side=client_side)
    if client_side and revocation_store is None:
        _log.info(
            "sessions live in the cookie and SOJOURN_REVOCATION_STORE is not set: a copied cookie stays valid after "
            "logout until it expires, and sessions cannot be revoked"
        )
    if client_side and revocation_store is not None:
        _require_lasting_index(revocation_store, settings)
    if client_side and settings.renew_after is not None:
        _log.warning(
            "sessions live in the cookie, so SOJOURN_RENEW_AFTER has no effect: a new cookie would not end the copies "
            "of the old one; a shorter SOJOURN_ABSOLUTE_TIMEOUT limits how long a copy is of use"
        )
    ring = settings.key_ring()
    events = EventDispatcher(
        metrics or NullMetrics(), observers, clock, partial(ring.label, "event"), node=settings.node_id
    )
    allowed = _LONGEST.get(settings.base_preset, _LONGEST_ELSEWHERE)
    longest = max(allowed, settings.absolute_timeout.total_seconds())
    sealing = partial(Codec, ring, openers=BUILTIN_CIPHERS, max_lifetime=longest)
    suite = cipher or next(one for one in BUILTIN_CIPHERS if one.name == settings.cipher)
    compress = not client_side if settings.compress is None else settings.compress

    def codec_of(store: Store | ClientSideStore, settings: SessionSettings) -> Codec:
        is_sealed = client_side or _is_encrypted(store, settings)
        return sealing(
            suite if is_sealed else None,
            purpose=_purpose(store, settings, client_side=client_side),
            client_side=client_side,
            compress_over=settings.compress_over if compress else None,
            max_payload=settings.max_payload,
            plain_until=_plain_until(settings, longest, clock.time()) if is_sealed and not client_side else None,
        )

    codec, kept = codec_of(store, settings), store
    if fallback_store is not None:
        former = codec_of(fallback_store, settings.of_fallback())
        kept = _with_fallback(store, fallback_store, settings, codec, former, events, clock, longest=longest)
    for part in parts_of(kept):
        _listen_to(part, events)
        _keep_expired(part, settings)
    revocations = None
    if revocation_store is not None and client_side:
        # No cookie is made of an entry of the index, nor the other way round.
        entries = sealing(suite, purpose=f"revocations:{settings.cookie_name}:{settings.namespace}")
        index = guard(revocation_store, settings, events, clock, of="revocations_")
        revocations = Revocations(index, entries, ring, clock, events, longest=longest)
    return Engine(
        settings=settings,
        model=Model(
            model,
            new=new or cast("Callable[[], T]", model),
            serializer=_serializer(serializer, model),
            migrate=migrate,
            check_round_trip=settings.check_round_trip,
            readers={name: loader.serializer(name) for name in settings.read_serializers},
        ),
        lifetimes=Lifetimes(
            idle_timeout=settings.idle_timeout.total_seconds(),
            absolute_timeout=settings.absolute_timeout.total_seconds(),
            touch_after=settings.idle_timeout.total_seconds() * settings.touch_after,
            renew_after=settings.renew_after.total_seconds() if settings.renew_after is not None else None,
            renew_grace=settings.renew_grace.total_seconds(),
            max_lifetime=longest,
            persistent=settings.cookie_persistent,
        ),
        clock=clock,
        client_side=client_side,
        keeping=ClientSide() if client_side else ServerSide(),
        label_of=lru_cache(maxsize=_LABELS_KEPT)(ring.label),
        store=guard(kept, settings, events, clock),
        codec=codec,
        ring=ring,
        events=events,
        cookies=settings.cookie_policy(),
        binding=settings.make_binding(),
        revocations=revocations,
        takeover=_takeover(
            readers, convert, settings, clock, has_store=not client_side or revocation_store is not None
        ),
        indexed=isinstance(kept, IndexedStore) and not client_side,
        nodes=Nodes(
            settings,
            ring,
            clock,
            is_known=isinstance(kept, IndexedStore) and not client_side,
            waits=kept.io is not StoreIO.NONE,
        ),
        load_again=opening.reload,
        is_authenticated=is_authenticated or (lambda session: session.principal is not None),
    )


def _takeover(
    readers: Sequence[Reader], convert: Convert[T] | None, settings: SessionSettings, clock: Clock, *, has_store: bool
) -> Takeover | None:
    """Return what takes sessions of other libraries over; None without readers, and after their last day."""
    if not readers:
        return None
    names = ", ".join(reader.name for reader in readers)
    if len({reader.name for reader in readers}) < len(readers):
        raise ConfigurationError(f"two readers have the same name ({names}); give one of them another")
    if convert is None:
        raise ConfigurationError(
            f"sessions are read by {names}, and nothing says what becomes of them: give the manager convert=, a function "
            "that makes a sojourn.Converted of a sojourn.ForeignSession"
        )
    last, today = settings.readers_until, datetime.fromtimestamp(clock.time(), UTC).date()
    if last is None or last > today + _LONGEST_TAKEOVER:
        raise ConfigurationError(
            f"SOJOURN_READERS_UNTIL is {last or 'not set'}: say until which day {names} may read sessions, a date at most "
            f"90 days ahead, so {today + _LONGEST_TAKEOVER} at the latest"
        )
    if not has_store:
        raise ConfigurationError(
            "sessions live in the cookie, and what was taken over has to be noted on a server, or it could be taken over "
            "again: set SOJOURN_REVOCATION_STORE to redis"
        )
    if today > last:
        _log.warning("SOJOURN_READERS_UNTIL (%s) is over, and %s read nothing any more; take them out", last, names)
        return None
    _log.warning("sessions of other libraries are taken over by %s until %s", names, last)
    return Takeover(readers, convert, datetime.combine(last + timedelta(days=1), time(), UTC).timestamp())


def guard(
    store: Store | ClientSideStore, settings: SessionSettings, events: EventDispatcher, clock: Clock, *, of: str = ""
) -> GuardedStore:
    """Return the store behind breakers of its own, retries and metrics, whose tag ``calls`` begins with *of*."""
    if isinstance(store, TimedStore):
        settings.require_time_for_retries(store.call_timeout)
    kind = DirectStore if store.io is StoreIO.NONE and not events.has_metrics else GuardedStore
    reads = _lane("read", f"{of}read", names.LOAD_TIME, store, settings, events)
    writes = _lane("write", f"{of}write", names.STORE_TIME, store, settings, events)
    levels = None
    if events.has_metrics:
        breakers = {f"{of}read": reads.servers or reads.breaker, f"{of}write": writes.servers or writes.breaker}
        levels = Levels(events, None if of else store, breakers)
    return kind(
        store,
        reads=reads,
        writes=writes,
        retry=settings.make_retry_policy(),
        events=events,
        clock=clock,
        levels=levels,
    )


def _lane(
    verb: str,
    calls: str,
    timed: str,
    store: Store | ClientSideStore,
    settings: SessionSettings,
    events: EventDispatcher,
) -> Lane:
    breaker: CircuitBreaker | ServerBreakers | None = None
    if store.io is not StoreIO.NONE:

        def on_change(before: BreakerState, after: BreakerState) -> None:
            events.breaker(calls, "", before, after, after)

        breaker = settings.make_breaker(on_change=on_change)
        if breaker is not None and isinstance(store, PartitionedStore) and store.partition is not None:
            breaker = ServerBreakers(breaker, store.partition, on_change=partial(events.breaker, calls))
    budget = RetryBudget(share=settings.retry_budget, floor=_FAULTS_MET_AT_ONCE * settings.retry_attempts)
    return Lane(verb, timed, breaker, budget)


def _serializer(serializer: str | Serializer[T] | SerializerFactory | None, model: type[T]) -> Serializer[T]:
    if serializer is None or isinstance(serializer, str):
        built = builtin_serializer(serializer or "auto", model)
        if built is None:
            msg = f"no serializer is built in under the name {serializer!r}; use json, msgpack or pydantic, or hand in one"
            raise ConfigurationError(msg)
        return cast("Serializer[T]", built)
    return cast("Serializer[T]", serializer(model)) if callable(serializer) else serializer


def _plain_until(settings: SessionSettings, longest: float, now: float) -> float | None:
    """Return until when records that are not encrypted are opened (SECURITY R55)."""
    if settings.accept_unsealed_until is None:
        return None
    until = settings.accept_unsealed_until.timestamp()
    if until > now + longest:
        raise ConfigurationError(
            f"SOJOURN_ACCEPT_UNSEALED_UNTIL is more than {longest / _DAY:g} days ahead, and no session from before lives that "
            "long; set an earlier date"
        )
    if until > now:
        _log.warning(
            "until %s records that are not encrypted are opened (SOJOURN_ACCEPT_UNSEALED_UNTIL): until then whoever writes "
            "to the store can make sessions",
            settings.accept_unsealed_until.isoformat(),
        )
        return until
    _log.warning("SOJOURN_ACCEPT_UNSEALED_UNTIL has passed and has no effect; take it out of the settings")
    return None


def _purpose(store: Store | ClientSideStore, settings: SessionSettings, *, client_side: bool) -> str:
    """Return what the seal is bound to beside the record: a cookie's name or a store's namespaces (SECURITY R25, R42)."""
    if client_side:
        return f"cookie:{settings.cookie_name}:{settings.namespace}"
    own = store.namespace if isinstance(store, NamespacedStore) else ""
    return f"store:{len(settings.namespace)}:{settings.namespace}:{own}"


def _is_encrypted(store: Store | ClientSideStore, settings: SessionSettings) -> bool:
    """Return whether payloads are encrypted: as the settings say, else as the store declares, else they are."""
    if settings.encrypt is not None:
        return settings.encrypt
    if isinstance(store, AtRestStore) and store.encrypt is not None:
        return store.encrypt
    return not _stays_in_process(store)


def _stays_in_process(store: Store | ClientSideStore) -> bool:
    return isinstance(store, InProcessStore) and store.in_process


def _refuse_what_the_store_lacks(
    store: Store | ClientSideStore, settings: SessionSettings, *, client_side: bool
) -> None:
    if isinstance(store, str | type):
        named = store if isinstance(store, str) else store.__name__
        raise ConfigurationError(
            f"the store is {named!r}, not a store: hand in an instance such as MemoryStore(), or let settings choose it "
            "with SessionManager.from_env and SOJOURN_STORE"
        )
    if _stays_in_process(store) and not settings.is_relaxed:
        _log.warning(
            "sessions are kept in the memory of this process: they end with it and no other worker sees them; "
            "set SOJOURN_STORE to redis or cookie to keep them"
        )
    for fault in _faults(store, settings, client_side=client_side):
        raise ConfigurationError(fault)


def _faults(store: Store | ClientSideStore, settings: SessionSettings, *, client_side: bool) -> Iterator[str]:
    """Yield what the settings ask of a store that this one does not have."""
    name = type(store).__name__
    if settings.base_preset == "high_security" and isinstance(store, AtRestStore) and store.encrypt is False:
        yield f"the high_security preset seals every record, but encryption is turned off for {name}; leave that out"
    if not isinstance(getattr(store, "io", None), StoreIO):
        yield f"{name} has no `io`: a store says how it waits with sojourn.stores.StoreIO (docs/stores.md)"
    if client_side and settings.on_conflict == "raise":
        yield f"SOJOURN_ON_CONFLICT=raise needs a server-side store: {name} cannot notice a conflict; use merge"
    if client_side and settings.accept_unsealed_until is not None:
        yield f"SOJOURN_ACCEPT_UNSEALED_UNTIL is set, but {name} keeps records in the browser; leave it out"
    if client_side and settings.encrypt is False:
        yield f"SOJOURN_ENCRYPT is off, but {name} hands the records to the browser; leave it out"
    if settings.max_sessions is not None and (client_side or not isinstance(store, IndexedStore)):
        yield f"SOJOURN_MAX_SESSIONS needs a store with an index of principals, and {name} has none; use memory, redis or sql"


def _require_lasting_index(store: Store, settings: SessionSettings) -> None:
    """Refuse a revocation index that other processes would not see, or that forgets before its time (SECURITY R44)."""
    if _stays_in_process(store) and not (settings.is_relaxed or settings.single_process):
        raise ConfigurationError(
            f"the revocation index is in the memory of this process ({type(store).__name__}): other processes would accept "
            "the cookies that it refuses; set SOJOURN_REVOCATION_STORE to redis, or SOJOURN_SINGLE_PROCESS=true if there "
            "is no other one"
        )
    if isinstance(store, RefusingStore):
        store.evicts = False
    elif isinstance(store, EvictingStore):
        raise ConfigurationError(
            f"{type(store).__name__} evicts what it holds when it is full, and an evicted revocation makes its cookie valid "
            "again; set SOJOURN_REVOCATION_STORE to redis or memory"
        )


def _listen_to(store: Store | ClientSideStore, events: EventDispatcher) -> None:
    """Report what a store notices by itself: evicted records, deletions elsewhere, links that were lost."""
    if isinstance(store, EvictingStore) and store.on_evict is None:

        def report(id_: str) -> None:
            events.event("evicted", id_, reason=f"{type(store).__name__} is full")

        store.on_evict = report
    if isinstance(store, AnnouncingStore):
        events.revocations.announcers.append(store)
    if isinstance(store, LinkedStore):
        store.on_link(events.link)
    if isinstance(store, ConfirmingStore):
        store.on_unconfirmed(events.unconfirmed)


def _keep_expired(store: Store | ClientSideStore, settings: SessionSettings) -> None:
    if isinstance(store, RetainingStore) and store.keep_expired is None:
        store.keep_expired = min(settings.keep_expired, settings.idle_timeout).total_seconds()


def complete(settings: SessionSettings, parts: dict[str, Any]) -> dict[str, Any]:
    """Return *parts*, keywords of SessionManager, with everything else that the settings name."""
    surroundings = settings.surroundings
    loader = PluginLoader(settings)
    try:
        if "store" not in parts:
            parts["store"] = loader.store(settings.store)
        if settings.revocation_store is not None and "revocation_store" not in parts:
            parts["revocation_store"] = loader.store(settings.revocation_store)
        if settings.fallback_store is not None and "fallback_store" not in parts:
            parts["fallback_store"] = PluginLoader(settings.of_fallback()).store(settings.fallback_store)
        parts.setdefault("cipher", loader.cipher(settings.cipher))
        parts.setdefault("metrics", loader.metrics(settings.metrics))
        parts["readers"] = (*map(loader.reader, settings.readers), *parts.get("readers", ()))
        parts["observers"] = (*loader.observers(), *parts.get("observers", ()))
    finally:
        # Also when something is missing: it may be there under a misspelt name.
        warn_about_unknown_variables(
            dotenv_path=surroundings.env_file, configured=surroundings.variables, plugins=loader.settings()
        )
    return parts


# A store with the one behind it from which sessions move, each sealed for where it is (docs/decisions/0032). What a record
# is bound to are the namespaces of its store and of the application (SECURITY R25, R42), so what moves is opened and sealed
# anew, deadlines and version kept.


def _with_fallback(
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
        raise ConfigurationError(
            "SOJOURN_FALLBACK_STORE is for stores on a server: what is in a cookie cannot be looked up, nor deleted; leave it out"
        )
    for protocol, what in ((IndexedStore, "find the sessions of a user"), (ScannableStore, "go through its records")):
        if isinstance(store, protocol) and not isinstance(fallback, protocol):
            raise ConfigurationError(
                f"{type(fallback).__name__}, the fallback, cannot {what}, and {type(store).__name__} can: some would be missed; "
                "give it that capability (docs/stores.md)"
            )
    until, now = settings.fallback_until, clock.time()
    if until is None or until.timestamp() > now + longest:
        raise ConfigurationError(
            f"SOJOURN_FALLBACK_UNTIL is {until.isoformat() if until else 'not set'}: say until when the fallback is asked, at "
            f"most {longest / _DAY:g} days ahead, for no session from before lives longer"
        )
    if until.timestamp() <= now:
        _log.warning(
            "SOJOURN_FALLBACK_UNTIL has passed, and the fallback is asked no more; take it out of the settings"
        )
        return store
    if codec.seals and not fallback_codec.seals:
        if settings.base_preset == "high_security":
            raise ConfigurationError(
                "the fallback holds records that are not encrypted, and the high_security preset opens none; move them under "
                "the production preset first"
            )
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
    def carry(record: Record, version: int) -> Record | str:
        payload = record.payload
        try:
            if record.version >= LAST_VERSION:
                return "its version is the last there is, which no store writes: it is damaged"
            if payload:
                plain, flags = source.open(payload, record, clock.time())
                # A roll of `max_sessions` is encrypted nowhere.
                if not flags & STUB or len(plain) == TRAIL_BYTES:
                    bound = Bound(record.id, version, record.idle_deadline, record.absolute_deadline)
                    payload = target.seal(plain, bound, clock.time(), flags & ~COMPRESSED)
                    if target.seals and record.payload[1] == PLAIN and not flags & STUB:
                        events.event("unsealed", record.id)
        except CorruptEnvelopeError:
            return "it is damaged, or SOJOURN_FALLBACK_NAMESPACE or SOJOURN_FALLBACK_ENCRYPT is not what it was sealed under"
        except FutureEnvelopeError:
            head = read_head(record.payload)
            return f"its key {head.key.hex() if head else ''} is not in these settings: put it into SOJOURN_RETIRED_SECRETS"
        except SessionTooLargeError as error:
            return str(error)
        return Record(record.id, version, payload, record.idle_deadline, record.absolute_deadline, record.index_label)

    return carry
