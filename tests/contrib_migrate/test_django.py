"""Django's own sessions, made by Django itself, go on in our sessions: in the same project, and in any other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.contrib_django.project import MIDDLEWARE, configure
from tests.servers import RedisServer

configure()

from django.contrib.auth import get_user_model  # noqa: E402 - after configure()
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore  # noqa: E402
from django.contrib.sessions.backends.signed_cookies import SessionStore as CookieStore  # noqa: E402
from django.contrib.sessions.models import Session as Row  # noqa: E402
from django.test import Client  # noqa: E402
from django.test.utils import override_settings  # noqa: E402

from sojourn import Converted, ForeignSession, Reader  # noqa: E402
from sojourn.errors import StoreUnavailableError  # noqa: E402
from sojourn_contrib_django.manager import from_settings, get_manager  # noqa: E402
from sojourn_contrib_migrate import DjangoCache, DjangoCookie, DjangoDatabase  # noqa: E402
from tests.contrib_migrate.django_site import JsonOrPickle  # noqa: E402
from tests.contrib_migrate.kept import Kept, read, run  # noqa: E402
from tests.core.models import Visit  # noqa: E402

SECRET = "django's secret of a good length, which signs its sessions"
UNTIL = datetime.fromtimestamp(time.time(), UTC).date() + timedelta(days=30)
BEFORE: dict[str, Any] = {
    "MIDDLEWARE": ["django.contrib.sessions.middleware.SessionMiddleware", *MIDDLEWARE[1:]],
    "SESSION_COOKIE_NAME": "sessionid",
}
CACHE = "django.core.cache.backends.redis.RedisCache"


def project(**settings: Any) -> AbstractContextManager[None]:
    """Make the project one with the secret and site of these tests."""
    made: AbstractContextManager[None] = override_settings(
        **{"SECRET_KEY": SECRET, "ROOT_URLCONF": "tests.contrib_migrate.django_site", **settings}
    )
    return made


@pytest.fixture
def ada() -> Iterator[Any]:
    user = get_user_model().objects.create_user("ada", password="analytical")
    yield user
    user.delete()


def convert(foreign: ForeignSession) -> Converted[Visit] | None:
    return Converted(Visit(), foreign.data.get("_auth_user_id"), dict(foreign.data))


def who(cookies: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Ask the project who is logged in; return the answer, and the cookies of the browser afterwards."""
    browser = Client()
    browser.cookies.load(cookies)
    answer = browser.get("/whoami").content.decode()
    return answer, {name: morsel.value for name, morsel in browser.cookies.items()}


def switch(reader: Reader, cookies: dict[str, str]) -> None:
    """Let the project go over to our sessions, and see its user logged in, once."""
    sessions = lambda: from_settings(Visit, readers=[reader], convert=convert)  # noqa: E731
    with project(SOJOURN_READERS_UNTIL=UNTIL, SOJOURN_STORE="memory"), override_settings(SOJOURN_MANAGER=sessions()):
        answer, both = who(cookies)
        assert answer == "ada 40"
        ours = get_manager().settings.cookie_name
        assert both.keys() == {*cookies, ours}
        assert who({ours: both[ours]})[0] == "ada 40"
        assert who(cookies)[0] == "AnonymousUser 0"


@pytest.mark.parametrize("end", [False, True], ids=["kept", "ended"])
@pytest.mark.parametrize("engine", ["db", "cached_db"])
def test_sessions_in_the_database_go_on_and_back_again_refuses(ada: Any, engine: str, end: bool) -> None:
    before = {**BEFORE, "SESSION_ENGINE": f"django.contrib.sessions.backends.{engine}"}
    with project(**before):
        browser = Client()
        browser.get("/login")
        cookies = {"sessionid": browser.cookies["sessionid"].value}
        assert who(cookies)[0] == "ada 40"
    switch(DjangoDatabase(SECRET, end=end), cookies)
    with project(**{**before, "SESSION_ENGINE": "django.contrib.sessions.backends.db"}):
        assert who(cookies)[0] == ("AnonymousUser 0" if end else "ada 40")


