"""The session middleware for ASGI, message by message."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import CookieAction, LoadOutcome, Session, SessionManager, StoreIO
from sojourn.asgi import SessionMiddleware
from sojourn.errors import (
    ConfigurationError,
    ResponseStartedError,
    SessionReadOnlyError,
    SessionUnavailableError,
    StoreUnavailableError,
)
from sojourn.manager.shielding import in_a_task, in_steps
from sojourn.testing import Fault
from tests.core.asgi_bench import App, Bench, headers_of, make_scope
from tests.core.models import Visit

pytestmark = pytest.mark.anyio


def app_of(sessions: SessionManager[Visit], handler: Callable[[Session[Visit]], object], status: int = 200) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        handler(sessions.of(scope))
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"the application's"})

    return app


def bump(session: Session[Visit]) -> None:
    session.data.count += 1


@pytest.fixture(params=list(StoreIO))
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(request.param)


# -- what is opened ----------------------------------------------------------------------------------------------


async def test_r17_an_untouched_request_costs_at_most_the_load(bench: Bench) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    token = await bench.begin()
    sent = await bench.send(app, token)
    assert bench.store.calls == ([] if bench.store.io is StoreIO.NONE else ["load"])
    assert sent[0]["headers"] == []
    bench.store.calls.clear()
    await bench.send(app)
    assert bench.store.calls == []


async def test_r4_a_malformed_token_reaches_no_store(bench: Bench) -> None:
    for token in ("", "short", "A" * 44, "A" * 100_000, "\u00fc" * 43):
        await bench.send(app_of(bench.sessions, lambda session: session.data), token)
    assert bench.store.calls == []


async def test_lazy_mode_opens_nothing_until_it_is_asked_to() -> None:
    bench = Bench()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/get":
            assert (await bench.sessions.get(scope)).data.count == 1
            assert bench.sessions.of(scope) is await bench.sessions.get(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    token = await bench.begin()
    await bench.send(app, token, load="lazy")
    assert bench.store.calls == []
    await bench.send(app, token, load="lazy", path="/get")
    assert bench.store.calls == ["load"]


@pytest.mark.parametrize("options", [{"load": "lazy"}, {"exclude": ["/static/*"], "path": "/static/a"}])
async def test_of_says_what_to_do_where_nothing_was_opened(options: dict[str, Any]) -> None:
    bench = Bench()
    token = await bench.begin()
    with pytest.raises(ConfigurationError, match=r"await sessions\.get\(request\)"):
        await bench.send(app_of(bench.sessions, bump), token, **options)
    assert bench.store.calls == []


async def test_an_excluded_path_is_not_opened_but_may_be(bench: Bench) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await bench.sessions.get(scope)).data.count == 1
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def untouched(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    token = await bench.begin()
    await bench.send(untouched, token, exclude=["/static/*"], path="/static/a")
    assert bench.store.calls == []
    await bench.send(app, token, exclude=["/static/*"], path="/static/a")
    assert bench.store.calls == ["load"]


async def test_an_unknown_load_mode_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="auto"):
        SessionMiddleware(app_of(Bench().sessions, bump), Bench().sessions, load="eager")  # type: ignore[arg-type]


async def test_of_another_manager_and_without_middleware_says_what_to_do(bench: Bench) -> None:
    other = Bench().sessions
    with pytest.raises(ConfigurationError, match="another manager"):
        await bench.send(app_of(other, bump))
    with pytest.raises(ConfigurationError, match="SessionMiddleware"):
        other.of(make_scope())
    with pytest.raises(ConfigurationError, match="SessionMiddleware"):
        other.of(object())


async def test_a_cookie_header_in_two_pieces_is_read(bench: Bench) -> None:
    token = await bench.begin()
    scope = make_scope(token)
    scope["headers"].insert(0, (b"Cookie", b"a=b"))
    seen: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(bench.sessions.of(scope).data.count)

    await SessionMiddleware(app, bench.sessions)(scope, None, None)  # type: ignore[arg-type]
    assert seen == [1]


async def test_the_scope_holds_the_mapping_for_libraries(bench: Bench) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        mapping = scope["session"]
        assert not mapping
        mapping["_state"] = "x"
        assert "_state" in mapping
        assert mapping.pop("_state") == "x"
        assert mapping.setdefault("kept", [1]) == [1]
        assert bool(mapping)
        assert mapping.principal is None
        assert repr(mapping) == "<AsyncRequestSession>"
        await send({"type": "http.response.start", "status": 200, "headers": []})

    token = await bench.begin()
    await bench.send(app, token)
    assert dict(await bench.read(token)) == {"kept": [1]}


MAPPING_READS: dict[str, Callable[[Any], object]] = {
    "getitem": lambda mapping: mapping["here"],
    "get": lambda mapping: mapping.get("nothing"),
    "contains": lambda mapping: "nothing" in mapping,
    "iter": lambda mapping: list(mapping),
    "len": len,
    "keys": lambda mapping: list(mapping.keys()),
    "values": lambda mapping: list(mapping.values()),
    "items": lambda mapping: list(mapping.items()),
    "in keys": lambda mapping: "nothing" in mapping.keys(),  # noqa: SIM118 - the view is what is tried
    "len of items": lambda mapping: len(mapping.items()),
    "dict": dict,
    "copy": lambda mapping: {**mapping},
    "setdefault": lambda mapping: mapping.setdefault("here", 2),
    "pop with a default": lambda mapping: mapping.pop("nothing", None),
    "setitem": lambda mapping: mapping.__setitem__("new", 1),
    "delitem": lambda mapping: mapping.__delitem__("here"),
    "pop": lambda mapping: mapping.pop("here"),
    "popitem": lambda mapping: mapping.popitem(),
    "update": lambda mapping: mapping.update(new=1),
    "ior": lambda mapping: mapping.__ior__({"new": 1}),
    "or": lambda mapping: mapping | {"new": 1},
    "ror": lambda mapping: {"new": 1} | mapping,
    "copied": lambda mapping: mapping.copy(),
    "reversed": lambda mapping: list(reversed(mapping)),
    "update with nothing": lambda mapping: mapping.update({}) or mapping.get("x"),
    "clear": lambda mapping: mapping.clear(),
}


@given(name=st.sampled_from(sorted(MAPPING_READS)), by_scope=st.booleans(), io=st.sampled_from(list(StoreIO)))
def test_r23_every_mapping_method_makes_the_response_vary(name: str, by_scope: bool, io: StoreIO) -> None:
    bench = Bench(io)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        MAPPING_READS[name](scope["session"] if by_scope else bench.sessions.of(scope))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"vary", b"Accept")]})

    async def run() -> list[Any]:
        session = await bench.sessions.open(None)
        session["here"] = 1
        token = (await bench.sessions.commit(session)).token
        return await bench.send(app, token)

    assert headers_of(asyncio.run(run())[0], "vary") == ["Accept, Cookie"]


# -- failures ----------------------------------------------------------------------------------------------------


async def test_f5_a_failed_commit_answers_503_itself_and_discards_the_application_s_answer(bench: Bench) -> None:
    token = await bench.begin()
    bench.store.follow(lambda method: Fault.BEFORE if method == "replace" else Fault.NONE)
    sent = await bench.send(app_of(bench.sessions, bump), token)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 503
    assert headers_of(sent[0], "retry-after") == ["1"]
    assert headers_of(sent[0], "set-cookie") == []
    assert b"application" not in sent[1]["body"]
    assert (await bench.read(token)).data.count == 1


async def test_f5_a_session_that_could_not_be_created_sets_no_cookie(bench: Bench) -> None:
    bench.store.follow(lambda method: Fault.BEFORE)
    sent = await bench.send(app_of(bench.sessions, bump), None, accept="application/json")
    assert sent[0]["status"] == 503
    assert headers_of(sent[0], "set-cookie") == []
    assert headers_of(sent[0], "content-type") == ["application/problem+json"]


async def test_f5_what_the_application_sends_after_the_503_is_discarded(bench: Bench) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        bump(bench.sessions.of(scope))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in (b"1", b"2", b"3"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})

    bench.store.follow(lambda method: Fault.BEFORE)
    assert len(await bench.send(app)) == 2


async def test_f1_an_outage_is_told_to_the_handler_and_leaves_as_503(bench: Bench) -> None:
    token = await bench.begin()
    bench.store.follow(lambda method: Fault.BEFORE)
    sent = await bench.send(app_of(bench.sessions, bump), token)
    assert sent[0]["status"] == 503
    assert headers_of(sent[0], "set-cookie") == []


async def test_f1_a_request_that_does_not_use_the_session_is_served_during_an_outage(bench: Bench) -> None:
    async def health(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})

    token = await bench.begin()
    bench.store.follow(lambda method: Fault.BEFORE)
    sent = await bench.send(health, token)
    assert (sent[0]["status"], sent[0]["headers"]) == (204, [])


@pytest.mark.parametrize("place", ["of", "commit"])
async def test_f5_a_500_that_a_framework_made_of_an_outage_leaves_as_503(bench: Bench, place: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            session = bench.sessions.of(scope)
            bump(session)
            await bench.sessions.commit(session)
        except SessionUnavailableError:
            await send({"type": "http.response.start", "status": 500, "headers": []})
            await send({"type": "http.response.body", "body": b"Internal Server Error"})

    token = await bench.begin()
    failing = {"of": {"load", "replace"}, "commit": {"replace"}}[place]
    bench.store.follow(lambda method: Fault.BEFORE if method in failing else Fault.NONE)
    sent = await bench.send(app, token)
    assert sent[0]["status"] == 503
    assert headers_of(sent[0], "retry-after") == ["1"]


async def test_f5_a_500_of_the_application_s_own_stays_a_500(bench: Bench) -> None:
    sent = await bench.send(app_of(bench.sessions, bump, status=500), await bench.begin())
    assert sent[0]["status"] == 500


async def test_f5_a_handler_may_commit_and_the_middleware_only_adds_the_cookie(bench: Bench) -> None:
    changes = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        session = bench.sessions.of(scope)
        bump(session)
        changes.append(await bench.sessions.commit(session))
        bench.store.calls.clear()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    sent = await bench.send(app)
    assert changes[0].action is CookieAction.SET
    (line,) = headers_of(sent[0], "set-cookie")
    assert line.startswith(f"sojourn={changes[0].token};")
    assert bench.store.calls == []


@pytest.mark.parametrize("io", list(StoreIO))
async def test_f1_the_degraded_policy_serves_anonymously_and_refuses_writes(io: StoreIO) -> None:
    bench = Bench(io, on_unavailable="degraded")
    token = await bench.begin(principal="42")
    seen: list[object] = []

    def handler(session: Session[Visit]) -> None:
        seen.extend((session.principal, session.data.count, session.outcome.value))
        with pytest.raises(SessionReadOnlyError):
            session["late"] = 1

    bench.store.follow(lambda method: Fault.BEFORE)
    sent = await bench.send(app_of(bench.sessions, handler), token)
    assert seen == [None, 0, "unavailable"]
    assert (sent[0]["status"], headers_of(sent[0], "set-cookie")) == (200, [])
    assert (await bench.read(token)).principal == "42"


async def test_f2_a_change_in_place_during_an_outage_is_not_lost_silently() -> None:
    bench = Bench(on_unavailable="degraded")
    token = await bench.begin()
    bench.store.follow([Fault.BEFORE])
    sent = await bench.send(app_of(bench.sessions, bump), token)
    assert sent[0]["status"] == 503
    assert (await bench.read(token)).data.count == 1


@pytest.mark.parametrize("move", [lambda session: session.logout(), lambda session: session.destroy()])
async def test_f9_a_logout_that_fails_answers_503_and_keeps_the_cookie(bench: Bench, move: Any) -> None:
    token = await bench.begin(principal="42")
    bench.store.follow(lambda method: Fault.BEFORE if method == "delete" else Fault.NONE)
    sent = await bench.send(app_of(bench.sessions, move), token)
    assert (sent[0]["status"], headers_of(sent[0], "set-cookie")) == (503, [])
    assert b"logged out" in sent[1]["body"]
    assert (await bench.read(token)).principal == "42"


async def test_f15_a_value_that_cannot_be_stored_ends_in_500_before_the_head(bench: Bench) -> None:
    def handler(session: Session[Visit]) -> None:
        session.data.count = object()  # type: ignore[assignment]

    token = await bench.begin()
    sent = await bench.send(app_of(bench.sessions, handler), token)
    assert (sent[0]["status"], headers_of(sent[0], "set-cookie")) == (500, [])
    assert (await bench.read(token)).data.count == 1


async def test_f23_an_exception_passes_on_and_nothing_is_stored(bench: Bench) -> None:
    def handler(session: Session[Visit]) -> None:
        bump(session)
        raise ZeroDivisionError

    token = await bench.begin()
    with pytest.raises(ZeroDivisionError):
        await bench.send(app_of(bench.sessions, handler), token)
    assert (await bench.read(token)).data.count == 1


async def test_f23_a_logout_is_carried_out_although_an_exception_passes(bench: Bench) -> None:
    def handler(session: Session[Visit]) -> None:
        session.logout()
        raise ZeroDivisionError

    token = await bench.begin(principal="42")
    with pytest.raises(ZeroDivisionError):
        await bench.send(app_of(bench.sessions, handler), token)
    assert (await bench.read(token)).principal is None


async def test_f23_a_store_that_is_down_as_well_does_not_hide_the_application_s_exception(bench: Bench) -> None:
    def handler(session: Session[Visit]) -> None:
        session.logout()
        bench.store.follow(lambda method: Fault.BEFORE)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await bench.send(app_of(bench.sessions, handler), await bench.begin(principal="42"))


# -- after the head ----------------------------------------------------------------------------------------------


def streaming(
    sessions: SessionManager[Visit],
    late: Callable[[Session[Visit]], object],
    *,
    early: bool = True,
    status: int = 200,
) -> App:
    """Return an application that changes the session between head and end; *early*: it opened it before the head."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if early:
            assert sessions.of(scope)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"1", "more_body": True})
        late(sessions.of(scope))
        await send({"type": "http.response.body", "body": b"2"})

    return app


