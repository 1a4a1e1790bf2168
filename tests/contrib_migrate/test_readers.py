"""What the libraries write is read as they read it, and nothing that was changed is."""

from __future__ import annotations

import base64
import hmac
import json
import pickle
import string
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID

import msgspec
import pytest
from aiohttp_session.cookie_storage import EncryptedCookieStorage
from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from flask_session.base import MsgSpecSerializer
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import Signer, TimestampSigner
from litestar.middleware.session.client_side import ClientSideSessionBackend, CookieBackendConfig
from markupsafe import Markup
from redis import Redis

from sojourn import ForeignSession, Reader, StoreIO
from sojourn.errors import ConfigurationError, StoreUnavailableError
from sojourn.testing import FakeClock
from sojourn_contrib_migrate import (
    AiohttpCookie,
    AiohttpRedis,
    ExpressRedis,
    FlaskCookie,
    FlaskSessionRedis,
    LitestarCookie,
    LitestarRedis,
    StarletteCookie,
    StarsessionsRedis,
)
from tests.contrib_migrate.kept import NOW, Kept, read, run
from tests.servers import RedisServer

SECRET = "the former application's secret, 43 letters"
KEY = bytes(range(32))
FLASK = Flask("former")
FLASK.config["SECRET_KEY"] = SECRET
LITESTAR = ClientSideSessionBackend(CookieBackendConfig(secret=KEY))
AIOHTTP = EncryptedCookieStorage(KEY, max_age=3600)

_SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20)
_JSON = st.dictionaries(
    st.text(max_size=8),
    st.recursive(
        _SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


def starlette(data: dict[str, Any]) -> str:
    return TimestampSigner(SECRET).sign(base64.b64encode(json.dumps(data).encode())).decode()


def flask(data: dict[str, Any]) -> str:
    signer = SecureCookieSessionInterface().get_signing_serializer(FLASK)
    assert signer is not None
    made = signer.dumps(data)
    return made if isinstance(made, str) else made.decode()


def litestar(data: dict[str, Any]) -> str:
    (chunk,) = LITESTAR.dump_data(data)
    return chunk.decode()


def aiohttp(data: dict[str, Any]) -> str:
    kept = json.dumps({"created": int(time.time()), "session": data})
    return AIOHTTP._fernet.encrypt(kept.encode()).decode()


def soon(options: dict[str, Any]) -> dict[str, Any]:
    """Read a moment later: what seems to be signed in the future is refused, and the clock of a machine may be put back."""
    return {"clock": FakeClock(time.time() + 5), **options}


COOKIES: dict[str, tuple[Any, Any]] = {
    "starlette": (starlette, lambda **options: StarletteCookie(SECRET, **soon(options))),
    "flask": (flask, lambda **options: FlaskCookie(SECRET, **soon(options))),
    "litestar": (litestar, lambda **options: LitestarCookie(KEY, **options)),
    "aiohttp": (aiohttp, lambda **options: AiohttpCookie(KEY, **options)),
}
each = pytest.mark.parametrize("library", sorted(COOKIES))


def content(reader: Reader, value: str) -> Any:
    session = read(reader, value)
    return None if session is None else session.data


# -- sessions in the cookie ------------------------------------------------------------------------------------------


@each
@given(data=_JSON)
def test_what_the_library_has_written_is_read(library: str, data: dict[str, Any]) -> None:
    write, make = COOKIES[library]
    assert content(make(), write(data)) == data


@given(
    st.dictionaries(
        st.sampled_from(["a", " t", " d", "b"]),
        st.tuples(st.integers()) | st.binary(max_size=9) | st.uuids() | st.datetimes() | st.builds(Markup, st.text()),
        max_size=3,
    )
)
def test_flasks_tags_are_read(data: dict[str, Any]) -> None:
    value = flask({"nested": [data], **data})
    theirs = SecureCookieSessionInterface().get_signing_serializer(FLASK)
    assert theirs is not None
    assert content(FlaskCookie(SECRET), value) == theirs.loads(value)


def test_flask_moments_are_utc_and_markup_is_text() -> None:
    moment = datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)
    found = content(
        FlaskCookie(SECRET), flask({"at": moment, "html": Markup("<b>"), "id": UUID(int=7), "raw": b"\xff"})
    )
    assert found == {"at": moment, "html": "<b>", "id": UUID(int=7), "raw": b"\xff"}
    assert type(found["html"]) is str


@each
@given(at=st.integers(0, 10_000), to=st.sampled_from(string.printable), cut=st.booleans())
def test_r24_a_cookie_that_was_changed_or_cut_is_refused_or_the_same_session(
    library: str, at: int, to: str, cut: bool
) -> None:
    write, make = COOKIES[library]
    value = write({"user_id": 7})
    at %= len(value)
    found = read(make(), value[:at] if cut else value[:at] + to + value[at + 1 :])
    if found is not None:  # base64 spells some bytes in several ways: it is not another session, which counted twice
        session = read(make(), value)
        assert session is not None
        assert (found.identity, found.data) == (session.identity, session.data)


@each
def test_r22_however_base64_spells_a_cookie_it_is_the_same_session(library: str) -> None:
    """A signature or seal may be written in several ways; each of them would otherwise be taken over once more."""
    write, make = COOKIES[library]
    alphabet = string.ascii_letters + string.digits + "+/-_"
    spelled = 0
    while not spelled:  # sometimes the last character has no bits to spare
        value = write({"user_id": 7, "pad": "x" * (int(time.time() * 1e6) % 3)})
        session = read(make(), value)
        assert session is not None
        last = value.rstrip("=")
        for other in [last[:-1] + to + value[len(last) :] for to in alphabet] + [
            value + "!",
            value[:-4] + "!" + value[-4:],
        ]:
            found = read(make(), other)
            if found is not None and other != value:
                spelled += 1
                assert found.identity == session.identity


@each
def test_another_secret_is_refused(library: str) -> None:
    others = {
        "starlette": StarletteCookie(SECRET + "!"),
        "flask": FlaskCookie(SECRET + "!"),
        "litestar": LitestarCookie(bytes(32)),
        "aiohttp": AiohttpCookie(bytes(32)),
    }
    assert read(others[library], COOKIES[library][0]({"user_id": 7})) is None


def test_the_salt_of_another_use_of_the_same_secret_is_refused() -> None:
    body = base64.urlsafe_b64encode(b'{"user_id":7}')
    assert read(FlaskCookie(SECRET), TimestampSigner(SECRET).sign(body).decode()) is None
    assert read(StarletteCookie(SECRET), flask({"user_id": 7})) is None


@pytest.mark.parametrize("library", ["starlette", "flask", "aiohttp"])
def test_a_cookie_is_refused_when_its_time_is_over_and_before_it_began(library: str) -> None:
    write, make = COOKIES[library]
    began = time.time()
    value = write({"user_id": 7})
    limit = {"flask": "lifetime"}.get(library, "max_age")
    for passed, is_read in ((0, True), (98, True), (103, False), (-100, False)):
        clock = FakeClock(began + passed)
        assert (read(make(clock=clock, **{limit: 100}), value) is not None) is is_read
    if library != "flask":
        assert read(make(clock=FakeClock(began + 1e9), **{limit: None}), value) is not None


def test_litestars_cookie_says_itself_when_it_ends() -> None:
    value, now = litestar({"user_id": 7}), time.time()
    session = read(LitestarCookie(KEY), value)
    assert session is not None
    assert session.expires_at == pytest.approx(now + 14 * 86_400, abs=2)
    assert read(LitestarCookie(KEY, clock=FakeClock(now + 14 * 86_400 + 2)), value) is None


def test_a_former_secret_of_flask_counts_beside_the_present_one() -> None:
    assert content(FlaskCookie("a new one", fallbacks=[SECRET]), flask({"user_id": 7})) == {"user_id": 7}


@each
@pytest.mark.parametrize("value", ["", ".", "..", "a.b.c", "=", "null", "x" * 5000, "\x00", "é", "\ud800", "[" * 5000])
def test_what_is_no_cookie_of_the_library_is_refused(library: str, value: str) -> None:
    assert read(COOKIES[library][1](), value) is None


def test_a_signed_value_that_is_no_object_is_refused() -> None:
    for body in (b"7", b"[]", b"{", b"[" * 50_000, b"\xff"):
        assert read(StarletteCookie(SECRET), TimestampSigner(SECRET).sign(base64.b64encode(body)).decode()) is None


def test_r29_a_signed_bomb_is_not_inflated() -> None:
    signer = SecureCookieSessionInterface().get_signing_serializer(FLASK)
    assert signer is not None
    assert read(FlaskCookie(SECRET), flask({"x": "y" * (1 << 20)})) is None
    assert read(FlaskCookie(SECRET), flask({"x": "y" * (1 << 19)})) is not None


@pytest.mark.parametrize(
    "make",
    [
        lambda: StarletteCookie(""),
        lambda: FlaskCookie(SECRET, fallbacks=[""]),
        lambda: LitestarCookie(""),
        lambda: AiohttpCookie(b""),
        lambda: ExpressRedis(Kept(), []),
        lambda: FlaskSessionRedis(Kept(), secret_key=""),
    ],
    ids=["starlette", "flask", "litestar", "aiohttp", "express", "flask-session"],
)
def test_a_reader_without_a_secret_is_refused(make: Any) -> None:
    with pytest.raises(ConfigurationError, match="has no secret"):
        make()


# -- sessions in Redis ------------------------------------------------------------------------------------------------


def flask_session(form: str, data: dict[str, Any]) -> bytes:
    made = MsgSpecSerializer(FLASK, form).encode(data)
    assert isinstance(made, bytes)
    return made


@pytest.mark.parametrize("written", ["msgpack", "json"])
@pytest.mark.parametrize("expected", ["msgpack", "json"])
@given(data=_JSON)
def test_flask_session_is_read_in_either_format(written: str, expected: Any, data: dict[str, Any]) -> None:
    kept = Kept()
    kept.values["session:id"] = (flask_session(written, data), -1)
    assert content(FlaskSessionRedis(kept, serialization=expected), "id") == data


@given(data=_JSON, protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_r37_pickle_is_not_read(data: dict[str, Any], protocol: int) -> None:
    kept = Kept()
    kept.values["session:id"] = (pickle.dumps(data, protocol), -1)
    assert read(FlaskSessionRedis(kept), "id") is None
    for reader in (StarsessionsRedis(kept, prefix="session:"), LitestarRedis(kept, namespace="session")):
        assert read(reader, "id") is None


def test_flask_sessions_signature_of_the_id_is_asked_for_where_it_was_given() -> None:
    kept = Kept()
    kept.values["session:id"] = (flask_session("msgpack", {"user_id": 7}), -1)
    signed = Signer(SECRET, salt="flask-session", key_derivation="hmac").sign("id").decode()
    reader = FlaskSessionRedis(kept, secret_key=SECRET)
    assert content(reader, signed) == {"user_id": 7}
    assert read(reader, "id") is None
    assert read(reader, signed[:-1]) is None


def test_starsessions_keeps_its_own_figures_to_itself() -> None:
    kept = Kept()
    kept.values["starsessions.id"] = (json.dumps({"user_id": 7, "__metadata__": {"created": 1}}), 5000)
    session = read(StarsessionsRedis(kept, clock=FakeClock()), "id")
    assert session is not None
    assert (session.data, session.expires_at) == ({"user_id": 7}, NOW + 5)


def test_aiohttps_record_ends_by_its_own_age() -> None:
    kept = Kept()
    kept.values["AIOHTTP_SESSION_id"] = (json.dumps({"created": int(NOW) - 100, "session": {"user_id": 7}}), -1)
    assert content(AiohttpRedis(kept, max_age=101, clock=FakeClock()), "id") == {"user_id": 7}
    assert read(AiohttpRedis(kept, max_age=99, clock=FakeClock()), "id") is None
    for other in ("{}", "[]", json.dumps({"created": "now", "session": {}}), json.dumps({"created": 1, "session": []})):
        kept.values["AIOHTTP_SESSION_id"] = (other, -1)
        assert read(AiohttpRedis(kept, clock=FakeClock()), "id") is None


def test_an_express_cookie_ends_when_its_record_says_so() -> None:
    kept = Kept()
    reader = ExpressRedis(kept, SECRET, clock=FakeClock())
    mac = base64.b64encode(hmac.digest(SECRET.encode(), b"id", "sha256")).rstrip(b"=").decode()
    value = quote(f"s:id.{mac}", safe="")
    for expires, is_read in (
        (None, True),
        ((datetime.fromtimestamp(NOW, UTC) + timedelta(seconds=1)).isoformat().replace("+00:00", "Z"), True),
        ((datetime.fromtimestamp(NOW, UTC) - timedelta(seconds=1)).isoformat().replace("+00:00", "Z"), False),
        ("soon", False),
        (7, False),
    ):
        kept.values["sess:id"] = (json.dumps({"cookie": {"expires": expires}, "user_id": 7}), -1)
        assert content(reader, value) == ({"user_id": 7} if is_read else None)
    kept.values["sess:id"] = (json.dumps({"user_id": 7}), -1)
    assert read(reader, value) is None
    kept.values["sess:id"] = (json.dumps({"cookie": {}, "user_id": 7}), -1)
    assert content(reader, value) == {"user_id": 7}
    for wrong in (f"id.{mac}", f"x:id.{mac}", "s:id", quote(f"s:other.{mac}"), "%ff", "s%3Aid."):
        assert read(reader, wrong) is None


READERS: list[Any] = [FlaskSessionRedis, StarsessionsRedis, AiohttpRedis, LitestarRedis]


@pytest.mark.parametrize("make", READERS)
def test_a_server_that_fails_is_an_outage(make: Any) -> None:
    kept = Kept()
    kept.failure = OSError("down")
    reader = make(kept, end=True)
    with pytest.raises(StoreUnavailableError):
        read(reader, "id")
    with pytest.raises(StoreUnavailableError):
        run(reader.end(ForeignSession(reader=reader.name, identity=b"id", data={})))


@pytest.mark.parametrize("make", READERS)
@given(kept_=st.binary(max_size=60) | st.just(msgspec.msgpack.encode([1])) | st.just(b"[" * 100_000))
def test_whatever_stands_in_the_record_is_no_exception(make: Any, kept_: bytes) -> None:
    kept = Kept()
    reader = make(kept)
    kept.values[reader.prefix + "id"] = (kept_, -1)
    session = read(reader, "id")
    assert session is None or isinstance(session.data, dict)
    assert read(reader, "x" * 600) is None


@pytest.mark.parametrize("make", READERS)
def test_an_id_that_no_library_makes_is_nobodys(make: Any, redis_server: RedisServer) -> None:
    with Redis.from_url(redis_server.url) as client:
        reader = make(client, end=True)
        client.hset(f"{reader.prefix}hash", "user_id", 7)
        # Bytes that are no UTF-8, as aiohttp hands them on.
        for id_ in ("hash", "\udcff", "\x00", "*"):
            assert read(reader, id_) is None


def test_a_client_from_a_url_has_a_blocking_twin_and_one_of_the_application_has_not() -> None:
    import redis
    import redis.asyncio

    reader = StarsessionsRedis("redis://127.0.0.1:1/0")
    twin = reader.blocking_twin()
    assert (reader.io, twin.io) == (StoreIO.ASYNC, StoreIO.BLOCKING)
    with pytest.raises(StoreUnavailableError):
        read(twin, "id")
    run(twin.aclose())
    run(twin.aclose())
    assert StarsessionsRedis(redis.Redis()).io is StoreIO.BLOCKING
    suspends = StarsessionsRedis(redis.asyncio.Redis())
    assert suspends.io is StoreIO.ASYNC
    with pytest.raises(ConfigurationError, match=r"give it a redis.Redis, or a URL"):
        suspends.blocking_twin()
