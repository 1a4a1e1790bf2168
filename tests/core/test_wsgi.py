"""The session middleware for WSGI, call by call; every application and the middleware itself obey PEP 3333."""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest

from sojourn import LoadOutcome, MemoryStore, Session, SessionManager, StoreIO
from sojourn.errors import ConfigurationError, ResponseStartedError, SessionUnavailableError, StoreUnavailableError
from sojourn.testing import FakeClock, Fault, FaultyStore
from sojourn.wsgi import SessionMiddleware
from tests.core.models import Visit, make_manager

TEXT = [("Content-Type", "text/plain")]


class Sent:
    """What a server was given."""

    def __init__(self) -> None:
        self.starts: list[tuple[str, list[tuple[str, str]], Any]] = []
        self.written: list[bytes] = []
        self.body: list[bytes] = []

    @property
    def status(self) -> int:
        return int(self.starts[-1][0][:3])

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.starts[-1][1] if key.lower() == name]


class Bench:
    """A manager over a store that can fail, and a server."""

    def __init__(self, io: StoreIO = StoreIO.BLOCKING, **settings: Any) -> None:
        self.clock = FakeClock()
        self.store = FaultyStore(MemoryStore(clock=self.clock))
        self.store.io = io
        self.sessions: SessionManager[Visit] = make_manager(self.store, clock=self.clock, settings=settings)

    def begin(self, *, principal: str | None = None) -> str:
        session = self.sessions.blocking.open(None)
        session.data.count = 1
        if principal is not None:
            session.login(principal)
        token = self.sessions.blocking.commit(session).token
        assert token is not None
        self.store.calls.clear()
        return token

    def read(self, token: str) -> Session[Visit]:
        self.store.follow(())
        return self.sessions.blocking.open(token)

    def send(self, app: Any, token: str | None = None, *, take: int | None = None, **environ: Any) -> Sent:
        """Serve one request; *take* chunks of the body, then leave, as a client that disconnects."""
        options = {name: environ.pop(name) for name in ("load", "exclude") if name in environ}
        sent = Sent()

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], Any]:
            assert not sent.starts or exc_info is not None
            sent.starts.append((status, list(headers), exc_info))
            return sent.written.append

        middleware = SessionMiddleware(validator(app), self.sessions, **options)
        body = validator(middleware)(make_environ(token, **environ), start_response)
        try:
            for number, chunk in enumerate(body, 1):
                sent.body.append(chunk)
                if number == take:
                    break
        finally:
            body.close()  # type: ignore[attr-defined]
        return sent


def make_environ(token: str | None = None, **more: Any) -> dict[str, Any]:
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if token is not None:
        environ["HTTP_COOKIE"] = f"sojourn={token}"
    return environ | more


def bump(session: Session[Visit]) -> None:
    session.data.count += 1


def fails() -> None:
    raise ZeroDivisionError


def app_of(sessions: SessionManager[Visit], handler: Callable[[Session[Visit]], object], status: str = "200 OK") -> Any:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        handler(sessions.of(environ))
        start_response(status, list(TEXT))
        return [b"the application's"]

    return app


@pytest.fixture(params=[StoreIO.NONE, StoreIO.BLOCKING])
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(request.param)


def test_r17_nothing_is_opened_before_it_is_asked_for(bench: Bench) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", list(TEXT))
        return [b""]

    sent = bench.send(app, bench.begin())
    assert bench.store.calls == []
    assert sent.starts == [("200 OK", TEXT, None)]


def test_a_read_opens_once_and_varies(bench: Bench) -> None:
    sent = bench.send(app_of(bench.sessions, lambda session: session.data), bench.begin())
    assert bench.store.calls == ["load"]
    assert (sent.all("vary"), sent.all("set-cookie")) == (["Cookie"], [])


def test_the_first_write_sets_a_cookie_that_leads_to_the_session(bench: Bench) -> None:
    (line,) = bench.send(app_of(bench.sessions, bump)).all("set-cookie")
    assert bench.read(line.partition(";")[0].removeprefix("sojourn=")).data.count == 1


def test_lazy_mode_opens_nothing_until_it_is_asked_to(bench: Bench) -> None:
    token = bench.begin()
    with pytest.raises(ConfigurationError, match="get"):
        bench.send(app_of(bench.sessions, bump), token, load="lazy")
    assert bench.store.calls == []
    seen: list[int] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        seen.append(bench.sessions.blocking.get(environ).data.count)
        assert bench.sessions.of(environ) is bench.sessions.blocking.of(environ)
        start_response("200 OK", list(TEXT))
        return [b""]

    bench.send(app, token, load="lazy")
    assert seen == [1]


