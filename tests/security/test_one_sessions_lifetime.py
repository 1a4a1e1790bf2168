"""How long one session lives, and whether its cookie outlives the browser (SECURITY R11, R12, R21, R57)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sojourn.errors import (
    ConfigurationError,
    ResponseStartedError,
    SessionReadOnlyError,
    SessionStateError,
    SessionUnavailableError,
)
from sojourn.testing import Fault, FaultyStore
from tests.security.houses import House, begin, outcome

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
EVERY = settings(
    max_examples=min(settings().max_examples, 400), suppress_health_check=[HealthCheck.function_scoped_fixture]
)
OVER = {"expired", "unknown"}


def ends_in(house: House, session: Any) -> float:
    return float(session.expires_at.timestamp()) - house.clock.time()


def max_age(line: str | None) -> str | None:
    """Return Max-Age of a Set-Cookie line, None where it has none."""
    assert line is not None
    found = [one.partition("=")[2] for one in line.split("; ") if one.startswith("Max-Age=")]
    return found[0] if found else None


def answer(node: Any, token: str, use: Any) -> tuple[str | None, str]:
    """Serve one request; return its Set-Cookie and the token that the browser holds after it."""
    name = node.settings.cookie_name
    request = node.begin(None, f"{name}={token}")
    use(request.session)
    ending = request.finish(200)
    assert ending.error is None
    request.close()
    line = ending.set_cookie
    return line, token if line is None else line.removeprefix(f"{name}=").partition(";")[0]


@pytest.mark.parametrize("is_persistent", [False, True])
@pytest.mark.parametrize("is_ticked", [False, True])
def test_the_remember_me_box_decides_whether_the_cookie_outlives_the_browser(
    house: House, is_persistent: bool, is_ticked: bool
) -> None:
    node = house.node(cookie_persistent=is_persistent).blocking
    line, _ = answer(node, "", lambda session: session.login("42", remember=timedelta(days=14) if is_ticked else None))
    expected = str(14 * 86_400) if is_ticked else str(86_400) if is_persistent else None
    assert max_age(line) == expected


@pytest.mark.parametrize("is_persistent", [False, True])
def test_persistent_alone_decides_it_too_and_a_later_cookie_of_the_session_keeps_to_it(
    house: House, is_persistent: bool
) -> None:
    node = house.node(cookie_persistent=not is_persistent).blocking
    line, token = answer(node, "", lambda session: session.login("42", persistent=is_persistent))
    assert (max_age(line) is not None) == is_persistent
    house.clock.advance(10)
    line, token = answer(node, token, lambda session: session.rotate())
    assert max_age(line) == (str(86_390) if is_persistent else None)
    line, _ = answer(node, token, lambda session: session.login("42"))
    assert (max_age(line) is not None) != is_persistent, "a login without the argument goes by the settings again"


def test_remember_without_persistence_is_a_session_of_the_browser_that_lives_long_on_the_server(house: House) -> None:
    node = house.node().blocking
    line, token = answer(node, "", lambda session: session.login("42", remember=timedelta(days=14), persistent=False))
    assert max_age(line) is None
    house.clock.advance(13 * DAY)
    assert outcome(node, token) == "loaded"


def test_what_a_commit_returns_has_no_max_age_where_the_cookie_ends_with_the_browser(house: House) -> None:
    node = house.node(cookie_persistent=False).blocking
    session = node.open(None)
    session.login("42")
    assert node.commit(session).max_age is None


def test_what_the_adapter_says_of_one_response_wins(house: House) -> None:
    node = house.node(cookie_persistent=False).blocking
    for asked, expected in ((True, "86400"), (False, None), (None, None)):
        request = node.begin(None, "")
        request.session.login("42")
        assert max_age(request.finish(200, asked).set_cookie) == expected


@pytest.mark.parametrize("took", [0.001, 0.3, 0.999])
def test_r21_max_age_is_not_short_by_the_time_that_the_request_took(house: House, took: float) -> None:
    node = house.node().blocking
    session = node.open(None)
    session.data.note = "a note"
    house.clock.advance(took)
    assert node.commit(session).max_age == DAY
    house.clock.advance(1)
    session.rotate()
    assert node.commit(session).max_age == DAY - 1


# -- set_lifetime ------------------------------------------------------------------------------------------------


def test_r57_set_lifetime_shortens_at_once_and_use_does_not_move_that(house: House) -> None:
    node = house.node().blocking
    token = begin(node, principal="42")
    line, token = answer(node, token, lambda session: session.set_lifetime(timedelta(minutes=10)))
    assert max_age(line) == "600", "the cookie goes with it"
    for _ in range(9):
        house.clock.advance(MINUTE)
        line, token = answer(node, token, lambda session: session.touch())
        assert outcome(node, token) == "loaded"
        assert ends_in(house, node.open(token)) <= 10 * MINUTE
    house.clock.advance(MINUTE)
    assert outcome(node, token) in OVER


def test_r57_nothing_that_follows_lengthens_it_but_a_login(house: House) -> None:
    node = house.node().blocking
    token = begin(node, principal="42")
    _, token = answer(node, token, lambda session: session.set_lifetime(timedelta(minutes=10)))
    house.clock.advance(MINUTE)

    def change(session: Any) -> None:
        session.data.count += 1
        session.rotate()
        session.set_lifetime(None)

    _, token = answer(node, token, change)
    assert ends_in(house, node.open(token)) == 9 * MINUTE
    _, token = answer(node, token, lambda session: session.login("42"))
    assert ends_in(house, node.open(token)) == HOUR


@pytest.mark.parametrize("seconds", [DAY - 59, DAY, 14 * DAY])
def test_r57_without_a_login_nobody_lengthens_and_what_is_refused_changes_nothing(house: House, seconds: float) -> None:
    node = house.node().blocking
    token = begin(node, principal="42")
    house.clock.advance(MINUTE)
    session = node.open(token)
    with pytest.raises(SessionStateError, match=r"set_lifetime\(\) cannot lengthen .* a session that has 86340 left"):
        session.set_lifetime(timedelta(seconds=seconds))
    assert not session.changed
    assert node.commit(session).token is None


def test_r57_a_new_session_gets_no_longer_than_the_settings_say_without_a_login(house: House) -> None:
    node = house.node().blocking
    session = node.open(None)
    with pytest.raises(SessionStateError):
        session.set_lifetime(timedelta(days=2))
    session.set_lifetime(timedelta(hours=2))
    session.set_lifetime(timedelta(hours=3))  # in the same request the last one counts
    session.data.note = "a note"
    change = node.commit(session)
    assert change.max_age == 3 * HOUR
    assert ends_in(house, node.open(change.token)) == HOUR, "the idle timeout goes on beside it"


def test_r57_after_a_login_it_lengthens_within_the_bound_of_r11(house: House) -> None:
    node = house.node().blocking
    session = node.open(begin(node))
    session.login("42")
    with pytest.raises(ConfigurationError, match=r"set_lifetime\(\) must lie between 0 and "):
        session.set_lifetime(timedelta(days=5000))
    session.set_lifetime(timedelta(days=14), persistent=True)
    change = node.commit(session)
    assert change.max_age == 14 * DAY
    house.clock.advance(13 * DAY)
    session = node.open(change.token)
    assert session.principal == "42"
    with pytest.raises(SessionStateError):
        session.set_lifetime(timedelta(days=2))


def test_r57_a_login_counts_anew_whatever_was_set_before_it(house: House) -> None:
    node = house.node().blocking
    session = node.open(begin(node))
    session.set_lifetime(timedelta(minutes=5))
    session.login("42")
    assert node.commit(session).max_age == DAY


def test_r57_none_takes_a_remembered_session_back_to_the_settings(house: House) -> None:
    node = house.node().blocking
    _, token = answer(node, "", lambda session: session.login("42", remember=timedelta(days=14)))
    house.clock.advance(HOUR)
    line, token = answer(node, token, lambda session: session.set_lifetime(None, persistent=False))
    assert max_age(line) is None
    assert ends_in(house, node.open(token)) == HOUR
    _, token = answer(node, "", lambda session: session.login("42", remember=timedelta(days=14)))
    house.clock.advance(2 * DAY)
    session = node.open(token)
    with pytest.raises(SessionStateError, match="older than the settings allow"):
        session.set_lifetime(None)
    assert outcome(node, token) == "loaded"


def test_r57_persistence_alone_leaves_the_lifetime(house: House) -> None:
    node = house.node().blocking
    line, token = answer(node, "", lambda session: session.login("42", remember=timedelta(days=14)))
    house.clock.advance(2 * DAY)
    line, token = answer(node, token, lambda session: session.set_lifetime(persistent=False))
    assert line is not None
    assert max_age(line) is None
    assert ends_in(house, node.open(token)) > DAY
    line, token = answer(node, token, lambda session: session.set_lifetime(persistent=True))
    assert max_age(line) == str(12 * 86_400)
    line, _ = answer(node, token, lambda session: session.set_lifetime(persistent=True))
    assert line is None
    with pytest.raises(TypeError, match=r"takes a lifetime, persistent=..., or both"):
        node.open(token).set_lifetime()


def test_r57_setting_a_lifetime_alone_makes_no_session(house: House) -> None:
    node = house.node().blocking
    line, _ = answer(node, "", lambda session: session.set_lifetime(timedelta(minutes=5), persistent=False))
    assert line is None


def test_r57_a_conflict_keeps_the_shorter_of_two_lifetimes(server_house: House) -> None:
    node = server_house.node().blocking
    token = begin(node, principal="42")
    first, second = node.open(token), node.open(token)
    first.set_lifetime(timedelta(minutes=5))
    node.commit(first)
    second.set_lifetime(timedelta(minutes=20))
    second.data.count += 1
    node.commit(second)
    assert ends_in(server_house, node.open(token)) == 5 * MINUTE


def test_after_the_head_a_lifetime_still_shortens_but_the_cookie_can_no_longer_change(server_house: House) -> None:
    node = server_house.node().blocking
    token = begin(node, principal="42")
    request = node.begin(None, f"{node.settings.cookie_name}={token}")
    session = request.session
    request.finish(200)
    with pytest.raises(ResponseStartedError):
        session.set_lifetime(timedelta(minutes=5), persistent=True)
    session.set_lifetime(timedelta(minutes=5))
    request.close()
    assert ends_in(server_house, node.open(token)) == 5 * MINUTE


@pytest.mark.parametrize("wrong", [600, "10m", True])
def test_r51_a_lifetime_and_persistence_are_of_their_types(house: House, wrong: Any) -> None:
    session = house.node().blocking.open(None)
    with pytest.raises(TypeError, match=r"^set_lifetime\(\) takes a timedelta"):
        session.set_lifetime(wrong)
    if wrong is not True:
        with pytest.raises(TypeError, match=r"^login\(persistent=...\) takes True, False or None"):
            session.login("42", persistent=wrong)
        with pytest.raises(TypeError, match=r"^set_lifetime\(persistent=...\) takes"):
            session.set_lifetime(None, persistent=wrong)


MOVES = st.one_of(
    st.tuples(st.just("wait"), st.floats(1, 2 * HOUR)),
    st.tuples(st.just("set"), st.floats(1, 3 * DAY)),
    st.tuples(st.sampled_from(("none", "write", "touch", "rotate", "merge")), st.just(0.0)),
)


@EVERY
@given(moves=st.lists(MOVES, max_size=12))
def test_r57_no_moves_without_a_login_end_a_session_later_than_before(
    house: House, moves: list[tuple[str, float]]
) -> None:
    node = house.node().blocking
    token = begin(node, principal="42")
    end = node.open(token).decisions.absolute_deadline
    for move, amount in moves:
        if move == "wait":
            house.clock.advance(amount)
        session = node.open(token)
        if session.outcome.value != "loaded":
            assert end is not None
            return
        asked = None
        match move:
            case "set":
                try:
                    session.set_lifetime(timedelta(seconds=amount))
                    asked = house.clock.time() + amount
                except SessionStateError:
                    pass
            case "none":
                session.set_lifetime(None)
            case "write":
                session.data.count += 1
            case "touch":
                session.touch()
            case "rotate":
                session.rotate()
            case "merge":
                other = node.open(token)
                other.data.count += 1
                session.data.note = "another note"
                if not house.is_client_side:
                    node.commit(other)
            case _:
                pass
        token = node.commit(session).token or token
        present = session.decisions.absolute_deadline
        assert present is not None
        assert end is not None
        assert present <= end
        assert asked is None or present.timestamp() == pytest.approx(asked, abs=0.01)
        end = present


# -- what the session says of itself -----------------------------------------------------------------------------


def test_last_seen_is_the_use_before_this_request(house: House) -> None:
    node = house.node().blocking
    begun = house.clock.time()
    token = begin(node, principal="42")
    house.clock.advance(20 * MINUTE)
    session = node.open(token)
    assert session.last_seen == datetime.fromtimestamp(begun, UTC)
    token = node.commit(session).token or token
    house.clock.advance(MINUTE)
    assert node.open(token).last_seen == datetime.fromtimestamp(begun + 20 * MINUTE, UTC)
    new = node.open(None)
    assert new.last_seen == new.created_at


def test_last_seen_of_a_remembered_session_is_its_login(house: House) -> None:
    """Use moves no deadline of it, so no write is spent on saying when it was used (docs/api.md)."""
    node = house.node().blocking
    begun = house.clock.time()
    _, token = answer(node, "", lambda session: session.login("42", remember=timedelta(days=14)))
    for _ in range(2):
        house.clock.advance(20 * MINUTE)
        session = node.open(token)
        assert session.last_seen == datetime.fromtimestamp(begun, UTC)
        token = node.commit(session).token or token


@pytest.mark.parametrize(
    "change",
    [
        lambda session: session.data.cart.append("a book"),
        lambda session: session.update({"key": "a value"}),
        lambda session: session.flash.update({"notice": "a message"}),
        lambda session: session.csrf_token(),
        lambda session: session.login("42"),
        lambda session: session.rotate(),
        lambda session: session.logout(),
        lambda session: session.destroy(),
        lambda session: session.set_lifetime(timedelta(minutes=5)),
        lambda session: session.data.tags.add(object()),
    ],
)
def test_changed_tells_of_every_change_of_this_request_and_of_nothing_else(house: House, change: Any) -> None:
    node = house.node().blocking
    session = node.open(begin(node, principal="42"))
    assert not session.changed
    assert session.data.note == "a note"
    session.touch()
    assert not session.changed
    change(session)
    assert session.changed


def test_changed_stays_true_when_the_change_is_stored(house: House) -> None:
    node = house.node().blocking
    session = node.open(None)
    assert not session.changed
    session.data.note = "a note"
    assert session.changed
    node.commit(session)
    assert session.changed


# -- reload ------------------------------------------------------------------------------------------------------


def test_reload_reads_what_others_stored_and_drops_what_this_request_did_not(server_house: House) -> None:
    node = server_house.node().blocking
    token = begin(node, principal="42")
    session, other = node.open(token), node.open(token)
    other.data.count += 1
    other["key"] = "theirs"
    node.commit(other)
    session.data.note, session["key"] = "never stored", "ours"
    assert node.reload(session)
    assert (session.data.count, session.data.note, session["key"]) == (1, "a note", "theirs")
    session.data.note = "stored"
    node.commit(session)
    assert node.open(token).data.note == "stored"


def test_reload_is_awaited_under_an_event_loop() -> None:
    house = House("memory", None)
    token = begin(house.node().blocking, principal="42")

    async def scenario() -> None:
        manager = house.node()
        session = await manager.open(token)
        session.data.note = "dropped"
        assert await session.reload()
        assert session.data.note == "a note"
        assert await manager.reload(session)

    asyncio.run(scenario())


def test_reload_of_a_session_that_somebody_ended_says_so_and_refuses_writes(server_house: House) -> None:
    node = server_house.node().blocking
    session = node.open(begin(node, principal="42"))
    node.revoke_all("42")
    assert not node.reload(session)
    assert (session.principal, session.data.note) == (None, "")
    with pytest.raises(SessionStateError):
        session["key"] = "a value"
    assert not node.reload(session)


def test_reload_sees_the_end_of_a_session_in_a_cookie(cookie_house: House) -> None:
    node = cookie_house.node(parts={"revocation_store": cookie_house.memory}).blocking
    session = node.open(begin(node, principal="42"))
    assert node.reload(session)
    node.revoke(session.id)
    assert not node.reload(session)
    assert session.principal is None


@pytest.mark.parametrize("move", ["login", "rotate", "logout"])
def test_reload_undoes_no_move_that_waits_for_its_commit(house: House, move: str) -> None:
    node = house.node().blocking
    session = node.open(begin(node, principal="42"))
    getattr(session, move)(*(["42"] if move == "login" else []))
    with pytest.raises(SessionStateError, match="commit first"):
        node.reload(session)
    assert session.changed


def test_an_outage_at_reload_is_raised_and_changes_nothing(server_house: House) -> None:
    store = FaultyStore(server_house.store())
    node = server_house.node(store=store).blocking
    session = node.open(begin(node, principal="42"))
    session.data.note = "not yet stored"
    store.follow(lambda _: Fault.BEFORE)
    with pytest.raises(SessionUnavailableError):
        node.reload(session)
    assert session.data.note == "not yet stored"
    store.follow(lambda _: Fault.NONE)
    assert node.reload(session)
    assert session.data.note == "a note"


def test_reload_goes_on_after_the_outage_of_its_request(server_house: House) -> None:
    store = FaultyStore(server_house.store())
    node = server_house.node(store=store).blocking
    token = begin(node, principal="42")
    store.follow(lambda _: Fault.BEFORE)
    session = node.open(token)
    with pytest.raises(SessionReadOnlyError):
        session["key"] = "a value"
    store.follow(lambda _: Fault.NONE)
    assert node.reload(session)
    assert session.principal == "42"
    session["key"] = "a value"
    node.commit(session)
    assert dict(node.open(token)) == {"key": "a value"}


def test_reload_of_a_new_session_forgets_what_it_holds(house: House) -> None:
    node = house.node().blocking
    session = node.open(None)
    session.data.note = "a note"
    assert not node.reload(session)
    assert session.data.note == ""
    assert node.commit(session).token is None


def test_reload_follows_a_renewal_and_hands_out_its_token(server_house: House) -> None:
    node = server_house.node(renew_after="10m", renew_grace="30s").blocking
    token = begin(node, principal="42")
    session = node.open(token)
    server_house.clock.advance(601)
    other = node.open(token)
    assert other.data.note == "a note"
    fresh = node.commit(other).token
    assert fresh not in {None, token}
    assert node.reload(session)
    assert node.commit(session).token == fresh
