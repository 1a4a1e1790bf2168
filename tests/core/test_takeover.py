"""Sessions of other libraries become ours: once, by one of several requests, and never more than they proved."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import cycle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import Converted, ForeignSession, LoadOutcome, Session, SessionManager, new_secret
from sojourn.crypto import token_id
from sojourn.errors import (
    ConfigurationError,
    FreshLoginRequiredError,
    SessionUnavailableError,
    StoreUnavailableError,
)
from sojourn.events import Event
from sojourn.manager.guarded_store import run_blocking
from sojourn.manager.takeover import LEADS_NOWHERE
from sojourn.stores import Record, StoreIO
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock
from sojourn.wsgi import SessionMiddleware
from sojourn_store_cookie import CookieStore
from tests.core.models import Visit, make_manager

TODAY = datetime.fromtimestamp(FakeClock().time(), UTC).date()


class Foreign:
    """A library whose cookie is ``signed.<number>``; it notes what it is asked."""

    name = "old"

    def __init__(self, io: StoreIO = StoreIO.NONE, *, cookie_name: str = "legacy") -> None:
        self.io = io
        self.cookie_name = cookie_name
        self.asked = 0
        self.ended: list[bytes] = []
        self.expires_at: float | None = None
        self.slides = False
        self.failure: Exception | None = None
        self.threads: set[int] = set()

    async def read(self, value: str) -> ForeignSession | None:
        self.asked += 1
        self.threads.add(threading.get_ident())
        if self.failure is not None:
            raise self.failure
        sign, _, number = value.partition(".")
        if sign != "signed":
            return None
        return ForeignSession(
            reader=self.name,
            identity=number.encode(),
            data={"user_id": number},
            expires_at=self.expires_at,
            slides=self.slides,
        )

    async def end(self, session: ForeignSession) -> None:
        self.ended.append(session.identity)

    async def aclose(self) -> None:
        pass


def convert(foreign: ForeignSession) -> Converted[Visit] | None:
    number = foreign.data["user_id"]
    return Converted(Visit(int(number)), number, {"cart": ["book"]}) if number != "0" else None


def manager_of(reader: Foreign, store: Any = None, **parts: Any) -> SessionManager[Any]:
    settings = {"readers_until": TODAY + timedelta(days=30), **parts.pop("settings", {})}
    return make_manager(store, settings=settings, readers=[reader], **{"convert": convert, **parts})


class Browser:
    """Keeps the cookies of one visitor, and sends them with every request to its manager."""

    def __init__(self, sessions: SessionManager[Any], foreign: str | None = "signed.7", name: str = "legacy") -> None:
        self.sessions = sessions
        self.cookies = {name: foreign} if foreign else {}

    def visit(
        self, handler: Callable[[Session[Any]], object] | None = lambda session: session.data, status: int = 200
    ) -> Any:
        """Make a request; *handler* None never asks for the session. Return the session as the handler left it."""
        request = self.sessions.blocking.begin(
            None, "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        )
        request.load()
        if handler is not None:
            handler(request.session)
        self.keep(request.finish(status).set_cookie)
        request.close()
        return None if handler is None else request.session

    def keep(self, line: str | None) -> None:
        if line is not None:
            name, _, value = line.partition(";")[0].partition("=")
            if "Max-Age=0" in line:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value

    def forget(self) -> None:
        """Drop our own cookie: the foreign one is shown again, or by somebody who copied it."""
        self.cookies.pop("sojourn", None)


def whose(session: Session[Any]) -> str | None:
    return session.principal


# -- what becomes of a foreign session -----------------------------------------------------------------------------


def test_a_foreign_session_becomes_ours_once() -> None:
    reader = Foreign()
    browser = Browser(manager_of(reader))
    first = browser.visit()
    assert (first.outcome, first.data.user_id, first["cart"]) == (LoadOutcome.LOADED, 7, ["book"])
    assert "sojourn" in browser.cookies
    again = browser.visit()
    assert (whose(again), again.id, reader.asked) == ("7", first.id, 1)
    browser.forget()
    assert whose(browser.visit()) is None
    assert "sojourn" not in browser.cookies


def test_r12_a_foreign_session_is_no_login_that_just_happened() -> None:
    session = Browser(manager_of(Foreign())).visit()
    assert session.authenticated_at is None
    with pytest.raises(FreshLoginRequiredError):
        session.require_fresh(1e9)


@given(left=st.floats(1, 1e6), slides=st.booleans())
def test_r10_our_session_ends_when_the_foreign_one_would_have(left: float, slides: bool) -> None:
    clock, reader = FakeClock(), Foreign()
    reader.expires_at, reader.slides = clock.time() + left, slides
    browser = Browser(manager_of(reader, clock=clock, settings={"idle_timeout": "12h"}))
    browser.visit()
    for _ in range(3):  # use does not move it
        clock.advance(min(left, 86_400) / 4)
        assert whose(browser.visit()) == "7"
    clock.advance(min(left, 86_400) / 4 + 1)
    assert (whose(browser.visit()) == "7") is (slides and left < 86_400)


def test_a_foreign_session_that_has_expired_is_refused_whatever_its_reader_says() -> None:
    clock, reader = FakeClock(), Foreign()
    reader.expires_at = clock.time()
    assert whose(Browser(manager_of(reader, clock=clock)).visit()) is None


def test_what_convert_does_not_want_is_left_as_it_is() -> None:
    reader = Foreign()
    browser = Browser(manager_of(reader), "signed.0")
    assert whose(browser.visit()) is None
    assert (list(browser.cookies), reader.ended) == (["legacy"], [])


@pytest.mark.parametrize(
    "made",
    [
        ValueError("no such user"),
        "7",
        Converted(Visit(), ""),
        Converted(Visit(), 7),  # type: ignore[arg-type]
        Converted({"no": "visit"}),
        Converted(Visit(), "7", {"when": date(2027, 1, 1)}),
    ],
    ids=["raises", "no Converted", "empty principal", "number", "another model", "extras that are no JSON"],
)
def test_what_convert_cannot_make_is_logged_and_claims_nothing(made: Any, caplog: pytest.LogCaptureFixture) -> None:
    works = False

    def mended(foreign: ForeignSession) -> Any:
        if works:
            return convert(foreign)
        if isinstance(made, Exception):
            raise made
        return made

    browser = Browser(manager_of(Foreign(), convert=mended))
    assert whose(browser.visit()) is None
    assert "was not taken over" in caplog.text
    works = True
    assert whose(browser.visit()) == "7"


def test_a_principal_with_all_its_sessions_is_not_given_one_more() -> None:
    sessions = manager_of(Foreign(), settings={"max_sessions": 1, "max_sessions_policy": "reject"})
    other = Browser(sessions, None)
    other.visit(lambda session: session.login("7"))
    browser = Browser(sessions)
    assert whose(browser.visit()) is None
    other.visit(lambda session: session.logout())
    assert whose(browser.visit()) == "7"


def test_each_take_over_is_an_event_and_a_figure_and_so_is_each_refusal() -> None:
    events: list[Event] = []
    counted: list[tuple[str, Any]] = []

    class Sink:
        def increment(self, name: str, value: int = 1, tags: Any = None) -> None:
            counted.append((name, tags and tags.get("reason")))

        def timing(self, *_: object) -> None: ...
        def gauge(self, *_: object) -> None: ...

    browser = Browser(manager_of(Foreign(), observers=[events.append], metrics=Sink()))
    session = browser.visit()
    (event,) = [event for event in events if event.name == "taken_over"]
    assert (event.id, event.reason, event.principal_hash is not None) == (session.id, "old", True)
    browser.forget()
    browser.visit()
    browser.cookies["legacy"] = "forged.7"
    browser.visit()
    assert [event.reason for event in events if event.name == "rejected"] == ["replayed", "foreign"]
    assert [one for one in counted if one[0] in {"session.taken_over", "session.rejected"}] == [
        ("session.taken_over", "old"),
        ("session.rejected", "replayed"),
        ("session.rejected", "foreign"),
    ]


# -- when a reader is asked ----------------------------------------------------------------------------------------


def test_no_reader_runs_where_our_own_token_leads_to_a_session_or_may() -> None:
    assert set(LoadOutcome) - LEADS_NOWHERE == {
        LoadOutcome.LOADED,
        LoadOutcome.EXPIRED,
        LoadOutcome.CORRUPT,
        LoadOutcome.BINDING,
        LoadOutcome.UNAVAILABLE,
        LoadOutcome.FUTURE,
    }
    clock, reader = FakeClock(), Foreign()
    store = MemoryStore(clock=clock)
    browser = Browser(manager_of(reader, store, clock=clock), None)
    browser.visit(lambda session: session.login("8"))
    browser.cookies["legacy"] = "signed.7"
    assert whose(browser.visit()) == "8"
    record = run_blocking(store.load(token_id(browser.cookies["sojourn"])))
    assert record is not None
    damaged = replace(record, payload=b"\x01\x00\x00?", version=record.version + 1)
    run_blocking(store.replace(damaged, expected=record.version, write_id=bytes(8)))
    assert browser.visit().outcome is LoadOutcome.CORRUPT
    assert reader.asked == 0


def test_r3_a_token_that_leads_nowhere_does_not_keep_the_foreign_session_out() -> None:
    browser = Browser(manager_of(Foreign()))
    browser.cookies["sojourn"] = unknown = "A" * 43
    assert whose(browser.visit()) == "7"
    assert browser.cookies["sojourn"] != unknown


def test_the_foreign_cookie_may_have_the_name_of_ours() -> None:
    reader = Foreign(cookie_name="sojourn")
    browser = Browser(manager_of(reader), name="sojourn")
    assert whose(browser.visit()) == "7"
    assert browser.cookies["sojourn"] != "signed.7"
    assert (whose(browser.visit()), reader.asked) == ("7", 1)


@pytest.mark.parametrize(
    ("cookies", "principal"),
    [
        ("legacy=signed.7; legacy=signed.8", None),
        ("legacy=signed.7; legacy=signed.7", "7"),
        ("legacy=forged.8; legacy=signed.7", "7"),
        ("legacy=a; legacy=b; legacy=signed.7", None),
        ("legacy=signed." + "7" * 9000, None),
        ("xlegacy=signed.7", None),
        ('legacy="signed.7"', "7"),
    ],
    ids=["two sessions", "one twice", "forged and real", "three", "too long", "another name", "quoted"],
)
def test_r22_of_several_foreign_cookies_only_a_single_session_counts(cookies: str, principal: str | None) -> None:
    request = manager_of(Foreign()).blocking.begin(None, cookies)
    assert request.session.principal == principal


def test_after_the_last_day_no_session_is_taken_over() -> None:
    clock, reader = FakeClock(), Foreign()
    browser = Browser(manager_of(reader, clock=clock, settings={"readers_until": TODAY}))
    clock.advance(86_400 - clock.time() % 86_400)
    assert whose(browser.visit()) is None
    assert reader.asked == 0


@pytest.mark.parametrize("slides", [False, True])
def test_a_last_day_that_is_moved_does_not_bring_back_what_was_taken_over(slides: bool) -> None:
    clock, reader = FakeClock(), Foreign()
    store = MemoryStore(clock=clock)
    reader.expires_at, reader.slides = clock.time() + 50 * 86_400, slides
    browser = Browser(manager_of(reader, store, clock=clock))
    assert whose(browser.visit()) == "7"
    clock.advance(40 * 86_400)
    later = manager_of(reader, store, clock=clock, settings={"readers_until": TODAY + timedelta(days=60)})
    assert whose(Browser(later).visit()) is None
    assert whose(Browser(later, "signed.8").visit()) == "8"


@pytest.mark.parametrize(
    ("settings", "parts", "message"),
    [
        ({"readers_until": None}, {}, "READERS_UNTIL is not set.*2027-04-15 at the latest"),
        ({"readers_until": TODAY + timedelta(days=91)}, {}, "at most 90 days ahead"),
        ({}, {"convert": None}, "nothing says what becomes of them: give the manager convert="),
        ({}, {"store": CookieStore()}, "set SOJOURN_REVOCATION_STORE"),
    ],
    ids=["no day", "too late a day", "no convert", "nowhere to note it"],
)
def test_readers_that_would_be_open_doors_are_refused_at_start_up(settings: Any, parts: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        manager_of(Foreign(), settings=settings, **parts)


def test_two_readers_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="two readers have the same name"):
        make_manager(readers=[Foreign(), Foreign()], convert=convert, settings={"readers_until": TODAY})


def test_a_day_that_is_over_turns_the_readers_off_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    sessions = manager_of(Foreign(), settings={"readers_until": TODAY - timedelta(days=1)})
    assert "take them out" in caplog.text
    assert sessions.engine.takeover is None
    assert make_manager(convert=convert).engine.takeover is None


# -- the response ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 404, 500, 503])
def test_the_cookie_leaves_with_every_response_also_if_nobody_asked_for_the_session(status: int) -> None:
    reader = Foreign()
    browser = Browser(manager_of(reader))
    browser.visit(None, status)
    assert reader.ended == [b"7"]
    assert whose(browser.visit()) == "7"


def test_a_request_that_ends_without_a_response_takes_nothing_over() -> None:
    reader = Foreign()
    sessions = manager_of(reader)
    request = sessions.blocking.begin(None, "legacy=signed.7")
    assert request.session.principal == "7"
    request.close(ZeroDivisionError())
    assert reader.ended == []
    assert sessions.blocking.count() == 0
    assert whose(Browser(sessions).visit()) == "7"


def test_a_logout_in_the_first_request_is_the_end_of_the_foreign_session() -> None:
    reader = Foreign()
    browser = Browser(manager_of(reader))
    browser.visit(lambda session: session.logout())
    assert reader.ended == [b"7"]
    assert whose(browser.visit()) is None


def test_after_the_response_has_started_nothing_is_taken_over() -> None:
    reader = Foreign()
    request = manager_of(reader).blocking.begin(None, "legacy=signed.7")
    request.finish(200)
    assert request.session.principal is None
    request.close()
    assert reader.asked == 0


def test_whoever_is_logged_out_is_not_logged_in_by_the_foreign_cookie_again() -> None:
    clock = FakeClock()
    browser = Browser(manager_of(Foreign(), clock=clock))
    browser.visit()
    browser.visit(lambda session: session.logout())
    for _ in range(29):
        assert whose(browser.visit()) is None
        clock.advance(86_400)


# -- outages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [StoreUnavailableError("down"), OSError("down")], ids=["outage", "anything"])
@pytest.mark.parametrize("policy", ["strict", "degraded"])
def test_r33_the_outage_of_a_reader_is_one_and_nobody_is_logged_out(failure: Exception, policy: str) -> None:
    reader = Foreign()
    browser = Browser(manager_of(reader, settings={"on_unavailable": policy}))
    reader.failure = failure
    if policy == "strict":
        with pytest.raises(SessionUnavailableError):
            browser.visit()
    else:
        session = browser.visit()
        assert (session.principal, session.outcome) == (None, LoadOutcome.UNAVAILABLE)
    reader.failure = None
    assert whose(browser.visit()) == "7"


class Failing(MemoryStore):
    """Fails the call of that number, and those after it until it is mended."""

    def __init__(self, clock: FakeClock, fails_at: int) -> None:
        super().__init__(clock=clock)
        self.calls, self.fails_at = 0, fails_at

    def __getattribute__(self, name: str) -> Any:
        if name in {"load", "create", "replace", "delete"}:
            self.calls += 1
            if self.calls > self.fails_at:
                raise StoreUnavailableError("down")
        return super().__getattribute__(name)


@pytest.mark.parametrize("fails_at", range(6))
def test_r33_an_outage_of_our_store_at_any_step_logs_nobody_out(fails_at: int) -> None:
    clock = FakeClock()
    store = Failing(clock, fails_at)
    browser = Browser(manager_of(Foreign(), store, clock=clock))
    try:
        browser.visit()
    except SessionUnavailableError:
        assert "sojourn" not in browser.cookies
    store.fails_at = 1_000
    assert whose(browser.visit()) == "7"


# -- several requests at once ------------------------------------------------------------------------------------------


class Pausing(MemoryStore):
    """A store that lets others go on before each of its calls, in the order that a test chooses."""

    io = StoreIO.ASYNC
    spares_tasks = True

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self.waiting: list[asyncio.Future[None]] = []

    async def pause(self) -> None:
        self.waiting.append(asyncio.get_running_loop().create_future())
        await self.waiting[-1]

    async def load(self, id: str) -> Record | None:
        await self.pause()
        return await super().load(id)

    async def create(self, record: Record, *, write_id: bytes) -> Any:
        await self.pause()
        return await super().create(record, write_id=write_id)

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Any:
        await self.pause()
        return await super().replace(record, expected=expected, write_id=write_id)

    async def delete(self, id: str, *, expected: int | None = None) -> Any:
        await self.pause()
        return await super().delete(id, expected=expected)

    async def drive(self, works: Sequence[Coroutine[Any, Any, None]], choose: Callable[[int], int]) -> None:
        """Run *works* at once; let go on whichever call is chosen, once all of them wait for one."""
        tasks = [asyncio.ensure_future(work) for work in works]
        while not all(task.done() for task in tasks):
            for _ in range(6):
                await asyncio.sleep(0)
            if self.waiting:
                self.waiting.pop(choose(len(self.waiting))).set_result(None)
        for task in tasks:
            task.result()


@given(
    order=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    fates=st.lists(st.sampled_from(["used", "unused", "raises", "writes"]), min_size=2, max_size=4),
)
def test_of_requests_at_once_one_takes_over_and_nobody_is_logged_out(order: list[int], fates: list[str]) -> None:
    clock = FakeClock()
    store, reader = Pausing(clock=clock), Foreign()
    sessions = manager_of(reader, store, clock=clock)
    browser = Browser(sessions)
    seen: list[tuple[str, str | None]] = []

    async def visit(fate: str) -> None:
        request = sessions.begin(None, "legacy=signed.7")
        await request.load()
        if fate != "unused":
            seen.append((request.session.id, request.session.principal))
        if fate == "writes" and request.session.principal is not None:
            request.session.data.note = "written"
        if fate == "raises":
            await request.close(ZeroDivisionError())
            return
        ending = await request.finish(200)
        assert ending.error is None
        browser.keep(ending.set_cookie)
        await request.close()

    chosen = cycle(order)
    asyncio.run(store.drive([visit(fate) for fate in fates], lambda count: next(chosen) % count))
    if "raises" not in fates:
        assert len({id_ for id_, principal in seen if principal == "7"}) <= 1
        assert "sojourn" in browser.cookies
    after: list[str | None] = []

    async def once_more() -> None:
        request = sessions.begin(None, "; ".join(f"{name}={value}" for name, value in browser.cookies.items()))
        await request.load()
        after.append(request.session.principal)
        await request.finish(200)
        after.append(str(len(await sessions.list("7"))))

    asyncio.run(store.drive([once_more()], lambda _: 0))
    assert after == ["7", "1"]


@pytest.mark.parametrize("in_cookies", [False, True])
def test_who_came_before_the_claim_is_in_its_session_however_fast_the_winner_answers(in_cookies: bool) -> None:
    store = Pausing(clock=FakeClock())
    parts = {"store": CookieStore(), "revocation_store": store} if in_cookies else {"store": store}
    sessions = manager_of(Foreign(), clock=FakeClock(), **parts)
    seen: list[tuple[str | None, str]] = []

    async def visit() -> None:
        request = sessions.begin(None, "legacy=signed.7")
        await request.load()
        seen.append((request.session.principal, request.session.id))
        await request.finish(200)
        await request.close()

    # Both have looked for the claim, then the first one goes on to its end.
    both_look = iter([0, 0, 0])
    asyncio.run(store.drive([visit(), visit()], lambda count: next(both_look, count - 1)))
    assert [principal for principal, _ in seen] == ["7", "7"]
    assert len(set(seen)) == 1
    asyncio.run(store.drive([visit()], lambda _: 0))
    assert seen[2][0] is None


def test_a_parallel_request_is_the_same_session_and_a_later_one_is_refused() -> None:
    sessions = manager_of(Foreign())
    first = sessions.blocking.begin(None, "legacy=signed.7")
    second = sessions.blocking.begin(None, "legacy=signed.7")
    assert first.session.id == second.session.id
    cookies = {first.finish(200).set_cookie, second.finish(200).set_cookie}
    assert len(cookies) == 1
    assert sessions.blocking.begin(None, "legacy=signed.7").session.principal is None


def test_a_request_that_never_ended_leaves_the_claim_open_for_the_grace_and_no_longer() -> None:
    clock = FakeClock()
    sessions = manager_of(Foreign(), clock=clock)
    assert sessions.blocking.begin(None, "legacy=signed.7").session.principal == "7"
    clock.advance(29)
    assert sessions.blocking.begin(None, "legacy=signed.7").session.principal == "7"
    clock.advance(2)
    assert sessions.blocking.begin(None, "legacy=signed.7").session.principal is None


def test_r8_a_session_that_ended_meanwhile_is_not_brought_back_by_an_open_claim() -> None:
    sessions = manager_of(Foreign())
    first = sessions.blocking.begin(None, "legacy=signed.7")
    sessions.blocking.revoke(first.session.id)
    assert sessions.blocking.begin(None, "legacy=signed.7").session.principal is None


def test_r2_nothing_in_the_store_is_a_token() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    sessions = manager_of(Foreign(), store, clock=clock)
    assert sessions.blocking.begin(None, "legacy=signed.7").session.principal == "7"  # the claim is open
    dump = "".join(blob.decode("latin-1") for blob in (*store._blobs, *store._blobs.values()))
    words = [dump[at : at + 43] for at in range(len(dump)) if dump[at : at + 43].isascii()]
    assert [word for word in words if sessions.blocking.open(word).principal is not None] == []


# -- how readers and stores wait ------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_reader_that_blocks_runs_in_a_thread_under_an_event_loop() -> None:
    reader = Foreign(StoreIO.BLOCKING)
    sessions = manager_of(reader)
    request = sessions.begin(None, "legacy=signed.7")
    await request.load()
    assert request.session.principal == "7"
    assert (await request.finish(200)).set_cookie
    assert threading.get_ident() not in reader.threads


def test_a_reader_that_suspends_needs_a_twin_without_an_event_loop() -> None:
    reader = Foreign(StoreIO.ASYNC)
    with pytest.raises(ConfigurationError, match="Foreign suspends and brings no blocking twin"):
        _ = manager_of(reader).blocking
    twin = Foreign(StoreIO.BLOCKING)
    reader.blocking_twin = lambda: twin  # type: ignore[attr-defined]
    assert whose(Browser(manager_of(reader)).visit()) == "7"
    assert (twin.asked, reader.asked) == (1, 0)


@pytest.mark.anyio
async def test_a_path_that_loads_nothing_says_so_only_where_there_is_a_cookie_to_read() -> None:
    sessions = manager_of(Foreign(StoreIO.BLOCKING))
    assert sessions.begin(None, "other=1").session.principal is None
    with pytest.raises(ConfigurationError, match="has not been opened"):
        _ = sessions.begin(None, "legacy=signed.7").session


def test_under_wsgi_the_session_is_taken_over_when_it_is_first_used() -> None:
    reader = Foreign()
    sessions = manager_of(reader)
    heads: list[Any] = []

    def app(environ: Any, start: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/used":
            assert sessions.of(environ).principal == "7"
        start("200 OK", [])
        return [b""]

    def start_response(
        status: str, headers: list[tuple[str, str]], exc_info: Any = None, /
    ) -> Callable[[bytes], object]:
        heads.append(dict(headers))
        return lambda chunk: None

    for path in ("/unused", "/used"):
        environ = {"PATH_INFO": path, "REQUEST_METHOD": "GET", "HTTP_COOKIE": "legacy=signed.7"}
        list(SessionMiddleware(app, sessions)(environ, start_response))
    assert [sorted(head) for head in heads] == [[], ["Cache-Control", "Set-Cookie", "Vary"]]


# -- sessions in the cookie -------------------------------------------------------------------------------------------------


def in_cookies(reader: Foreign, clock: FakeClock) -> SessionManager[Any]:
    return manager_of(reader, CookieStore(), clock=clock, revocation_store=MemoryStore(clock=clock))


def test_a_session_in_the_cookie_is_taken_over_once() -> None:
    clock, reader = FakeClock(), Foreign()
    browser = Browser(in_cookies(reader, clock))
    first = browser.visit()
    assert (first.principal, reader.ended) == ("7", [b"7"])
    assert (whose(browser.visit()), reader.asked) == ("7", 1)
    browser.forget()
    assert whose(browser.visit()) is None


def test_in_cookies_parallel_requests_are_one_session_and_its_end_ends_both() -> None:
    clock = FakeClock()
    sessions = in_cookies(Foreign(), clock)
    first = sessions.blocking.begin(None, "legacy=signed.7")
    second = sessions.blocking.begin(None, "legacy=signed.7")
    assert first.session.id == second.session.id
    one, other = Browser(sessions), Browser(sessions)
    one.keep(first.finish(200).set_cookie)
    other.keep(second.finish(200).set_cookie)
    one.visit(lambda session: session.logout())
    assert whose(other.visit()) is None


class Blind(MemoryStore):
    """Does not see what it is asked for once, as a request that was first by a moment."""

    is_blind = False

    async def load(self, id: str) -> Record | None:
        found = await super().load(id)
        seen, self.is_blind = (None if self.is_blind else found), False
        return seen


def test_in_cookies_who_comes_second_to_the_claim_is_in_the_first_ones_session() -> None:
    clock = FakeClock()
    index = Blind(clock=clock)
    sessions = manager_of(Foreign(), CookieStore(), clock=clock, revocation_store=index)
    first = sessions.blocking.begin(None, "legacy=signed.7").session
    index.is_blind = True
    second = sessions.blocking.begin(None, "legacy=signed.7").session
    assert (second.principal, second.id) == ("7", first.id)


@pytest.mark.parametrize("encrypt", [True, False])
def test_a_claim_under_a_key_that_this_node_does_not_have_is_a_claim(encrypt: bool) -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    first, second = (
        manager_of(Foreign(), store, clock=clock, settings={"secret": new_secret(), "encrypt": encrypt})
        for _ in range(2)
    )
    assert first.blocking.begin(None, "legacy=signed.7").session.principal == "7"
    assert second.blocking.begin(None, "legacy=signed.7").session.principal is None


def test_in_cookies_a_request_without_a_response_takes_nothing_over() -> None:
    sessions = in_cookies(Foreign(), FakeClock())
    request = sessions.blocking.begin(None, "legacy=signed.7")
    assert request.session.principal == "7"
    request.close(ZeroDivisionError())
    assert whose(Browser(sessions).visit()) == "7"


# -- WebSockets ----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize(("origin", "opens"), [("http://shop.example", True), ("http://evil.example", False)])
async def test_r36_a_handshake_with_a_foreign_cookie_is_checked_for_its_origin(origin: str, opens: bool) -> None:
    from sojourn.asgi import SessionMiddleware as AsgiMiddleware

    sessions = manager_of(Foreign())
    seen: list[str | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        seen.append(sessions.of(scope).principal)
        await send({"type": "websocket.accept"})

    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"shop.example"), (b"origin", origin.encode()), (b"cookie", b"legacy=signed.7")]
    await AsgiMiddleware(app, sessions)({"type": "websocket", "headers": headers, "path": "/"}, receive, send)
    assert seen == (["7"] if opens else [])
    assert sent[0]["type"] == ("websocket.accept" if opens else "websocket.close")
