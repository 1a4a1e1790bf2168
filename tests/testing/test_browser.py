"""The browser for tests takes no application at its word: what breaks the protocol fails the test that did it."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from typing import Any

import pytest

from sojourn.stores import StoreIO
from sojourn.stores.memory import MemoryStore
from sojourn.testing import client
from sojourn_testing.browser import AsgiTransport
from tests.core.models import make_manager


def silent(environ: Any, start_response: Any) -> list[bytes]:
    return [b"a body without a head"]


def starting_twice(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    start_response("500 Internal Server Error", [])
    return [b""]


def starting_again_after_the_body(environ: Any, start_response: Any) -> Any:
    write = start_response("200 OK", [])
    write(b"half of it")
    error = LookupError("the rest is missing")
    start_response("500 Internal Server Error", [], (LookupError, error, None))
    return [b""]


async def speechless(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise NotImplementedError


@pytest.mark.parametrize(
    ("app", "error", "complaint"),
    [
        (silent, AssertionError, "without having called start_response"),
        (starting_twice, AssertionError, "twice without exc_info"),
        (starting_again_after_the_body, LookupError, "the rest is missing"),
        (speechless, AssertionError, "without having sent a response"),
    ],
)
def test_an_application_that_breaks_its_protocol_fails_the_test(
    app: Any, error: type[Exception], complaint: str
) -> None:
    sessions = make_manager()
    with client(app, sessions) as browser, pytest.raises(error, match=complaint):
        browser.get("/")
    with client(app, sessions, raise_errors=False) as browser:
        assert browser.get("/").status == 500


def test_an_error_before_the_first_byte_may_begin_the_response_anew() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        start_response("404 Not Found", [], (LookupError, LookupError("nothing was sent yet"), None))
        return [b"not here"]

    with client(app, make_manager()) as browser:
        answer = browser.get("/")
    assert (answer.status, answer.text) == (404, "not here")


@pytest.mark.parametrize("phase", ["startup", "shutdown"])
def test_an_application_that_fails_to_start_or_to_stop_fails_the_test(phase: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            kind = (await receive())["type"].removeprefix("lifespan.")
            outcome = "failed" if kind == phase else "complete"
            await send({"type": f"lifespan.{kind}.{outcome}", "message": "no database"})
            if kind == "shutdown" or outcome == "failed":
                return

    browser = client(app, make_manager())
    with pytest.raises(RuntimeError, match=f"failed at {phase}: no database"), browser:
        pass
    browser.close()  # safe: it is closed


@pytest.mark.parametrize("phase", ["startup", "shutdown"])
def test_a_wire_whose_application_fails_leaves_no_event_loop(phase: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            kind = (await receive())["type"].removeprefix("lifespan.")
            await send({"type": f"lifespan.{kind}.{'failed' if kind == phase else 'complete'}"})

    browser = client(app, make_manager())
    transport = browser._transport
    assert isinstance(transport, AsgiTransport)
    with pytest.raises(RuntimeError, match=f"failed at {phase}"), browser:
        assert transport.is_open
    assert not transport.is_open


def test_a_manager_that_fails_to_close_leaves_no_event_loop() -> None:
    class Failing(MemoryStore):
        io = StoreIO.ASYNC

        async def aclose(self) -> None:
            raise OSError("the network is gone")

    browser = client(speechless, make_manager(Failing()))
    transport = browser._transport
    assert isinstance(transport, AsgiTransport)
    with pytest.raises(OSError, match="the network is gone"), browser:
        pass
    assert not transport.is_open


@pytest.mark.parametrize("used", [False, True])
def test_a_wire_that_nobody_closed_may_be_collected_while_another_loop_runs(used: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def collect() -> list[Any]:
        told: list[Any] = []
        before, sys.unraisablehook = sys.unraisablehook, told.append
        try:
            held.clear()
            gc.collect()
        finally:
            sys.unraisablehook = before
        return told

    held = [client(app, make_manager())]
    if used:
        assert held[0].get("/").status == 204
    gone = weakref.ref(held[0])
    assert asyncio.run(collect()) == []
    assert gone() is None
