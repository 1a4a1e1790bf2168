"""The browser for tests takes no application at its word: what breaks the protocol fails the test that did it."""

from __future__ import annotations

from typing import Any

import pytest

from sojourn.testing import client
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

    with pytest.raises(RuntimeError, match=f"failed at {phase}: no database"), client(app, make_manager()):
        pass
