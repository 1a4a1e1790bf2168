"""Somebody meddles with the records on the server, or the server goes away: a clear answer, never somebody's session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sojourn import SessionManager, new_secret
from sojourn.crypto import token_id
from sojourn.settings import SessionSettings
from sojourn.testing import Browser, client
from tests.core.models import Visit
from tests.integration.applications import ASGI, WSGI, make_application
from tests.servers import RedisServer

Build = Callable[..., Browser[Visit]]


@pytest.fixture(params=[*ASGI, *WSGI])
def build(
    request: pytest.FixtureRequest, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Build]:
    """Build the site on a sealed Redis; keyword arguments are settings."""
    redis_server.offer(monkeypatch)
    monkeypatch.setenv("SOJOURN_STORE", "redis")
    monkeypatch.setenv("SOJOURN_PRESET", "testing")
    opened: list[tuple[Browser[Visit], SessionManager[Visit]]] = []

    def build(**settings: Any) -> Browser[Visit]:
        values = {"secret": new_secret(), **settings}
        sessions = SessionManager.from_settings(Visit, SessionSettings(_env_file=None, **values))
        browser = client(make_application(request.param, sessions), sessions, raise_errors=False)
        browser.__enter__()
        opened.append((browser, sessions))
        return browser

    yield build
    for browser, sessions in opened:
        browser.close()
        if request.param in WSGI:
            sessions.blocking.close()


def key_of(server: RedisServer, token: str | None) -> bytes:
    """Return the key of the record that a token leads to."""
    keys: Any = server.command("KEYS", f"*{token_id(token or '')}*")
    (key,) = keys
    return bytes(key)


def test_r25_another_session_s_record_copied_over_one_s_own_is_refused(build: Build, redis_server: RedisServer) -> None:
    rich = build()
    poor = rich.another()
    rich.get("/login?admin")
    poor.get("/login?guest")
    mine, theirs = key_of(redis_server, poor.token), key_of(redis_server, rich.token)
    redis_server.command("COPY", theirs, mine, "REPLACE")
    copied = redis_server.command("GET", mine)
    reply = poor.get("/read")
    assert (reply.status, reply.json()["principal"], reply.json()["outcome"]) == (200, None, "corrupt")
    assert reply.all("set-cookie") == []
    assert redis_server.command("GET", mine) == copied  # F3: the bytes are kept
    assert rich.get("/read").json()["principal"] == "admin"


def test_f3_a_write_after_a_damaged_record_gets_a_fresh_token(build: Build, redis_server: RedisServer) -> None:
    browser = build()
    browser.get("/count")
    old = browser.token
    key = key_of(redis_server, old)
    value: Any = redis_server.command("GET", key)
    redis_server.command("SET", key, value[:-1] + bytes([value[-1] ^ 1]))
    assert browser.get("/count").json() == 1
    assert browser.token != old
    assert redis_server.command("GET", key) == value[:-1] + bytes([value[-1] ^ 1])


@pytest.mark.parametrize("junk", [b"", b"x", b"\x00" * 200, b"\xff" * 200])
def test_f3_junk_in_place_of_the_record_is_anonymous(build: Build, redis_server: RedisServer, junk: bytes) -> None:
    browser = build()
    browser.get("/login?42")
    redis_server.command("SET", key_of(redis_server, browser.token), junk)
    reply = browser.get("/read")
    assert (reply.status, reply.json()["principal"], reply.all("set-cookie")) == (200, None, [])


def test_f4_f19_a_record_under_an_unknown_key_is_anonymous_and_untouched(build: Build) -> None:
    secret = new_secret()
    ahead, behind = build(secret=secret), build()
    ahead.get("/put?book")
    behind.token = ahead.token
    reply = behind.get("/read")
    assert (reply.status, reply.json()["outcome"], reply.all("set-cookie")) == (200, "future", [])
    assert behind.get("/put?pen").status == 503
    assert ahead.get("/read").json()["cart"] == ["book"]


def test_r26_a_retired_key_opens_and_the_next_write_seals_with_the_first(build: Build) -> None:
    old_secret, new = new_secret(), new_secret()
    before = build(secret=old_secret)
    before.get("/put?book")
    after = build(secrets=[new], secret=None, retired_secrets=[old_secret])
    after.token = before.token
    assert after.get("/put?pen").json() == ["book", "pen"]
    last = build(secret=new)
    last.token = after.token
    assert last.get("/read").json()["cart"] == ["book", "pen"]


def test_f1_without_the_server_the_session_is_503_and_the_rest_is_served(
    build: Build, redis_server: RedisServer
) -> None:
    browser = build()
    browser.get("/login?42")
    token = browser.token
    redis_server.kill()
    try:
        assert browser.get("/untouched").status == 200
        reply = browser.get("/read")
        assert (reply.status, reply.header("retry-after"), reply.all("set-cookie")) == (503, "1", [])
        assert browser.get("/logout").status == 503
        assert browser.token == token
        assert browser.another().get("/count").status == 503
    finally:
        redis_server.restart()
    assert browser.get("/read").status == 200


def test_f1_the_degraded_policy_is_anonymous_and_read_only(build: Build, redis_server: RedisServer) -> None:
    browser = build(on_unavailable="degraded")
    browser.get("/login?42")
    redis_server.kill()
    try:
        reply = browser.get("/read")
        assert (reply.status, reply.json()["principal"], reply.all("set-cookie")) == (200, None, [])
        reply = browser.get("/count")
        assert (reply.status, reply.all("set-cookie")) == (503, [])
    finally:
        redis_server.restart()
