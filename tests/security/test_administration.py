"""Sessions by their public ids: looking, changing, pages, and what events tell (SECURITY R14, R50, R54)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sojourn import MemoryStore, Page, Session, asgi, wsgi
from sojourn.binding import Client, Peer
from sojourn.errors import ConfigurationError, SessionGoneError, SessionStateError, SessionUnavailableError
from sojourn.testing import Fault, FaultyStore, client
from tests.security.houses import House, begin

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
HOUR = 3600.0


def read(node: Any, id: str) -> Session[Any]:
    """Return a session that is there."""
    found: Session[Any] | None = node.read(id)
    assert found is not None
    return found


def id_of(node: Any, token: str | None) -> str:
    return str(node.open(token).id)


# -- read and edit -------------------------------------------------------------------------------------------------


def test_r54_somebody_elses_id_counts_as_absent(server_house: House) -> None:
    node = server_house.node().blocking
    mine, theirs, nobodys = begin(node, principal="42"), begin(node, principal="7"), begin(node)
    assert read(node, id_of(node, mine)).principal == "42"
    assert node.read(id_of(node, mine), principal="42") is not None
    for other in (theirs, nobodys):
        there = id_of(node, other)
        assert node.read(there, principal="42") is None
        assert not node.revoke(there, principal="42")
        with pytest.raises(SessionGoneError, match="no session of that principal"), node.edit(there, principal="42"):
            raise AssertionError
        assert node.open(other).outcome.value == "loaded"
        assert node.read(there) is not None
    assert node.revoke(id_of(node, theirs), principal="7")
    assert node.open(theirs).outcome.value == "unknown"


@pytest.mark.parametrize("wrong", ["", 42, b"42"])
def test_r54_an_id_or_a_principal_that_is_none_is_refused_and_not_taken_for_everybody(
    server_house: House, wrong: Any
) -> None:
    node = server_house.node().blocking
    there = id_of(node, begin(node, principal="42"))
    for call in (
        lambda: node.read(there, principal=wrong),
        lambda: node.revoke(there, principal=wrong),
        lambda: node.read(wrong),
    ):
        with pytest.raises(TypeError):
            call()
    assert node.read(there) is not None


def test_what_is_read_shows_the_session_and_changes_nothing(server_house: House) -> None:
    node = server_house.node().blocking
    token = begin(node, principal="42")
    server_house.clock.advance(HOUR / 2)
    there = id_of(node, token)
    session = read(node, there)
    assert (session.id, session.principal, session.data.note) == (there, "42", "a note")
    assert (session.last_seen, session.state.value) == (session.created_at, "loaded")
    with pytest.raises(SessionStateError, match=r"sessions\.edit\(id\)"):
        session["key"] = "a value"
    session.data.note = "in place"
    with pytest.raises(SessionStateError, match="not committed"):
        node.commit(session)
    assert node.open(token).data.note == "a note"
    assert node.reload(session)
    assert session.data.note == "a note"


def test_an_id_follows_its_session_through_rotations_and_not_past_a_login(server_house: House) -> None:
    node = server_house.node().blocking
    token = begin(node, principal="42")
    there = id_of(node, token)
    session = node.open(token)
    session.rotate()
    moved = node.commit(session).token
    assert moved not in {None, token}
    assert read(node, there).id == session.id != there
    session.login("42")
    node.commit(session)
    assert node.read(there) is None


def test_what_is_over_or_damaged_is_absent(server_house: House) -> None:
    node = server_house.node().blocking
    there = id_of(node, begin(node, principal="42"))
    server_house.write_raw(there, b"damage")
    assert node.read(there) is None
    assert node.read("A" * 43) is None
    there = id_of(node, begin(node))
    server_house.clock.advance(2 * HOUR)
    assert node.read(there) is None


def test_r54_an_edit_merges_and_moves_neither_deadlines_nor_last_seen_nor_binding(server_house: House) -> None:
    node = server_house.node(binding="reject").blocking
    owner = Client("192.0.2.1", FIREFOX)
    session = node.open(None, owner)
    session.login("42")
    session.data.note = "a note"
    token = node.commit(session).token
    server_house.clock.advance(600)
    server_house.observer.events.clear()
    with node.edit(session.id, principal="42") as edited:
        rival = node.open(token, owner)
        rival.data.count += 1
        rival["theirs"] = 1
        edited.data.note = "by support"
        edited["ours"] = 1
        edited.flash["notice"] = "your address was corrected"
        moved = node.commit(rival)
        before = read(node, session.id).decisions
        seen = read(node, session.id).last_seen
    assert moved.token is None
    after = read(node, session.id)
    assert (after.decisions.idle_deadline, after.decisions.absolute_deadline) == (
        before.idle_deadline,
        before.absolute_deadline,
    )
    assert after.last_seen == seen
    opened = node.open(token, owner)
    assert (opened.data.note, opened.data.count, dict(opened)) == ("by support", 1, {"theirs": 1, "ours": 1})
    assert opened.flash["notice"] == "your address was corrected"
    assert node.open(token, Client("198.51.100.7", FIREFOX)).outcome.value == "binding", "still bound to its owner"
    (event,) = [one for one in server_house.observer.events if one.name == "edited"]
    assert (event.id, event.reason, event.client) == (session.id, "administration", "Firefox on Linux")
    assert event.principal_hash == node.principal_hash("42")


@pytest.mark.parametrize(
    "move",
    [
        lambda session: session.login("7"),
        lambda session: session.logout(),
        lambda session: session.rotate(),
        lambda session: session.destroy(),
        lambda session: session.clear(),
        lambda session: session.csrf_token(),
        lambda session: session.touch(),
        lambda session: session.set_lifetime(timedelta(minutes=1)),
    ],
)
def test_r54_what_is_the_owners_is_refused_in_an_edit(server_house: House, move: Any) -> None:
    node = server_house.node().blocking
    token = begin(node, principal="42")
    session = node.open(token)
    session.csrf_token()
    node.commit(session)
    with node.edit(session.id) as edited:
        edited.data.note = "edited"
        with pytest.raises(SessionStateError, match="edit|owner"):
            move(edited)
    opened = node.open(token)
    assert (opened.principal, opened.data.note) == ("42", "edited")
    assert node.commit(opened).token is None


def test_r54_an_edit_that_raises_saves_nothing_and_one_without_a_change_writes_nothing(server_house: House) -> None:
    store = FaultyStore(server_house.store())
    node = server_house.node(store=store).blocking
    token = begin(node, principal="42")
    there = id_of(node, token)
    with pytest.raises(KeyError), node.edit(there) as session:
        session.data.note = "half done"
        raise KeyError
    store.calls.clear()
    with node.edit(there) as session:
        assert session.data.note == "a note"
    assert store.calls == ["load"]


def test_r54_an_edit_of_a_session_that_ends_meanwhile_brings_nothing_back(server_house: House) -> None:
    node = server_house.node().blocking
    token = begin(node, principal="42")
    with pytest.raises(SessionGoneError, match="ended while"), node.edit(id_of(node, token)) as session:
        session.data.note = "too late"
        node.revoke_all("42")
    assert node.open(token).outcome.value == "unknown"


@pytest.mark.parametrize("how", ["rotate", "renew"])
def test_r54_an_edit_follows_a_session_that_moves_meanwhile(server_house: House, how: str) -> None:
    node = server_house.node(renew_after="10m").blocking
    token = begin(node, principal="42")
    server_house.clock.advance(601 if how == "renew" else 60)
    with node.edit(token_id(node, token)) as edited:
        edited.data.note = "by support"
        session = node.open(token)
        session.data.count += 1
        if how == "rotate":
            session.rotate()
        moved = node.commit(session).token
    opened = node.open(moved)
    assert (opened.data.note, opened.data.count) == ("by support", 1)


def token_id(node: Any, token: str) -> str:
    """Return the id of a token without using its session."""
    from sojourn.crypto import token_id as of

    return of(token)


def test_r54_sessions_in_cookies_cannot_be_read_or_edited(cookie_house: House) -> None:
    node = cookie_house.node().blocking
    there = id_of(node, begin(node, principal="42"))
    for call in (
        lambda: node.read(there),
        lambda: node.edit(there).__enter__(),
        lambda: node.revoke(there, principal="42"),
    ):
        with pytest.raises(ConfigurationError, match="cookies"):
            call()


def test_r54_an_outage_is_raised_and_never_taken_for_an_absent_session(server_house: House) -> None:
    store = FaultyStore(server_house.store())
    node = server_house.node(store=store).blocking
    there = id_of(node, begin(node, principal="42"))
    store.follow(lambda _: Fault.BEFORE)
    with pytest.raises(SessionUnavailableError):
        node.read(there)


def test_read_and_edit_are_awaited_under_an_event_loop() -> None:
    house = House("memory", None)
    manager = house.node()
    token = begin(manager.blocking, principal="42")
    there = id_of(manager.blocking, token)

    async def scenario() -> None:
        async with manager.edit(there, principal="42") as session:
            session.data.note = "edited"
        found = await manager.read(there)
        assert found is not None
        assert found.data.note == "edited"
        assert not await manager.revoke(there, principal="7")
        assert await manager.revoke(there, principal="42")

    asyncio.run(scenario())


def test_sessions_that_a_walk_hands_out_are_for_reading(server_house: House) -> None:
    node = server_house.node().blocking
    begin(node, principal="42")
    (session,) = node.find_by(lambda one: True)
    with pytest.raises(SessionStateError):
        session.logout()
    with pytest.raises(SessionStateError):
        node.commit(session)


# -- lists ---------------------------------------------------------------------------------------------------------


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(0, 7), limit=st.integers(1, 4), gone=st.integers(0, 6))
def test_r14_pages_hold_every_session_once_whatever_ends_between_them(
    server_house: House, number: int, limit: int, gone: int
) -> None:
    node = server_house.node().blocking
    node.clear()
    tokens = [begin(node, principal="42") for _ in range(number)]
    begin(node, principal="7")
    page = node.list("42", limit=limit)
    found = list(page.items)
    assert isinstance(page, Page)
    ended = id_of(node, tokens[gone]) if gone < number else None
    if ended is not None:
        node.revoke(ended)
    while page.after is not None:
        page = node.list("42", limit=limit, after=page.after)
        assert len(page.items) <= limit
        found += page.items
    ids = [one.id for one in found]
    assert ids == sorted(set(ids))
    assert {one.id for one in node.list("42")} <= set(ids) <= {one.id for one in node.list("42")} | {ended}


def test_r14_a_list_is_loaded_in_batches_that_each_have_a_deadline(server_house: House) -> None:
    store = FaultyStore(server_house.store())
    node = server_house.node(store=store).blocking
    for _ in range(130):
        begin(node, principal="42")
    deadlines: list[object] = []
    load = store.load

    async def noted(id: str, **options: Any) -> Any:
        from sojourn.stores import CURRENT_DEADLINE

        deadlines.append(CURRENT_DEADLINE.get())
        return await load(id, **options)

    store.load = noted  # type: ignore[method-assign]
    assert len(node.list("42")) == 130
    assert len({id(one) for one in deadlines if one is not None}) == (0 if server_house.kind == "memory" else 3)


@pytest.mark.parametrize("limit", [0, -1, "10", 2.5])
def test_r51_a_limit_is_a_number_of_sessions(server_house: House, limit: Any) -> None:
    node = server_house.node().blocking
    with pytest.raises(ValueError, match=r"^list\(limit=...\)"):
        node.list("42", limit=limit)


def test_r14_a_session_that_the_index_names_wrongly_is_shown_to_nobody_else() -> None:
    class Mistaken(MemoryStore):
        """Names the sessions of everybody, as an index does that somebody wrote into."""

        async def ids_of(self, label: str) -> list[str]:
            return [id async for id in self.scan()]

    house = House("memory", None)
    node = house.node(store=Mistaken(clock=house.clock)).blocking
    mine, _ = (id_of(node, begin(node, principal=principal)) for principal in ("42", "7"))
    begin(node)
    for shown in (node.list("42"), node.list("42", limit=9).items):
        assert [info.id for info in shown] == [mine]


# -- who is logged in ----------------------------------------------------------------------------------------------


def second_factor(session: Session[Any]) -> bool:
    return session.principal is not None and session.data.count >= 2


def test_the_middlewares_ask_the_application_who_is_logged_in() -> None:
    house = House("memory", None)
    manager = house.node(parts={"is_authenticated": second_factor})

    async def page(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def plain_page(environ: Any, start_response: Any) -> list[bytes]:
        start_response("204 No Content", [])
        return []

    for app in (
        asgi.SessionMiddleware(asgi.AuthenticationMiddleware(page, manager), manager),
        wsgi.SessionMiddleware(wsgi.AuthenticationMiddleware(plain_page, manager), manager),
    ):
        with client(app, manager) as browser:
            for count, status in ((1, 401), (2, 204)):
                with browser.session() as session:
                    if session.principal is None:
                        session.login("42")
                    session.data.count = count
                    assert manager.is_authenticated(session) == (status == 204)
                    assert manager.blocking.is_authenticated(session) == (status == 204)
                assert browser.post("/").status == status


def test_events_name_the_client_and_a_known_principal(server_house: House) -> None:
    node = server_house.node().blocking
    session = node.open(None, Client("192.0.2.1", FIREFOX))
    session.login("user:42")
    token = node.commit(session).token
    node.open(token)
    for name in ("started", "loaded"):
        (event,) = [one for one in server_house.observer.events if one.name == name]
        assert (event.client, event.principal_hash) == ("Firefox on Linux", node.principal_hash("user:42"))
    assert node.principal_hash("user:42") != node.principal_hash("7")
    assert "user:42" not in node.principal_hash("user:42")


def test_every_event_of_a_session_names_its_client_and_its_principal(server_house: House) -> None:
    firefox = Client("192.0.2.1", FIREFOX)
    node = server_house.node(binding="reject", binding_user_agent=True).blocking

    def begin_session() -> str:
        session = node.open(None, firefox)
        session.login("user:42")
        return node.commit(session).token or ""

    node.open(begin_session(), Client("192.0.2.1", "curl/8.0"))  # rejected

    name, token = node.settings.cookie_name, begin_session()
    request = node.begin(None, f"{name}={token}", lambda: Peer("192.0.2.1", FIREFOX))
    request.session.rotate()
    token = str(request.finish(200).set_cookie).removeprefix(f"{name}=").partition(";")[0]
    request.close()

    rivals = [node.open(token, firefox) for _ in range(3)]
    for session in rivals[:2]:
        session.data.count += 1
        node.commit(session)
    ending = node.open(token, firefox)
    ending.logout()
    node.commit(ending)
    rivals[2].data.count += 1
    node.commit(rivals[2])

    told = {event.name: (event.client, event.principal_hash) for event in server_house.observer.events}
    names = {"started", "loaded", "rejected", "regenerated", "client", "conflict", "deleted", "gone"}
    assert told == dict.fromkeys(names, ("Firefox on Linux", node.principal_hash("user:42")))
