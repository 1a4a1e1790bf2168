"""Whoever is logged in by a real instance of another library stays so through the switch, and once."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sojourn import Converted, ForeignSession, Reader, SessionManager
from sojourn.settings import SessionSettings
from sojourn.stores.memory import MemoryStore
from tests.contrib_migrate.libraries import IN_COOKIES, LIBRARIES
from tests.core.models import Visit
from tests.servers import RedisServer

pytestmark = pytest.mark.filterwarnings("ignore::aiohttp.web_exceptions.NotAppKeyWarning")  # aiohttp-session's
UNTIL = datetime.fromtimestamp(time.time(), UTC).date() + timedelta(days=30)


def convert(foreign: ForeignSession) -> Converted[Visit] | None:
    user_id = foreign.data.get("user_id")
    return None if user_id is None else Converted(Visit(user_id), str(user_id))


def make(reader: Reader) -> SessionManager[Any]:
    settings = SessionSettings(_env_file=None, preset="testing", readers_until=UNTIL)
    return SessionManager(Visit, MemoryStore(), settings=settings, readers=[reader], convert=convert)


async def visit(sessions: SessionManager[Any], cookies: dict[str, str]) -> tuple[str | None, dict[str, str]]:
    """Make a request of the new application; return who it is, and the cookies that the browser has afterwards."""
    request = sessions.begin(None, "; ".join(f"{name}={value}" for name, value in cookies.items()))
    await request.load()
    principal = request.session.principal
    ending = await request.finish(200)
    assert ending.error is None
    await request.close()
    if ending.set_cookie is None:
        return principal, cookies
    name, _, value = ending.set_cookie.partition(";")[0].partition("=")
    return principal, {**cookies, name: value}


@pytest.mark.anyio
@pytest.mark.parametrize("name", sorted(LIBRARIES))
@pytest.mark.parametrize("end", [False, True], ids=["kept", "ended"])
async def test_a_logged_in_user_stays_so_through_the_switch_and_back_again_refuses(
    name: str, end: bool, redis_server: RedisServer
) -> None:
    async with LIBRARIES[name](redis_server.url) as (site, reader):
        assert await site.get("/whoami") == "None"
        await site.get("/login")
        assert await site.get("/whoami") == "7"
        theirs = site.cookies
        sessions = make(reader(end))
        principal, both = await visit(sessions, theirs)
        assert principal == "7"
        assert both.keys() - theirs.keys() == {"sojourn"}
        assert await visit(sessions, both) == ("7", both)
        # The copy of a cookie is worth nothing any more, and no more is it after a logout.
        assert await visit(sessions, theirs) == (None, theirs)
        # The way back to the former application is open until its record is ended.
        goes_on = name in IN_COOKIES or not end
        assert await site.get("/whoami") == ("7" if goes_on else "None")


@pytest.mark.anyio
@pytest.mark.parametrize("name", sorted(LIBRARIES))
async def test_a_cookie_that_was_cut_changed_or_made_up_is_anonymous(name: str, redis_server: RedisServer) -> None:
    async with LIBRARIES[name](redis_server.url) as (site, reader):
        await site.get("/login")
        ((key, value),) = site.cookies.items()
        sessions = make(reader(False))
        made_up = [value[:-8], value[8:], value[: len(value) // 2], "null", "x", "None", "a" * 43, "\x00", "é" * 20]
        for forged in [*made_up, value[:4] + ("A" if value[4] != "A" else "B") + value[5:]]:
            assert await visit(sessions, {key: forged}) == (None, {key: forged})
        assert (await visit(sessions, {key: value}))[0] == "7"
