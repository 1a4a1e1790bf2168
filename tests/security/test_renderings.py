"""What every class of every package prints: no token, data, CSRF secret, principal or Cookie header (SECURITY R48)."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import Any, cast

import psycopg
import pytest
from flask.json.tag import TaggedJSONSerializer
from msgspec import Struct
from pydantic_settings import BaseSettings
from rich.pretty import pretty_repr

from sojourn import CookieAction, CookieChange, LoadOutcome, MemoryStore, Record, new_secret
from sojourn.binding import TrustedProxies
from sojourn.crypto import ciphers
from sojourn.crypto.ciphers import AesGcm
from sojourn.crypto.keys import KeyRing
from sojourn.flash import Flash, FlashNow
from sojourn.manager.engine import Lookup
from sojourn.session.session import state_of
from sojourn.testing import FakeClock
from sojourn_cli import command
from sojourn_contrib_flask.interface import FlaskSession
from sojourn_store_redis import Address, ClusteredRedisStore, RedisStore
from sojourn_store_sql import SqlStore, address, connections
from sojourn_testing.browser import Reply, Request
from sojourn_testing.model import Create, Replace
from tests.core.models import make_manager

PACKAGES = (
    "sojourn",
    "sojourn_cli",
    "sojourn_contrib_aiohttp",
    "sojourn_contrib_azu_like",
    "sojourn_contrib_django",
    "sojourn_contrib_fastapi",
    "sojourn_contrib_flask",
    "sojourn_contrib_litestar",
    "sojourn_contrib_migrate",
    "sojourn_metrics_opentelemetry",
    "sojourn_metrics_statsd",
    "sojourn_store_cookie",
    "sojourn_store_redis",
    "sojourn_store_sql",
    "sojourn_testing",
)
NUMBERS = {"bool", "int", "float", "float | None", "int | None", "Moment", "datetime", "datetime | None"}
"""The types of fields that hold no text and no object; what has one of these may be shown."""
HARMLESS = {
    "sojourn_store_sql.statements.Statement": {"text", "query", "constants", "expression"},
    "sojourn.adapters.LiveSession": {"outcome", "id"},
    "sojourn.binding.Binding": {"policy"},
    "sojourn.binding.Client": {"address", "user_agent"},
    "sojourn.binding.Peer": {"address", "user_agent", "x_forwarded_for", "forwarded"},
    "sojourn.codec.Bound": {"id"},
    "sojourn.codec.Head": {"key"},  # its id
    "sojourn.cookies.CookiePolicy": {"name", "path", "domain", "same_site"},
    "sojourn.events.Event": {"name", "id", "old_id", "principal_hash", "reason", "node", "server", "client"},
    "sojourn.hookspecs.ForeignSession": {"reader"},
    "sojourn.manager.health.Health": {"state", "servers"},
    "sojourn.manager.health.ServerHealth": {"store", "server", "state", "cause", "reads", "writes"},
    "sojourn.manager.health.Inspection": {"outcome", "id", "suite", "key", "sealed_on", "principal", "client"},
    "sojourn.manager.nodes.Node": {"name", "version", "keys"},
    "sojourn.manager.nodes._Entry": {"name", "version", "keys", "settings"},  # ids of keys, keyed hashes
    "sojourn.manager.revocations.NotBefore": {"spared"},
    "sojourn.manager.conflicts.Theirs": {"record", "payload"},
    "sojourn.manager.rotation.Roll": {"staying", "leaving"},
    "sojourn.manager.engine.Trail": {"id", "key_id"},
    "sojourn.manager.queries.Page": {"items", "after"},
    "sojourn.manager.queries.SessionInfo": {"id", "client"},
    "sojourn.plugins.InstalledPlugin": {"entry_point", "kind", "name", "target", "distribution", "version"},
    "sojourn.plugins.UnknownVariable": {"name", "origin", "nearest", "distribution"},
    "sojourn.serializers.msgspec_models.Format": {"name", "encode", "encode_sorted", "decoder", "native"},
    "sojourn.serializers.msgspec_models.Shape": {"known"},
    "sojourn.session.session.Decisions": {
        *{"outcome", "why_outcome", "written", "why_written", "changed", "cookie", "why_cookie"},
    },
    "sojourn.settings.sources.Surroundings": {"env_file", "secrets_dir", "preset"},
    "sojourn.stores.Record": {"id", "index_label", "write_ids"},
    "sojourn.hookspecs.Finding": {"subject", "message"},
    "sojourn_cli.fleet.Step": {"advice"},
    "sojourn_cli.top.Breaker": {"state"},
    "sojourn_cli.top.Figures": {"sessions", "calls", "errors", "breakers", "down"},
    "sojourn_cli.top.Scrape": {"samples", "not_closed", "down"},
    "sojourn_contrib_azu_like.answers.Redirect": {"to"},
    "sojourn_contrib_azu_like.shapes.Field": {"annotation"},
    "sojourn_metrics_opentelemetry.metrics.Instrument": {"kind", "name", "unit", "description", "attributes"},
    "sojourn_store_redis.address.Address": {"mode", "client_name"},
    "sojourn_store_redis.cluster.topology.SlotMap": {"ranges", "replicas", "primaries"},
    "sojourn_store_redis.local_cache.cache.Entry": {"record"},
    "sojourn_store_redis.local_cache.links.Announced": {"data"},  # an id and a version
    "sojourn_store_redis.local_cache.links.Died": {"id"},
    "sojourn_store_redis.local_cache.links.HangUp": {"reason"},
    "sojourn_store_redis.local_cache.links.Link": {"state", "pings"},
    "sojourn_store_redis.local_cache.links.Ping": {"nonce"},
    "sojourn_store_redis.local_cache.links.Pong": {"nonce"},
    "sojourn_store_redis.local_cache.process.Shards": {"topology", "primary_of", "make_route"},
    "sojourn_store_redis.records.KeyNames": {"session", "index"},
    "sojourn_store_redis.scripts.Pair": {"silent", "announcing"},
    "sojourn_store_redis.scripts.Script": {"name"},
    "sojourn_store_redis.transport.client.BoundClient": {"client", "bounds"},
    "sojourn_store_redis.transport.client._Place": {"loop", "link"},
    "sojourn_store_redis.urls.ClusterGroup": {"nodes"},
    "sojourn_store_redis.urls.SentinelGroup": {"name", "nodes"},
    "sojourn_testing.pages.Page": {"path", "handle"},
    "sojourn_testing.browser.Request": {"method", "path", "scheme"},
    "sojourn_testing.model.Case": {"call", "before", "used", "expected"},
    "sojourn_testing.model.Create": {"record", "write_id"},
    "sojourn_testing.model.Delete": {"id"},
    "sojourn_testing.model.Load": {"id"},
    "sojourn_testing.model.Replace": {"record", "write_id"},
    "sojourn_testing.model.StoreModel": {"records"},
    "sojourn_testing.model.Touch": {"id"},
    "sojourn_testing.races.Done": {"call", "answer"},
    "sojourn_testing.races.Meeting": {"first", "programs"},
    "sojourn_testing.races.Pair": {"left", "right"},
}
"""What else a class may show of its fields: names, ids, and objects of classes that are looked at themselves."""
SECRET, PRINCIPAL, DATA = "s" * 21 + new_secret(), "ada@example.com", "the data of somebody"
SQL_URL = f"postgresql://me:{SECRET}@localhost:1/shop"


def session() -> Any:
    manager = make_manager(MemoryStore(clock=FakeClock())).blocking
    opened = manager.open(None)
    opened.login(PRINCIPAL)
    opened.data.note = DATA
    opened["extra"] = DATA
    opened.csrf_token()
    manager.commit(opened)
    return opened


def administered() -> Any:
    opened = session()
    manager = make_manager(MemoryStore(clock=FakeClock()))
    queries: Any = manager
    state = state_of(opened)
    assert state.record is not None
    found = state_of(opened).rules
    queries.engine = found
    return queries._state(state.record)


def redis_store() -> RedisStore:
    return RedisStore.from_url(f"redis://:{SECRET}@localhost/0")


def _django(name: str) -> object:
    from sojourn_contrib_django import apps

    if name == "apps":
        return apps.SojournConfig("sojourn_contrib_django", apps)
    from tests.contrib_django.project import configure

    configure()
    from sojourn_contrib_django.middleware import SessionMiddleware

    return SessionMiddleware(lambda request: request)


BUILT: dict[str, Callable[[], object]] = {
    "sojourn.binding.TrustedProxies": lambda: TrustedProxies([]),
    "sojourn.crypto.ciphers.Unprintable": lambda: AesGcm().box(SECRET.encode()[:32]),
    "sojourn.crypto.ciphers._CbcBox": lambda: ciphers.AesCbcHmac().box(SECRET.encode()[:32]),
    "sojourn.crypto.ciphers._GcmBox": lambda: AesGcm().box(SECRET.encode()[:32]),
    "sojourn.crypto.keys.Key": lambda: KeyRing([SECRET], allow_weak=True).primary,
    "sojourn.crypto.keys.KeyRing": lambda: KeyRing([SECRET], allow_weak=True),
    "sojourn.flash.Flash": lambda: Flash({"notice": DATA}),
    "sojourn.flash.FlashNow": lambda: _with(FlashNow(), notice=DATA),
    "sojourn.manager.engine.Engine": lambda: make_manager(settings={"secret": SECRET}).engine,
    "sojourn.session.session.Session": session,
    "sojourn_cli.command._Commands": lambda: command.root,
    "sojourn_contrib_django.apps.SojournConfig": lambda: _django("apps"),
    "sojourn_contrib_django.manager.NoData": dict,
    "sojourn_contrib_django.middleware.SessionMiddleware": lambda: _django("middleware"),
    "sojourn_contrib_flask.interface.FlaskSession": lambda: flask_session(),
    "sojourn_store_redis.local_cache.store.ClusteredRedisStore": lambda: _clustered(),
    "sojourn_store_redis.local_cache.store.LocallyCachedStore": lambda: _clustered().blocking_twin(),
    "sojourn_store_redis.store.RedisStore": redis_store,
    "sojourn_store_redis.store.TwinnedRedisStore": redis_store,
    "sojourn_store_sql.address.Address": lambda: address.Address(url=SQL_URL),
    "sojourn_store_sql.connections.BlockingConnection": lambda: _unopened(connections.BlockingConnection),
    "sojourn_store_sql.connections.SuspendingConnection": lambda: _unopened(connections.SuspendingConnection),
    "sojourn_store_sql.store.SqlStore": lambda: cast("Any", SqlStore.from_url(SQL_URL)).blocking_twin(),
    "sojourn_store_sql.store.TwinnedSqlStore": lambda: SqlStore.from_url(SQL_URL),
    "sojourn_testing.fakes.FakeClock": FakeClock,
    "sojourn.manager.engine.Lookup": lambda: Lookup(LoadOutcome.LOADED, SECRET, SECRET, record()),
    "sojourn.session.transitions.CookieChange": lambda: CookieChange(CookieAction.SET, SECRET),
    "sojourn.session.state.RequestState": lambda: state_of(session()),
    "sojourn.manager.queries._Administered": lambda: administered(),
    "sojourn_testing.model.Create": lambda: Create(record(), bytes(8)),
    "sojourn_testing.model.Replace": lambda: Replace(record(), 1, bytes(8)),
}
"""One of each class that prints itself in a way of its own and needs more than marked fields."""


def _unopened(kind: Any) -> object:
    """Return a connection that failed to open."""
    found = psycopg.pq.PGconn.connect_start(f"host=127.0.0.1 port=1 password={SECRET}".encode())
    found.finish()
    return kind(found)


def record() -> Record:
    return Record("i" * 43, 1, DATA.encode(), 2e9, 2e9)


def flask_session() -> FlaskSession:
    request = make_manager().blocking.begin(None, "")
    view = FlaskSession(request, TaggedJSONSerializer())
    view["list"], view["text"] = [DATA], DATA
    return view


def _clustered() -> ClusteredRedisStore:
    return ClusteredRedisStore(Address(url=f"redis://:{SECRET}@localhost/0"))


def _with(mapping: Any, **values: str) -> Any:
    mapping.update(values)
    return mapping


@cache
def classes() -> dict[str, type]:
    """Return every class of every package by its name, but enums, protocols and exceptions."""
    found: dict[str, type] = {}
    for package in PACKAGES:
        root = importlib.import_module(package)
        for name in (package, *(module.name for module in pkgutil.walk_packages(root.__path__, f"{package}."))):
            if not name.endswith("__main__"):
                for each in vars(importlib.import_module(name)).values():
                    # By its own type: proxies such as Django's settings answer isinstance() by loading.
                    if issubclass(type(each), type) and each.__module__.partition(".")[0] in PACKAGES:
                        found[f"{each.__module__}.{each.__qualname__}"] = each
    left_out = (Enum, BaseException, BaseSettings)  # pydantic masks; what settings show is R6's
    return {
        name: each
        for name, each in sorted(found.items())
        if not issubclass(each, left_out)
        and each.__module__ != "sojourn_testing.machine"
        and not getattr(each, "_is_protocol", False)
    }


def renderings(one: object) -> str:
    """Return what the ways to print an object print of it."""
    return "\n".join([repr(one), str(one), f"{one}", "%r %s" % (one, one), pretty_repr(one), pretty_repr([one])])  # noqa: UP031 - the very ways


def types_of(kind: type) -> dict[str, str]:
    """Return the fields of a dataclass, a Struct or a named tuple with their types as they are written."""
    if dataclasses.is_dataclass(kind) and not issubclass(kind, Struct):
        return {each.name: str(each.type) for each in dataclasses.fields(kind)}
    names: tuple[str, ...] = getattr(kind, "__struct_fields__", ()) or getattr(kind, "_fields", ())
    written = {name: text for base in kind.__mro__ for name, text in vars(base).get("__annotations__", {}).items()}
    return {name: getattr(written[name], "__forward_arg__", str(written[name])) for name in names}


def filled(kind: type, names: list[str]) -> Any:
    """Return an instance in which every field holds its own name, marked."""
    if issubclass(kind, tuple):
        return kind.__new__(kind, *(f"<<{name}>>" for name in names))
    if issubclass(kind, Struct):
        return kind(**{name: f"<<{name}>>" for name in names})
    made = object.__new__(kind)
    for name in names:
        object.__setattr__(made, name, f"<<{name}>>")
    return made


@pytest.mark.parametrize("name", list(classes()))
def test_r48_a_class_shows_only_what_is_known_to_be_harmless(name: str) -> None:
    kind = classes()[name]
    if name in BUILT:
        text = renderings(BUILT[name]())
        assert not [secret for secret in (SECRET, PRINCIPAL, DATA) if secret in text]
    elif types := types_of(kind):
        text = renderings(filled(kind, list(types)))
        shown = {field for field in types if f"<<{field}>>" in text and types[field] not in NUMBERS}
        assert shown <= HARMLESS.get(name, set())
    else:
        own = {"__repr__", "__str__"} & {way for base in kind.__mro__ if base is not object for way in vars(base)}
        assert dataclasses.is_dataclass(kind) or not own, "build one of it above"


def test_r48_what_is_kept_of_a_session_prints_nothing_of_it() -> None:
    opened = session()
    state = state_of(opened)
    token, csrf = state.token, state.payload.csrf
    assert token is not None
    assert csrf is not None
    assert state.record is not None
    assert DATA.encode() in state.record.payload, "in the clear, as in memory"
    text = renderings([opened, state, state.payload, state.record, state.cookie, state.base])
    for secret in (token, PRINCIPAL, DATA, repr(csrf)[2:-1]):
        assert secret not in text
    assert state.record.id in text


def test_r48_requests_and_replies_of_tests_print_no_cookie() -> None:
    headers = (("cookie", SECRET), ("set-cookie", SECRET))
    text = renderings([Request(method="GET", path="/", headers=headers, body=SECRET.encode())])
    text += renderings([Reply(status=200, headers=headers, body=SECRET.encode())])
    assert SECRET not in text
    assert "GET" in text