@pytest.mark.parametrize("early", [True, False])
async def test_f20_a_change_after_the_head_is_saved_when_the_token_stays(bench: Bench, early: bool) -> None:
    token = await bench.begin()
    sent = await bench.send(streaming(bench.sessions, bump, early=early), token)
    assert headers_of(sent[0], "set-cookie") == []
    assert (await bench.read(token)).data.count == 2


@pytest.mark.parametrize("use", [Session.touch, bump, lambda session: session.data, None])
async def test_r10_to_use_a_session_long_after_the_head_moves_its_deadline(bench: Bench, use: Any) -> None:
    token = await bench.begin()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        session = bench.sessions.of(scope)
        assert session.data.count == 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        bench.clock.advance(1800)
        if use is not None:
            use(session)
        await send({"type": "http.response.body", "body": b"1"})

    await bench.send(app, token)
    assert bench.store.calls == {bump: ["load", "replace"], None: ["load"]}.get(use, ["load", "touch"])
    bench.clock.advance(1801)
    assert ((await bench.read(token)).outcome is LoadOutcome.LOADED) is (use is not None)


async def test_r10_a_commit_in_the_midst_of_a_long_response_moves_the_deadline(bench: Bench) -> None:
    token = await bench.begin()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        session = bench.sessions.of(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        bench.clock.advance(1800)
        await bench.sessions.commit(session)
        assert bench.store.calls == ["load", "touch"]
        await send({"type": "http.response.body", "body": b"1"})

    await bench.send(app, token)
    assert bench.store.calls == ["load", "touch"]


@pytest.mark.parametrize("early", [True, False])
async def test_f20_a_new_session_after_the_head_raises(bench: Bench, early: bool) -> None:
    with pytest.raises(ResponseStartedError):
        await bench.send(streaming(bench.sessions, bump, early=early))
    assert "create" not in bench.store.calls


@pytest.mark.parametrize("move", [lambda session: session.login("42"), lambda session: session.rotate()])
async def test_f20_a_login_or_rotation_after_the_head_raises_at_once(bench: Bench, move: Any) -> None:
    token = await bench.begin()
    with pytest.raises(ResponseStartedError):
        await bench.send(streaming(bench.sessions, move), token)
    assert (await bench.read(token)).data.count == 1


async def test_f20_a_logout_after_the_head_ends_the_session(bench: Bench) -> None:
    token = await bench.begin(principal="42")
    await bench.send(streaming(bench.sessions, lambda session: session.logout()), token)
    assert (await bench.read(token)).principal is None


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize(("status", "count"), [(204, 2), (404, 2), (499, 2), (500, 1), (503, 1), (599, 1)])
async def test_f20_a_change_after_the_head_of_a_failed_response_alone_is_not_saved(
    bench: Bench, status: int, count: int, early: bool
) -> None:
    token = await bench.begin()
    await bench.send(streaming(bench.sessions, bump, early=early, status=status), token)
    assert (await bench.read(token)).data.count == count


async def test_f23_an_exception_after_the_head_stores_nothing_more(bench: Bench) -> None:
    def late(session: Session[Visit]) -> None:
        bump(session)
        raise ZeroDivisionError

    token = await bench.begin()
    with pytest.raises(ZeroDivisionError):
        await bench.send(streaming(bench.sessions, late), token)
    assert (await bench.read(token)).data.count == 1


async def test_f20_a_late_change_that_cannot_be_saved_is_logged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    token = await bench.begin()
    bench.store.follow(lambda method: Fault.BEFORE if method == "replace" else Fault.NONE)
    await bench.send(streaming(bench.sessions, bump), token)
    assert "could not be saved" in caplog.text


# -- clients that leave ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spares_tasks", [False, True])
async def test_f17_a_commit_is_finished_although_the_client_disconnects(spares_tasks: bool) -> None:
    bench = Bench()
    bench.sessions.engine.shield = in_steps if spares_tasks else in_a_task
    token = await bench.begin()
    inside, go_on = asyncio.Event(), asyncio.Event()
    replace = bench.store.inner.replace

    async def slow(*arguments: Any, **options: Any) -> Any:
        inside.set()
        await go_on.wait()
        return await replace(*arguments, **options)

    bench.store.replace = slow  # type: ignore[method-assign]
    request = asyncio.ensure_future(bench.send(app_of(bench.sessions, bump), token))
    await inside.wait()
    for _ in range(3):
        request.cancel()
        await asyncio.sleep(0)
        assert not request.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert (await bench.read(token)).data.count == 2


async def test_f17_what_completes_in_one_task_takes_results_failures_and_cancelled_futures_as_they_come() -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    steps: list[object] = []

    async def work() -> str:
        await asyncio.sleep(0)
        for outcome in ("result", ValueError("failed"), asyncio.CancelledError()):
            future: asyncio.Future[str] = loop.create_future()
            if isinstance(outcome, str):
                loop.call_soon(future.set_result, outcome)
            elif isinstance(outcome, ValueError):
                loop.call_soon(future.set_exception, outcome)
            else:
                loop.call_soon(future.cancel)
            try:
                steps.append(await future)
            except (ValueError, asyncio.CancelledError) as error:
                steps.append(type(error))
            assert asyncio.current_task() is task
        return "done"

    assert await in_steps(work()) == "done"
    assert steps == ["result", ValueError, asyncio.CancelledError]

    async def failing() -> None:
        await asyncio.sleep(0)
        raise KeyError("of the work")

    with pytest.raises(KeyError, match="of the work"):
        await in_steps(failing())


async def test_f17_a_request_cancelled_in_the_handler_stores_nothing_but_logs_out() -> None:
    bench = Bench()
    token = await bench.begin(principal="42")
    inside = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        bench.sessions.of(scope).logout()
        inside.set()
        await asyncio.Event().wait()

    request = asyncio.ensure_future(bench.send(app, token))
    await inside.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert (await bench.read(token)).principal is None


async def test_f5_an_outage_after_the_head_is_raised_as_it_is(bench: Bench) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise StoreUnavailableError("in the middle of the body")

    with pytest.raises(StoreUnavailableError):
        await bench.send(app)


# -- lifespan, other protocols -----------------------------------------------------------------------------------


async def test_shutting_down_closes_the_manager_and_other_messages_pass(bench: Bench) -> None:
    closed: list[str] = []

    async def aclose() -> None:
        closed.append("closed")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.complete"})
        assert closed == []
        await send({"type": "lifespan.shutdown.complete"})

    bench.store.aclose = aclose  # type: ignore[method-assign]
    sent = await bench.send(app, kind="lifespan")
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert closed == ["closed"]


async def test_an_unknown_protocol_passes_through(bench: Bench) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert "session" not in scope
        await send("passed")

    assert await bench.send(app, kind="telegraph") == ["passed"]
