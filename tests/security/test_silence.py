"""Nothing secret is said aloud or left lying about (SECURITY R2, R6, R32)."""

from __future__ import annotations

import base64
import importlib
import logging
import sqlite3
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sojourn import MemoryStore
from sojourn.binding import Client
from sojourn.crypto import decode_bytes, token_id
from sojourn.errors import SojournError, TooManySessionsError
from sojourn.testing import Fault, FaultyStore, RecordingMetrics, client
from tests.integration.applications import make_application
from tests.security.houses import House, begin, outcome

NOTE = "the-private-note-of-this-user"
PRINCIPAL = "principal-no-4711"
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0 the-unique-agent"
ADDRESS = "192.0.2.177"


def spellings(secret: str) -> Iterator[bytes]:
    """Yield a secret as it may turn up: as text, as the bytes it stands for, in hexadecimal and in base64."""
    raws = [secret.encode()]
    with suppress(ValueError):
        raws.append(decode_bytes(secret))
    for raw in raws:
        yield from (raw, raw.hex().encode(), base64.b64encode(raw).rstrip(b"="))
        yield base64.urlsafe_b64encode(raw).rstrip(b"=")


def assert_absent(said: bytes, secrets: Iterable[str]) -> None:
    for secret in secrets:
        for spelling in spellings(secret):
            assert len(spelling) > 6
            assert spelling not in said