def test_an_unknown_load_mode_is_refused(bench: Bench) -> None:
    with pytest.raises(ConfigurationError, match="auto"):
        SessionMiddleware(app_of(bench.sessions, bump), bench.sessions, load="eager")  # type: ignore[arg-type]


def test_a_store_that_suspends_and_has_no_twin_is_refused_at_start_up() -> None:
    bench = Bench(StoreIO.ASYNC)
    with pytest.raises(ConfigurationError, match="twin"):
        SessionMiddleware(app_of(bench.sessions, bump), bench.sessions)


def test_the_environ_holds_the_mapping_for_libraries(bench: Bench) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ["sojourn.session"]["kept"] = [1]
        start_response("200 OK", list(TEXT))
        return [b""]

    token = bench.begin()
    bench.send(app, token)
    assert dict(bench.read(token)) == {"kept": [1]}


# -- failures ----------------------------------------------------------------------------------------------------


def test_f5_a_failed_commit_answers_503_itself_and_start_response_does_not_raise(bench: Bench) -> None:
    token = bench.begin()
    bench.store.follow(lambda method: Fault.BEFORE if method == "replace" else Fault.NONE)
    sent = bench.send(app_of(bench.sessions, bump), token)
    assert len(sent.starts) == 1
    assert (sent.status, sent.all("retry-after"), sent.all("set-cookie")) == (503, ["1"], [])
    assert b"application" not in b"".join(sent.body)
    assert sent.all("content-length") == [str(len(b"".join(sent.body)))]
    assert bench.read(token).data.count == 1


def test_f5_what_the_application_writes_and_yields_after_the_503_is_discarded(bench: Bench) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        bump(bench.sessions.of(environ))
        write = start_response("200 OK", list(TEXT))
        write(b"written")
        return [b"1", b"2"]

    bench.store.follow(lambda method: Fault.BEFORE)
    sent = bench.send(app)
    assert (sent.status, sent.written) == (503, [])
    assert len(sent.body) == 1


def test_f5_an_empty_body_is_replaced_as_well(bench: Bench) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        bump(bench.sessions.of(environ))
        start_response("302 Found", [*TEXT, ("Location", "/")])
        return []

    bench.store.follow(lambda method: Fault.BEFORE)
    sent = bench.send(app)
    assert (sent.status, sent.all("location"), len(sent.body)) == (503, [], 1)


@pytest.mark.parametrize("is_generator", [False, True])
def test_f1_an_outage_raised_by_the_handler_leaves_as_503(bench: Bench, is_generator: bool) -> None:
    def plain(environ: Any, start_response: Any) -> Iterable[bytes]:
        bench.sessions.of(environ)
        start_response("200 OK", list(TEXT))
        return [b"x"]

    def generator(environ: Any, start_response: Any) -> Iterator[bytes]:
        yield from plain(environ, start_response)

    token = bench.begin()
    bench.store.follow(lambda method: Fault.BEFORE)
    middleware = SessionMiddleware(generator if is_generator else plain, bench.sessions)
    sent = Sent()
    body = middleware(make_environ(token), lambda *start: sent.starts.append((*start, None)) or sent.written.append)  # type: ignore[func-returns-value]
    assert b"".join(body)
    assert (sent.status, sent.all("set-cookie")) == (503, [])


def test_f5_a_500_that_a_framework_made_of_an_outage_leaves_as_503(bench: Bench) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        try:
            bench.sessions.of(environ)
        except SessionUnavailableError:
            start_response("500 Internal Server Error", list(TEXT), sys.exc_info())
        return [b"Internal Server Error"]

    token = bench.begin()
    bench.store.follow(lambda method: Fault.BEFORE)
    sent = bench.send(app, token)
    assert (sent.status, sent.all("retry-after")) == (503, ["1"])