def test_sessions_in_the_cookie_go_on(ada: Any) -> None:
    with project(**BEFORE, SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies"):
        browser = Client()
        browser.get("/login")
        cookies = {"sessionid": browser.cookies["sessionid"].value}
        assert cookies["sessionid"].startswith(".")  # it was compressed
    switch(DjangoCookie(SECRET), cookies)


def test_sessions_in_the_cache_go_on_where_it_writes_json(ada: Any, redis_server: RedisServer) -> None:
    import redis

    with redis.Redis.from_url(redis_server.url) as client:
        for serializer, comes_over in ((None, False), (JsonOrPickle, True)):
            options = {"OPTIONS": {"serializer": serializer}} if serializer else {}
            caches = {"default": {"BACKEND": CACHE, "LOCATION": redis_server.url, "KEY_PREFIX": "shop", **options}}
            before = {
                **BEFORE,
                "SESSION_ENGINE": "django.contrib.sessions.backends.cache",
                "CACHES": caches,
            }
            reader = DjangoCache(client, key_prefix="shop", end=True)
            with project(**before):
                browser = Client()
                browser.get("/login")
                cookies = {"sessionid": browser.cookies["sessionid"].value}
                assert who(cookies)[0] == "ada 40"
            if not comes_over:
                assert read(reader, cookies["sessionid"]) is None  # R37: pickle is not read
                continue
            switch(reader, cookies)
            with project(**before):
                assert who(cookies)[0] == "AnonymousUser 0"


def test_a_session_from_before_a_change_of_the_password_is_nobodys(ada: Any) -> None:
    with project(**BEFORE, SESSION_ENGINE="django.contrib.sessions.backends.db"):
        browser = Client()
        browser.get("/login")
        cookies = {"sessionid": browser.cookies["sessionid"].value}
    ada.set_password("another one")
    ada.save()
    sessions = lambda: from_settings(Visit, readers=[DjangoDatabase(SECRET)], convert=convert)  # noqa: E731
    with project(SOJOURN_READERS_UNTIL=UNTIL, SOJOURN_STORE="memory"), override_settings(SOJOURN_MANAGER=sessions()):
        assert who(cookies)[0].startswith("AnonymousUser")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(data=st.dictionaries(st.text(max_size=8), _JSON, max_size=4), repeat=st.integers(0, 30))
def test_what_django_has_signed_is_read_as_django_reads_it(data: dict[str, Any], repeat: int) -> None:
    data["long"] = "x" * repeat * 10
    with project():
        store = DatabaseStore()
        signed = store.encode(data)
        assert store.decode(signed) == data
        cookies = CookieStore()
        cookies.update(data)
        cookies.save()
    ends = datetime.now(UTC) + timedelta(days=1)
    session = read(DjangoDatabase(SECRET, fetch=lambda key: (signed, ends)), "k" * 32)
    assert session is not None
    assert session.data == data
    session = read(DjangoCookie(SECRET), cookies.session_key)
    assert session is not None
    assert session.data == data


@given(at=st.integers(0, 10_000), by=st.integers(1, 127), cut=st.booleans())
def test_r24_what_was_changed_or_cut_is_refused(at: int, by: int, cut: bool) -> None:
    with project():
        cookies = CookieStore()
        cookies["user"] = 7
        cookies.save()
        value = cookies.session_key
    at %= len(value)
    changed = value[:at] if cut else value[:at] + chr(ord(value[at]) ^ by) + value[at + 1 :]
    assert read(DjangoCookie(SECRET), changed) is None
    ends = datetime.now(UTC) + timedelta(days=1)
    assert read(DjangoDatabase(SECRET, fetch=lambda key: (changed, ends)), "k" * 32) is None


def test_secrets_before_the_present_one_count_and_those_of_others_do_not() -> None:
    with project():
        cookies = CookieStore()
        cookies["user"] = 7
        cookies.save()
    assert read(DjangoCookie("a new one", fallbacks=[SECRET]), cookies.session_key) is not None
    assert read(DjangoCookie("a new one"), cookies.session_key) is None


def test_what_has_expired_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with project():
        signed = DatabaseStore().encode({"user": 7})
        cookies = CookieStore()
        then = time.time() - 100
        monkeypatch.setattr(time, "time", lambda: then)
        cookies["user"] = 7
        cookies.save()
        monkeypatch.undo()
    past = datetime.now(UTC) - timedelta(seconds=1)
    assert read(DjangoDatabase(SECRET, fetch=lambda key: (signed, past)), "k" * 32) is None
    assert read(DjangoCookie(SECRET, max_age=101), cookies.session_key) is not None
    assert read(DjangoCookie(SECRET, max_age=99), cookies.session_key) is None


def test_a_database_that_fails_is_an_outage() -> None:
    def fail(key: str) -> Any:
        raise OSError

    reader = DjangoDatabase(SECRET, fetch=fail, delete=fail, end=True)
    with pytest.raises(StoreUnavailableError):
        read(reader, "k" * 32)
    with pytest.raises(StoreUnavailableError):
        run(reader.end(ForeignSession(reader="django-db", identity=b"k" * 32, data={})))


@pytest.mark.parametrize("key", ["", "k", "../../etc", "K" * 32, "k" * 33 + "\n", "k" * 41])
def test_what_cannot_be_a_key_is_not_looked_up(key: str) -> None:
    def fail(_: str) -> Any:
        raise AssertionError

    assert read(DjangoDatabase(SECRET, fetch=fail), key) is None
    kept = Kept()
    kept.failure = AssertionError()
    assert read(DjangoCache(kept), key) is None


def test_rows_that_are_gone_from_the_table_lead_nowhere(ada: Any) -> None:
    reader = DjangoDatabase(SECRET, end=True)
    with project():
        store = DatabaseStore()
        store["user"] = 7
        store.save()
        key = str(store.session_key)
        session = read(reader, key)
        assert session is not None
        run(reader.end(session))
        assert not Row.objects.filter(session_key=key).exists()
        assert read(reader, key) is None