class Ears:
    """Everything that leaves the library: logs of every logger, exceptions with their chains, metrics, events."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.caplog = caplog
        self.metrics = RecordingMetrics()
        self.said: list[str] = []

    def attempt(self, work: Callable[[], object]) -> None:
        try:
            self.said.append(repr(work()))
        except SojournError as error:
            self.said += [repr(error), "".join(traceback.format_exception(error))]

    def everything(self, house: House) -> bytes:
        formatter = logging.Formatter("%(name)s %(levelname)s %(message)s")
        lines = [formatter.format(record) for record in self.caplog.records]
        lines += [repr(sorted(record.__dict__.items(), key=str)) for record in self.caplog.records]
        lines += [repr(house.observer.events), repr(self.metrics.calls), *self.said]
        return "\n".join(lines).encode()


def _quietly(move: Callable[[Any], object], session: Any) -> None:
    move(session)


def _always(fault: Fault, _: str) -> Fault:
    return fault


@pytest.fixture
def ears(caplog: pytest.LogCaptureFixture) -> Ears:
    caplog.set_level(logging.DEBUG)
    return Ears(caplog)


def test_r6_no_path_says_a_token_a_secret_or_data(house: House, ears: Ears) -> None:
    """Login, rotation, logout, damage, outage, conflict, binding, too large, too many: at DEBUG, with all that raises."""
    store = FaultyStore(house.store()) if not house.is_client_side else house.store()
    settings: dict[str, Any] = {"binding": "reject", "max_payload": 20_000, "renew_after": "10m"}
    if not house.is_client_side:
        settings |= {"max_sessions": 3, "max_sessions_policy": "reject"}
    manager = house.node(store=store, parts={"metrics": ears.metrics}, **settings)
    node, here = manager.blocking, Client(ADDRESS, AGENT)
    tokens: list[str] = []

    def visit(token: str | None, *moves: Callable[[Any], object], where: Client = here) -> str | None:
        session = node.open(token, where)
        ears.said.append(repr(session))
        for move in moves:
            ears.attempt(partial(_quietly, move, session))
        ears.attempt(lambda: node.commit(session))
        ears.said += [repr(session), repr(session.flash), str(session)]
        new = session._state.token
        if new is not None and new not in tokens:
            tokens.append(new)
        return new or token

    def write(session: Any) -> None:
        session.data.note = NOTE
        session["extra"] = NOTE
        session.flash["notice"] = NOTE

    token = visit(None, write, lambda session: session.csrf_token())
    token = visit(token, lambda session: session.login(PRINCIPAL))
    token = visit(token, lambda session: session.rotate())
    house.clock.advance(700)
    token = visit(token, lambda session: session.data.note)
    visit(token, lambda session: session.data.note, where=Client("198.51.100.1", "another"))
    visit(token, lambda session: setattr(session.data, "note", NOTE * 2000))
    visit(token, lambda session: setattr(session.data, "user_id", NOTE))
    visit(token, lambda session: session.__setitem__("extra", {NOTE: object()}))
    visit(token, lambda session: session.verify_csrf(NOTE), lambda session: session.require_fresh(0))
    visit("x" * 43)
    visit(NOTE)
    visit((token or "")[:-1] + "A")
    if not house.is_client_side:
        for _ in range(4):
            visit(None, lambda session: session.login(PRINCIPAL))
        with pytest.raises(TooManySessionsError):
            session = node.open(None, here)
            session.login(PRINCIPAL)
            node.commit(session)
        one, two = node.open(token, here), node.open(token, here)
        for number, session in enumerate((one, two)):
            session.data.note = f"{NOTE}{number}"
            ears.attempt(partial(node.commit, session))
        assert isinstance(store, FaultyStore)
        for fault in (Fault.BEFORE, Fault.AFTER):
            store.follow(partial(_always, fault))
            visit(token, write)
            ears.attempt(lambda: node.revoke_all(PRINCIPAL))
            store.follow(())
            session = node.open(token, here)
            store.follow(partial(_always, fault))
            session.logout()
            ears.attempt(partial(node.commit, session))
            store.follow(())
            token = visit(None, write) if node.open(token, here).outcome.value != "loaded" else token
        id = token_id(str(token))
        raw = house.raw(id)
        house.write_raw(id, raw[:-1] + bytes((raw[-1] ^ 1,)))
        visit(token, write)
        ears.attempt(lambda: node.list(PRINCIPAL))
    visit(token, lambda session: session.logout())
    visit(token, lambda session: session.destroy(), write)
    house.clock.advance(1e6)
    visit(token)
    ears.said += [repr(manager), repr(node), repr(store), repr(manager.engine.ring), repr(manager.engine.settings)]
    said = ears.everything(house)
    assert len(ears.caplog.records) > 8
    assert len(tokens) > 2
    assert_absent(said, [*tokens, house.secret, NOTE, PRINCIPAL, ADDRESS, "the-unique-agent"])


def test_r6_a_server_that_is_gone_says_no_token(house: House, ears: Ears, redis_server: Any) -> None:
    if house.kind != "redis":
        return
    from sojourn_store_redis import RedisStore

    store = RedisStore.from_url(f"redis://user:a-redis-password@127.0.0.1:{redis_server.port}/0").blocking_twin()
    node = house.node(store=store).blocking
    token = "ELMfHuNvAFiwLnzA6tf3bQ4SgTbZeFTSXgCK5sf5f7M"
    session = node.open(token)
    assert session.outcome.value == "unavailable"
    ears.attempt(lambda: session.login(PRINCIPAL))
    ears.said += [repr(session), repr(store)]
    assert_absent(ears.everything(house), [token, house.secret, "a-redis-password", PRINCIPAL])


@pytest.mark.parametrize("dress", ["asgi", "wsgi", "flask", "starlette"])
def test_r6_the_middlewares_log_no_token_and_no_data(dress: str, house: House, ears: Ears, redis_server: Any) -> None:
    store = FaultyStore(MemoryStore(clock=house.clock))
    sessions = house.node(store=store, max_payload=20_000)
    tokens = []
    with client(make_application(dress, sessions), sessions, raise_errors=False) as browser:
        for path in (
            f"/put?{NOTE}",
            f"/login?{PRINCIPAL}",
            "/count",
            "/fill?40000",
            "/raise",
            "/fail",
            "/extra?" + NOTE,
        ):
            browser.get(path)
            tokens.append(browser.token or "")
        for fault in Fault:
            store.follow(partial(_always, fault))
            for path in (f"/put?{NOTE}", "/read", "/logout"):
                browser.get(path)
    said = b"\n".join(
        logging.Formatter().format(record).encode()
        for record in ears.caplog.records
        if record.name.startswith("sojourn")
    )
    assert said
    assert_absent(said, [*tokens, house.secret, NOTE, PRINCIPAL])


def test_r2_no_key_and_no_value_in_redis_holds_a_token_data_or_a_secret(redis_server: Any) -> None:
    house = House("redis", redis_server)
    node = house.node(binding="observe", renew_after="10m").blocking
    here = Client(ADDRESS, AGENT)
    tokens: list[str] = []
    csrf = ""
    for principal in (None, PRINCIPAL, PRINCIPAL):
        session = node.open(None, here)
        session.data.note = NOTE
        session["extra"] = NOTE
        csrf = session.csrf_token()
        if principal:
            session.login(principal)
        tokens.append(str(node.commit(session).token))
    house.clock.advance(700)
    for token in tokens:  # renewal leaves a stub
        session = node.open(token, here)
        assert session.data.note == NOTE
        tokens.append(str(node.commit(session).token))
        break
    with redis_server.client() as connection:
        keys = list(connection.scan_iter(count=1000))
        seen = b"\n".join(keys)
        for key in keys:
            kind = connection.type(key)
            seen += connection.dump(key)
            seen += connection.get(key) if kind == b"string" else repr(connection.zrange(key, 0, -1)).encode()
    house.close()
    assert len(keys) >= 5
    assert_absent(seen, [*tokens, house.secret, NOTE, PRINCIPAL, ADDRESS, csrf, "Firefox"])
    ids = [key.rpartition(b":")[2].decode() for key in keys if b":session:" in key]
    for id in ids:  # R2: what the dump holds does not authenticate
        assert id not in tokens
        assert outcome(house.node(store=MemoryStore(), binding="off").blocking, id) == "unknown"


def test_r2_no_id_in_a_store_opens_anything(server_house: House) -> None:
    node = server_house.node()
    token = begin(node.blocking, principal="42")
    for id in node.blocking.all_session_ids():
        assert id == token_id(token)
        assert outcome(node.blocking, id) == "unknown"


def test_r2_the_file_of_the_sqlite_store_holds_no_token_data_or_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples" / "sojourn-store-sqlite" / "src"))
    store_of = importlib.import_module("sojourn_store_sqlite.store").SqliteStore
    house = House("memory", None)
    store = store_of(str(tmp_path / "sessions.db"), clock=house.clock)
    node = house.node(store=store).blocking
    token = begin(node, principal=PRINCIPAL, note=NOTE)
    assert outcome(node, token) == "loaded"
    with sqlite3.connect(tmp_path / "sessions.db") as connection:
        dumped = "\n".join(connection.iterdump()).encode()
    connection.close()
    node.close()
    files = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert token_id(token).encode() in files
    assert_absent(dumped + files, [token, house.secret, NOTE, PRINCIPAL])


def test_r32_each_step_of_a_life_is_one_structured_record_with_id_and_time(
    server_house: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sojourn.events")
    node = server_house.node().blocking
    start = server_house.clock.time()
    token = begin(node)
    first = token_id(token)
    session = node.open(token)
    session.login("42")
    token = str(node.commit(session).token)
    second = token_id(token)
    session = node.open(token)
    session.logout()
    node.commit(session)
    assert outcome(node, token) == "unknown"
    short = begin(node)
    server_house.clock.advance(7200)
    assert outcome(node, short) in {"expired", "unknown"}
    events = [record.sojourn for record in caplog.records if hasattr(record, "sojourn")]
    steps = [(event.name, event.id, event.old_id, event.reason) for event in events]
    assert steps[:4] == [
        ("started", first, None, None),
        ("regenerated", second, first, None),
        ("deleted", second, None, "logout"),
        ("rejected", second, None, "unknown"),
    ]
    assert [event.at for event in events[:4]] == [start] * 4
    assert [event.name for event in events[4:]] == ["started", steps[5][0]]
    assert steps[5][0] in {"expired", "rejected"}
    assert len({event.principal_hash for event in events if event.principal_hash}) == 1
    assert "42" not in {event.principal_hash for event in events}


def test_r32_an_expired_cookie_is_reported_as_expired(cookie_house: House) -> None:
    node = cookie_house.node().blocking
    token = begin(node)
    cookie_house.clock.advance(7200)
    assert outcome(node, token) == "expired"
    assert cookie_house.observer.names[-1] == "expired"