def starts_twice(bench: Bench, *, has_left: bool) -> Any:
    """Return an application that answers 500 in the place of its first head, which *has_left* or was held back."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        session = bench.sessions.of(environ)
        bump(session)
        write = start_response("200 OK", list(TEXT))
        if has_left:
            write(b"begun")
        try:
            session.data.count += 100
            fails()
        except ZeroDivisionError:
            start_response("500 Internal Server Error", list(TEXT), sys.exc_info())
        return [b"sorry"]

    return app


def test_f23_a_second_start_response_never_commits_twice(bench: Bench) -> None:
    token = bench.begin()
    sent = bench.send(starts_twice(bench, has_left=True), token)
    assert [start[0] for start in sent.starts] == ["200 OK", "500 Internal Server Error"]
    assert bench.store.calls.count("replace") == 1
    assert bench.read(token).data.count == 2


def test_f23_a_second_start_response_repeats_the_cookie(bench: Bench) -> None:
    """The server forgets the first head when it is given a second one: the session that was stored keeps its cookie."""
    sent = bench.send(starts_twice(bench, has_left=True))
    assert bench.store.calls == ["create"]
    assert len(sent.all("set-cookie")) == 1


def test_f23_a_head_that_is_replaced_before_it_left_commits_nothing(bench: Bench) -> None:
    token = bench.begin()
    sent = bench.send(starts_twice(bench, has_left=False), token)
    assert [start[0] for start in sent.starts] == ["500 Internal Server Error"]
    assert "replace" not in bench.store.calls
    assert bench.read(token).data.count == 1


@pytest.mark.parametrize("is_generator", [False, True])
def test_f23_an_exception_passes_on_and_only_a_logout_is_carried_out(bench: Bench, is_generator: bool) -> None:
    def plain(environ: Any, start_response: Any) -> Iterable[bytes]:
        bump(bench.sessions.of(environ))
        if environ["PATH_INFO"] == "/logout":
            bench.sessions.of(environ).logout()
        raise ZeroDivisionError

    def generator(environ: Any, start_response: Any) -> Iterator[bytes]:
        yield from plain(environ, start_response)

    token = bench.begin(principal="42")
    app = generator if is_generator else plain
    with pytest.raises(ZeroDivisionError):
        bench.send(app, token)
    assert bench.read(token).data.count == 1
    with pytest.raises(ZeroDivisionError):
        bench.send(app, token, PATH_INFO="/logout")
    assert bench.read(token).outcome is LoadOutcome.UNKNOWN


def test_r6_what_a_request_meets_shows_no_token(bench: Bench) -> None:
    token = bench.begin()
    seen: list[str] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        seen.append(repr((start_response, environ["sojourn.requests"], environ["sojourn.session"])))
        assert bench.sessions.of(environ).data.count == 1
        seen.append(repr((start_response, environ["sojourn.requests"], environ["sojourn.session"])))
        start_response("200 OK", list(TEXT))
        return [b""]

    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_COOKIE": f"sojourn={token}"}
    list(SessionMiddleware(app, bench.sessions)(environ, lambda *_: lambda _: None))
    assert len(seen) == 2
    assert all("RequestSession" in text and token not in text for text in seen)


# -- after the head ----------------------------------------------------------------------------------------------


def streaming(
    sessions: SessionManager[Visit],
    late: Callable[[Session[Visit]], object],
    *,
    early: bool = True,
    status: str = "200 OK",
) -> Any:
    """Return an application that changes the session while its body is sent; *early*: it opened it before."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        if early:
            assert sessions.of(environ)
        start_response(status, list(TEXT))

        def body() -> Iterator[bytes]:
            yield b"1"
            late(sessions.of(environ))
            yield b"2"

        return body()

    return app


@pytest.mark.parametrize("early", [True, False])
def test_f20_a_change_after_the_head_is_saved_when_the_token_stays(bench: Bench, early: bool) -> None:
    token = bench.begin()
    sent = bench.send(streaming(bench.sessions, bump, early=early), token)
    assert (sent.body, sent.all("set-cookie")) == ([b"1", b"2"], [])
    assert bench.read(token).data.count == 2


@pytest.mark.parametrize("early", [True, False])
def test_f20_a_new_session_after_the_head_raises(bench: Bench, early: bool) -> None:
    with pytest.raises(ResponseStartedError):
        bench.send(streaming(bench.sessions, bump, early=early))
    assert "create" not in bench.store.calls


def test_f20_a_login_after_the_head_raises(bench: Bench) -> None:
    token = bench.begin()
    with pytest.raises(ResponseStartedError):
        bench.send(streaming(bench.sessions, lambda session: session.login("42")), token)
    assert bench.read(token).principal is None


def test_f20_a_logout_after_the_head_ends_the_session(bench: Bench) -> None:
    token = bench.begin(principal="42")
    bench.send(streaming(bench.sessions, lambda session: session.logout()), token)
    assert bench.read(token).principal is None


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize(
    ("status", "count"),
    [("404 Not Found", 2), ("499 Odd", 2), ("500 Failed", 1), ("599 Odd", 1)],
)
def test_f20_a_change_after_the_head_of_a_failed_response_alone_is_not_saved(
    bench: Bench, status: str, count: int, early: bool
) -> None:
    token = bench.begin()
    bench.send(streaming(bench.sessions, bump, early=early, status=status), token)
    assert bench.read(token).data.count == count


