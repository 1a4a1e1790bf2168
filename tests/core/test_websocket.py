"""The session middleware on WebSockets: it commits at accept, and checks the origin of handshakes with a cookie."""

from __future__ import annotations

from typing import Any

import pytest

from sojourn.errors import ResponseStartedError, SessionUnavailableError, StoreUnavailableError
from sojourn.stores import StoreIO
from sojourn.testing import Fault
from tests.core.asgi_bench import Bench, headers_of

pytestmark = pytest.mark.anyio

SAME = {"host": "shop.example", "origin": "http://shop.example"}


@pytest.fixture(params=list(StoreIO))
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(request.param)


def bump(session: Any) -> None:
    session.data.count += 1


def chat(bench: Bench, *, before: Any = None, after: Any = None) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if before is not None:
            before(bench.sessions.of(scope))
        await send({"type": "websocket.accept"})
        if after is not None:
            await after(bench.sessions.of(scope))
        await send({"type": "websocket.close"})

    return app


async def test_the_session_is_committed_at_accept(bench: Bench) -> None:
    token = await bench.begin()
    sent = await bench.send(chat(bench, before=bump), token, kind="websocket", **SAME)
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.close"]
    assert headers_of(sent[0], "set-cookie") == []
    assert (await bench.read(token)).data.count == 2


async def test_a_new_session_gets_its_cookie_with_the_accept(bench: Bench) -> None:
    sent = await bench.send(chat(bench, before=bump), kind="websocket", **SAME)
    (line,) = headers_of(sent[0], "set-cookie")
    assert (await bench.read(line.partition(";")[0].removeprefix("sojourn="))).data.count == 1


async def test_an_untouched_handshake_gets_nothing(bench: Bench) -> None:
    sent = await bench.send(chat(bench), kind="websocket", **SAME)
    assert sent[0].get("headers", []) == []
    assert bench.store.calls == []


async def test_after_the_accept_a_change_is_stored_by_an_explicit_commit_or_at_the_end(bench: Bench) -> None:
    token = await bench.begin()

    async def change(session: Any) -> None:
        bump(session)

    async def save(session: Any) -> None:
        bump(session)
        await bench.sessions.commit(session)

    await bench.send(chat(bench, after=change), token, kind="websocket", **SAME)
    assert (await bench.read(token)).data.count == 2
    await bench.send(chat(bench, after=save), token, kind="websocket", **SAME)
    assert (await bench.read(token)).data.count == 3
    assert bench.store.calls.count("replace") == 2


@pytest.mark.parametrize("opened_before", [True, False])
async def test_f20_a_new_session_after_the_accept_raises(bench: Bench, opened_before: bool) -> None:
    async def save(session: Any) -> None:
        bump(session)
        await bench.sessions.commit(session)

    before = (lambda session: session.data) if opened_before else None
    with pytest.raises(ResponseStartedError):
        await bench.send(chat(bench, before=before, after=save), kind="websocket", **SAME)
    assert "create" not in bench.store.calls


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "shop.example", "origin": "http://evil.example"},
        {"host": "shop.example", "origin": "https://shop.example"},
        {"host": "shop.example", "origin": "http://shop.example:81"},
        {"host": "shop.example", "origin": "null"},
        {"host": "shop.example", "origin": "http://shop.example.evil.example"},
        {"origin": "http://shop.example"},
    ],
)
async def test_r36_a_handshake_with_the_cookie_from_elsewhere_is_refused(bench: Bench, headers: dict[str, str]) -> None:
    token = await bench.begin()
    sent = await bench.send(chat(bench, before=bump), token, kind="websocket", **headers)
    assert [message["type"] for message in sent] == ["websocket.close"]
    assert sent[0]["code"] == 1008
    assert bench.store.calls == []
    assert (await bench.read(token)).data.count == 1


async def test_r36_a_handshake_without_the_cookie_is_not_checked(bench: Bench) -> None:
    sent = await bench.send(chat(bench), kind="websocket", host="shop.example", origin="http://evil.example")
    assert sent[0]["type"] == "websocket.accept"


async def test_r36_another_origin_may_be_allowed() -> None:
    bench = Bench(allowed_origins=["http://app.example"])
    token = await bench.begin()
    sent = await bench.send(
        chat(bench, before=bump), token, kind="websocket", host="shop.example", origin="http://app.example"
    )
    assert sent[0]["type"] == "websocket.accept"


async def test_f5_a_commit_that_fails_refuses_the_handshake(bench: Bench) -> None:
    token = await bench.begin()
    bench.store.follow(lambda method: Fault.BEFORE if method == "replace" else Fault.NONE)
    sent = await bench.send(chat(bench, before=bump), token, kind="websocket", **SAME)
    assert sent == [{"type": "websocket.close", "code": 1013}]


async def test_f1_an_outage_refuses_the_handshake(bench: Bench) -> None:
    token = await bench.begin()
    bench.store.follow(lambda method: Fault.BEFORE)
    sent = await bench.send(chat(bench, before=bump), token, kind="websocket", **SAME)
    assert sent == [{"type": "websocket.close", "code": 1013}]


async def test_an_outage_after_the_accept_is_raised(bench: Bench) -> None:
    async def fail(session: Any) -> None:
        raise StoreUnavailableError

    with pytest.raises(SessionUnavailableError):
        await bench.send(chat(bench, after=fail), kind="websocket", **SAME)


async def test_f23_a_logout_after_the_accept_is_carried_out(bench: Bench) -> None:
    async def leave(session: Any) -> None:
        session.logout()

    token = await bench.begin(principal="42")
    await bench.send(chat(bench, after=leave), token, kind="websocket", **SAME)
    assert (await bench.read(token)).principal is None
