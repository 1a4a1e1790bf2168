"""The adapter of docs/write-an-adapter.md, as it stands there: its scenarios are those of any adapter."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from sojourn import MemoryStore, SessionManager
from sojourn.adapters import AsyncRequestSession, Ending
from sojourn.errors import SessionUnavailableError, StoreUnavailableError
from tests.core.models import Visit, make_manager
from tests.docs.pages import blocks, page, rows, run, section

PAGE = page("docs/write-an-adapter.md")


@pytest.fixture
def framework(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    code = next(block for block in blocks(PAGE) if "class Sessions" in block)
    return vars(run(monkeypatch, "adapter", code))


def test_every_name_that_the_page_shows_is_there() -> None:
    of_requests, of_endings = (
        [name for cells in rows(section(PAGE, heading)) for name in re.findall(r"`(\w+)", cells[0])]
        for heading in ("A request, step by step", "What the response has to say")
    )
    assert of_requests.pop(0) == "begin"
    assert [name for name in of_requests if not hasattr(AsyncRequestSession, name)] == []
    assert [name for name in of_endings if not hasattr(Ending, name)] == []


class Failing(MemoryStore):
    is_down = False

    async def load(self, id: str) -> Any:
        if self.is_down:
            raise StoreUnavailableError("down")
        return await super().load(id)

    async def replace(self, record: Any, *, expected: int, write_id: bytes) -> Any:
        if self.is_down:
            raise StoreUnavailableError("down")
        return await super().replace(record, expected=expected, write_id=write_id)


class Site:
    """The framework, with one handler, over a store that can be taken down."""

    def __init__(self, framework: dict[str, Any]) -> None:
        self.store = Failing()
        self.sessions: SessionManager[Visit] = make_manager(self.store)
        self.request_class, self.response_class = framework["Request"], framework["Response"]
        self.app = framework["Sessions"](self.handle, self.sessions)
        self.cookie = ""

    async def handle(self, request: Any) -> Any:
        if request.path == "/quiet":
            return self.response_class()
        session = self.sessions.of(request.state)
        match request.path:
            case "/count":
                session.data.count += 1
            case "/login":
                session.login("42")
            case "/logout":
                session.logout()
            case "/fail":
                session.data.count = 99
                raise ZeroDivisionError
            case "/down":
                session.data.count += 1
                self.store.is_down = True
            case _:
                pass
        return self.response_class(body=f"{session.principal} {session.data.count}")

    def get(self, path: str) -> Any:
        headers = {"cookie": self.cookie} if self.cookie else {}
        response = asyncio.run(self.app(self.request_class(path, headers)))
        for name, value in response.headers:
            if name == "Set-Cookie":
                self.cookie = value.partition(";")[0]
        return response


@pytest.fixture
def site(framework: dict[str, Any]) -> Site:
    return Site(framework)


def names_of(response: Any) -> list[str]:
    return sorted(name for name, _ in response.headers)


def test_a_request_that_does_not_use_its_session_gets_no_header(site: Site) -> None:
    assert site.get("/quiet").headers == []


def test_a_session_begins_with_a_cookie_and_is_read_without_one(site: Site) -> None:
    assert names_of(site.get("/count")) == ["Cache-Control", "Set-Cookie", "Vary"]
    read = site.get("/")
    assert (read.body, names_of(read)) == ("None 1", ["Vary"])


def test_a_login_rotates_and_a_logout_ends_the_session(site: Site) -> None:
    site.get("/count")
    before = site.cookie
    site.get("/login")
    after = site.cookie
    assert after != before
    assert site.get("/").body == "42 1"
    site.get("/logout")
    site.cookie = after
    assert site.get("/").body == "None 0"


def test_a_handler_that_raises_stores_nothing_and_raises(site: Site) -> None:
    site.get("/count")
    with pytest.raises(ZeroDivisionError):
        site.get("/fail")
    assert site.get("/").body == "None 1"


@pytest.mark.parametrize("path", ["/down", "/"])
def test_an_outage_is_answered_with_503_and_leaves_the_cookie_alone(site: Site, path: str) -> None:
    site.get("/count")
    site.store.is_down = path == "/"
    response = site.get(path)
    assert response.status == 503
    assert "Set-Cookie" not in names_of(response)
    site.store.is_down = False
    assert site.get("/").body == "None 1"


def test_an_outage_is_an_error_that_a_handler_may_catch(site: Site) -> None:
    site.get("/count")
    site.store.is_down = True

    async def scenario() -> None:
        request = site.sessions.begin(None, site.cookie)
        await request.load()
        with pytest.raises(SessionUnavailableError):
            _ = request.session
        ending = await request.finish(500)
        assert ending.error is not None
        answer = ending.answer("application/json")
        assert answer is not None
        assert answer.status == 503
        assert (await request.finish(503)).error is None, "the answer itself passes the layers outside"
        caught = site.sessions.begin(None, site.cookie)
        await caught.load()
        with pytest.raises(SessionUnavailableError):
            _ = caught.session
        ending = await caught.finish(200)
        assert (ending.error, ending.set_cookie) == (None, None)

    asyncio.run(scenario())


def test_two_layers_of_one_request_are_one_session_and_one_commit(site: Site) -> None:
    async def scenario() -> None:
        where: dict[str, Any] = {}
        outer = site.sessions.begin(where, "")
        inner = site.sessions.begin(where, "ignored=1")
        assert inner is outer
        inner.session.data.count = 7
        first = await inner.finish(200)
        assert first.set_cookie is not None
        assert (await outer.finish(200)) is first
        await inner.close()
        await outer.close()
        assert site.sessions.begin(where, "") is not outer, "that request is over"

    asyncio.run(scenario())


def test_layers_with_and_without_an_event_loop_share_the_session(site: Site) -> None:
    async def scenario() -> None:
        where: dict[str, Any] = {}
        outer = site.sessions.begin(where, "")
        inner = site.sessions.blocking.begin(where, "")
        inner.session.data.count = 3
        ending = inner.finish(200)
        assert ending.set_cookie is not None
        assert await outer.finish(200) is ending
        inner.close()
        await outer.close()

    asyncio.run(scenario())


def test_the_suite_of_the_page_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As pytest would collect it."""
    code = next(block for block in blocks(PAGE) if "AdapterSuite" in block)
    suite = run(monkeypatch, "suite", code).TestOurAdapter()
    scenarios = [name for name in dir(suite) if name.startswith("test_")]
    assert len(scenarios) > 20
    for name in scenarios:
        getattr(suite, name)()