def test_f23_an_exception_after_the_head_stores_nothing_more_but_a_logout(bench: Bench) -> None:
    def late(session: Session[Visit]) -> None:
        bump(session)
        raise ZeroDivisionError

    def leave(session: Session[Visit]) -> None:
        session.logout()
        raise ZeroDivisionError

    token = bench.begin(principal="42")
    with pytest.raises(ZeroDivisionError):
        bench.send(streaming(bench.sessions, late), token)
    assert bench.read(token).data.count == 1
    with pytest.raises(ZeroDivisionError):
        bench.send(streaming(bench.sessions, leave), token)
    assert bench.read(token).principal is None


def test_f17_a_client_that_leaves_does_not_keep_the_body_from_being_closed_and_saved(bench: Bench) -> None:
    closed: list[bool] = []

    class Body:
        def __init__(self, session: Session[Visit]) -> None:
            self.session = session

        def __iter__(self) -> Iterator[bytes]:
            yield b"1"
            bump(self.session)
            yield b"2"
            self.session.data.count += 100

        def close(self) -> None:
            closed.append(True)

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        session = bench.sessions.of(environ)
        start_response("200 OK", list(TEXT))
        return Body(session)

    token = bench.begin()
    assert bench.send(app, token, take=2).body == [b"1", b"2"]
    assert closed == [True]
    assert bench.read(token).data.count == 2


def read_without_closing(bench: Bench, app: Any, token: str | None, chunks: int | None = None) -> Iterable[bytes]:
    """Read the body, or its first *chunks*, as test clients do that never close one."""
    body = SessionMiddleware(app, bench.sessions)(make_environ(token), lambda *_: lambda _: None)
    for _ in itertools.islice(body, chunks):
        pass
    return body


def test_f20_a_body_that_is_read_to_its_end_is_saved_although_nobody_closes_it(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    token = bench.begin()
    body = read_without_closing(bench, streaming(bench.sessions, bump), token)
    assert bench.read(token).data.count == 2
    del body
    assert caplog.messages == []


def test_f20_a_body_that_is_dropped_half_read_says_what_is_lost(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    token = bench.begin()
    read_without_closing(bench, streaming(bench.sessions, bump), token, 2)
    assert bench.read(token).data.count == 1
    assert [text for text in caplog.messages if "nor closed" in text] == [
        "the response to '/' was neither read to its end nor closed, so what its session changed meanwhile was not stored: "
        "call response.close()"
    ]


def test_f20_what_fails_after_the_last_chunk_does_not_cut_the_body_off(bench: Bench) -> None:
    body = read_without_closing(bench, streaming(bench.sessions, bump), None)
    with pytest.raises(ResponseStartedError):
        body.close()  # type: ignore[attr-defined]
    body.close()  # type: ignore[attr-defined]


def test_f5_an_outage_in_the_middle_of_the_body_is_raised_as_it_is(bench: Bench) -> None:
    def late(session: Session[Visit]) -> None:
        raise StoreUnavailableError("in the middle of the body")

    with pytest.raises(StoreUnavailableError):
        bench.send(streaming(bench.sessions, late), bench.begin())


def test_an_application_that_starts_its_response_with_the_first_chunk_is_served(bench: Bench) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        bump(bench.sessions.of(environ))
        start_response("200 OK", list(TEXT))
        yield b"1"
        yield b"2"

    sent = Sent()
    middleware = SessionMiddleware(app, bench.sessions)
    body = middleware(make_environ(), lambda *start: sent.starts.append((*start, None)) or sent.written.append)  # type: ignore[func-returns-value]
    assert b"".join(body) == b"12"
    assert len(sent.all("set-cookie")) == 1


def test_r23_headers_of_the_application_are_not_changed_in_place(bench: Bench) -> None:
    headers = [*TEXT, ("Cache-Control", "public")]

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        bump(bench.sessions.of(environ))
        start_response("200 OK", headers)
        return [b""]

    sent = bench.send(app)
    assert headers == [*TEXT, ("Cache-Control", "public")]
    assert sent.all("cache-control") != ["public"]


def test_a_broken_status_counts_as_an_error(bench: Bench) -> None:
    token = bench.begin()
    middleware = SessionMiddleware(app_of(bench.sessions, bump, status="oops"), bench.sessions)
    list(middleware(make_environ(token), lambda *_: lambda _chunk: None))
    assert bench.read(token).data.count == 1
