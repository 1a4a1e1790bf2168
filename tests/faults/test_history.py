"""Histories of many clients, judged; and each violation that a history once showed, as the smallest test that shows it."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import asdict

from sojourn import Event, LoadOutcome, SessionManager
from sojourn.crypto import token_id
from sojourn.errors import SessionUnavailableError, StoreTimeoutError
from sojourn.settings import SessionSettings
from sojourn.stores import Record, Replaced, StoreIO
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock
from tests.core.models import Visit
from verification.faults import prove as prove_faults
from verification.faults import prove_sentinel
from verification.history.checker import Checker
from verification.history.faults import Done
from verification.history.model import View, digest_of, name_of
from verification.history.outages import judge_recoveries, judge_times, recoveries, split_losses
from verification.history.plan import Sizes, steps
from verification.history.recorder import CONFLICT, LOST, UNAVAILABLE, UNKNOWN, Row
from verification.history.reports import Report, Reports, judge_back, load, sessions_back
from verification.history.switches import Whole, joined
from verification.history.verdict import Violation
from verification.races import prove as prove_races
from verification.soak import MOST_NEW, Reading, judge_readings
from verification.soak import prove as prove_soak


class OvertakenStore(MemoryStore):
    """Something happens between the answer of the index and what the caller does with it."""

    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def ids_of(self, label: str) -> Sequence[str]:
        ids = await super().ids_of(label)
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        return ids


@pytest.mark.anyio
@pytest.mark.parametrize("renews", [False, True])
async def test_revoking_all_ends_a_session_that_is_moved_to_another_token_meanwhile(renews: bool) -> None:
    clock = FakeClock()
    store = OvertakenStore(clock=clock)
    settings = SessionSettings(_env_file=None, preset="testing", renew_after=60 if renews else None)
    sessions: SessionManager[Visit] = SessionManager(Visit, store, settings=settings, clock=clock)
    session = await sessions.open(None)
    session.login("42")
    old = (await sessions.commit(session)).token
    clock.advance(61)
    moved: list[str] = []

    async def move() -> None:
        in_flight = await sessions.open(old)
        in_flight.data.count += 1
        if not renews:
            in_flight.rotate()
        moved.append((await sessions.commit(in_flight)).token or "")

    store.meanwhile = move
    await sessions.revoke_all("42")
    assert moved[0] not in ("", old)
    for token in (old, moved[0]):
        assert (await sessions.open(token)).outcome is LoadOutcome.UNKNOWN
    assert not await sessions.list("42")


@pytest.mark.anyio
async def test_revoking_all_but_one_asks_until_nothing_new_is_found() -> None:
    store = OvertakenStore()
    sessions: SessionManager[Visit] = SessionManager(
        Visit, store, settings=SessionSettings(_env_file=None, preset="testing")
    )
    tokens: list[str] = []
    for _ in range(3):
        session = await sessions.open(None)
        session.login("42")
        tokens.append((await sessions.commit(session)).token or "")
    kept = await sessions.open(tokens[0])
    assert await sessions.revoke_all("42", except_id=kept.id) == 2
    assert [info.id for info in await sessions.list("42")] == [kept.id]


class LosingStore(MemoryStore):
    """The first replace fails, its reply lost or itself; then something happens, until it is tried again."""

    io = StoreIO.BLOCKING
    applies = True
    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is None:
            return await super().replace(record, expected=expected, write_id=write_id)
        if self.applies:
            await super().replace(record, expected=expected, write_id=write_id)
        await meanwhile()
        raise StoreTimeoutError("the reply was lost")


@pytest.mark.anyio
@pytest.mark.parametrize("applies", [True, False])
@pytest.mark.parametrize("others", [0, 1, 3, 4, 5, 9])
async def test_f6_a_write_whose_reply_was_lost_is_never_applied_twice(applies: bool, others: int) -> None:
    store = LosingStore()
    settings = SessionSettings(_env_file=None, preset="testing", retry_attempts=2)
    sessions: SessionManager[Visit] = SessionManager(Visit, store, settings=settings)
    session = await sessions.open(None)
    session.data.note = "begun"
    token = (await sessions.commit(session)).token

    async def write(name: str) -> None:
        writing = await sessions.open(token)
        writing.data.count += 1
        writing.data.log.append(name)
        await sessions.commit(writing)

    async def write_often() -> None:
        for number in range(others):
            await write(f"other {number}")

    store.applies, store.meanwhile = applies, write_often
    acknowledged = True
    try:
        await write("mine")
    except SessionUnavailableError:
        acknowledged = False
    kept = (await sessions.open(token)).data
    assert kept.count == len(kept.log) == len(set(kept.log))
    assert len(kept.log) - others == (1 if acknowledged else applies)
    assert acknowledged is (others <= 3 or (others == 4 and not applies))


# -- histories of real clients ------------------------------------------------------------------------------------------

SLACK = 10.0  # tests share their machine; `./dev prove faults` is strict


@pytest.mark.slow
def test_threads_that_share_the_memory_store_lose_nothing() -> None:
    result = prove_races("memory", seed=1, operations=3_000, processes=4, browsers=8)
    assert result.verdict.violations == []
    assert len(result.rows) == 3_000
    assert result.verdict.checked["acknowledged writes"] > 100
    assert result.figures()["overlapping"] > 100


@pytest.mark.server
@pytest.mark.slow
def test_processes_lose_nothing_while_sessions_move_to_another_store() -> None:
    """Half of them still move nothing, the others move to where records are encrypted (decision 32)."""
    result = prove_races("redis+redis", seed=1, operations=600, processes=4, browsers=12)
    assert result.verdict.violations == []


@pytest.mark.slow
@pytest.mark.server
def test_processes_lose_nothing_while_the_server_dies_and_replies_get_lost() -> None:
    faults = ("kill", "freeze", "lose-reply", "mute")
    result = prove_faults(seed=1, operations=1_200, processes=2, browsers=8, chosen=faults, longest=0.6, slack=SLACK)
    assert [violation.text for violation in result.verdict.violations] == []
    assert {row.result for row in result.rows} >= {"done", "unknown"}
    assert set(result.figures()["recovery_s_after"]) == {"kill", "freeze", "lose reply", "mute"}


@pytest.mark.slow
def test_processes_lose_nothing_while_another_one_locks_their_file_and_dies_in_the_middle_of_a_write() -> None:
    result = prove_faults("sqlite", seed=1, operations=600, processes=2, browsers=6, longest=0.6, slack=SLACK)
    assert not result.verdict.violations, result.verdict.violations
    assert result.more["recovery_s_after"].keys() == {"lock", "break off"}


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.parametrize("store", ["redis", "postgresql"])
def test_processes_that_live_on_lose_nothing_and_hold_no_more_than_at_first(store: str) -> None:
    result = prove_soak(store, seed=1, seconds=0, operations=400, browsers=12, longest=0.3, slack=SLACK)
    assert [violation.text for violation in result.verdict.violations] == []
    assert result.more["histories"] == 3
    assert result.more["all_results"]["given_up"] > 5


@pytest.mark.long
@pytest.mark.server
def test_processes_lose_nothing_and_hold_no_more_in_twenty_minutes_of_faults() -> None:
    result = prove_soak(seed=2, seconds=1_200, slack=SLACK)
    assert [violation.text for violation in result.verdict.violations] == []


@pytest.mark.parametrize("name", sorted(MOST_NEW))
def test_what_a_process_holds_more_of_than_when_it_was_warm_is_found(name: str) -> None:
    warm = Reading(descriptors=10, threads=1, tasks=0, lines=0, objects=50_000, megabytes=60)
    allowed, beyond = (
        {**asdict(warm), name: asdict(warm)[name] + more} for more in (MOST_NEW[name], MOST_NEW[name] + 1)
    )
    first = Reading(*[0] * len(MOST_NEW))
    assert judge_readings([[first], [warm], [Reading(**allowed)]]) == []
    assert [one.kind for one in judge_readings([[first], [warm], [Reading(**beyond)]])] == ["leak"]


@pytest.mark.long
@pytest.mark.server
@pytest.mark.parametrize("seed", range(2, 5))
@pytest.mark.parametrize(
    "store", ["memory", "redis", "postgresql", "sqlite", "example", "redis+redis", "redis+postgresql"]
)
def test_long_histories_lose_nothing(store: str, seed: int) -> None:
    result = prove_races(store, seed=seed, operations=30_000, processes=4, browsers=24)
    assert [violation.text for violation in result.verdict.violations] == []


@pytest.mark.long
@pytest.mark.server
@pytest.mark.parametrize("seed", range(2, 5))
@pytest.mark.parametrize("store", ["redis", "postgresql", "sqlite"])
def test_long_histories_lose_nothing_while_everything_fails_once(store: str, seed: int) -> None:
    result = prove_faults(store, seed=seed, operations=12_000, processes=4, browsers=24, slack=SLACK)
    assert [violation.text for violation in result.verdict.violations] == []


@pytest.mark.long
@pytest.mark.server
@pytest.mark.parametrize("waits", [False, True])
def test_long_histories_lose_no_more_than_a_failover_may_cost(waits: bool) -> None:
    result = prove_sentinel(seed=2, operations=12_000, processes=4, browsers=24, slack=SLACK, waits=waits)
    assert [violation.text for violation in result.verdict.violations] == []


@pytest.mark.slow
def test_a_store_that_brings_back_what_is_gone_is_found() -> None:
    result = prove_races("memory", seed=1, operations=3_000, processes=4, browsers=8, plant="upsert")
    assert "resurrection" in {violation.kind for violation in result.verdict.violations}


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize(
    ("plant", "fault", "share", "kind"),
    [
        ("retry-without-write-id", "lose-reply", 0.25, "applied twice"),
        ("clear-cookie-on-error", "refuse", 1.0, "cookie"),
        ("shifted-reply", "mute", 0.3, "mixed up"),
    ],
)
def test_a_planted_bug_is_found(plant: str, fault: str, share: float, kind: str) -> None:
    found = set[str]()
    for seed in (2, 3, 4):  # whom a fault hits is a matter of microseconds: a history in twenty may show nothing
        result = prove_faults(
            seed=seed,
            operations=900,
            processes=2,
            browsers=8,
            chosen=(fault,),
            plant=plant,
            longest=2.5,
            share=share,
            slack=SLACK,
        )
        found |= {violation.kind for violation in result.verdict.violations}
        if kind in found:
            break
    assert kind in found


def test_a_plan_is_the_same_for_the_same_seed() -> None:
    sizes = Sizes(seed=7, operations=500, clients=6, browsers=4)
    plans = [[list(steps(sizes, client)) for client in range(6)] for _ in range(2)]
    assert plans[0] == plans[1]
    numbers = [step.number for plan in plans[0] for step in plan]
    assert sorted(numbers) == list(range(500))
    other = Sizes(seed=8, operations=500, clients=6, browsers=4)
    assert list(steps(other, 0)) != plans[0][0]


# -- the checker ---------------------------------------------------------------------------------------------------------


def seen(*entries: int, outcome: str = "loaded", principal: str = "", owner: str = "b0", whole: bool = False) -> View:
    names = tuple(name_of(entry) for entry in entries)
    return View(outcome, "loaded", owner, "", principal, len(names), digest_of(names), "", names if whole else None)


def row(number: int, kind: str, token: str, at: float, until: float, **more: object) -> Row:
    fields = {"client": 0, "process": 0, "way": "async", "browser": 0} | more
    return Row(number=number, kind=kind, token=token, started=at, ended=until, **fields)  # type: ignore[arg-type]


BIRTH = row(0, "write", "", 0, 1, before=seen(outcome="none", owner=""), after=seen(0), cookie="set", new_token="A")


def kinds(rows: list[Row], last: dict[str, View] | None = None) -> set[str]:
    verdict = Checker(rows, last if last is not None else {}).judge()
    return {violation.kind for violation in verdict.violations}


def test_a_history_without_fault_is_let_through() -> None:
    writing = row(1, "write", "A", 2, 3, before=seen(0), after=seen(0, 1))
    moving = row(
        2, "login", "A", 4, 5, account="b0/1", before=seen(0, 1, whole=True), after=seen(0, 1, 2, whole=True),
        cookie="set", new_token="B",
    )  # fmt: skip
    last = {"A": seen(outcome="unknown", owner=""), "B": seen(0, 1, 2, principal="b0/1", whole=True)}
    assert kinds([BIRTH, writing, moving], last) == set()


def test_an_acknowledged_write_that_is_missing_is_found() -> None:
    writing = row(1, "write", "A", 2, 3, before=seen(0), after=seen(0, 1))
    assert kinds([BIRTH, writing], {"A": seen(0, whole=True)}) == {"lost update"}
    other = row(2, "write", "A", 2, 3, before=seen(0), after=seen(0, 2))
    assert kinds([BIRTH, writing, other]) == {"lost update", "divergence"}


def test_a_write_that_nobody_answered_may_be_there_or_not() -> None:
    writing = row(1, "write", "A", 2, 3, before=seen(0), result=UNKNOWN)
    for last in (seen(0, whole=True), seen(0, 1, whole=True)):
        assert kinds([BIRTH, writing], {"A": last}) == set()


@pytest.mark.parametrize("result", [CONFLICT, UNAVAILABLE])
def test_a_write_that_was_refused_must_not_be_there(result: str) -> None:
    writing = row(1, "write", "A", 2, 3, before=seen(0), result=result)
    assert kinds([BIRTH, writing], {"A": seen(0, 1, whole=True)}) == {"refused, but stored"}


@pytest.mark.parametrize("kind", ["logout", "destroy", "revoke", "login", "rotate"])
def test_a_session_that_opens_after_its_end_is_found(kind: str) -> None:
    moved = {"cookie": "set", "new_token": "B", "after": seen(0, 1)} if kind in {"login", "rotate"} else {}
    opened = None if kind == "revoke" else seen(0)
    ending = row(1, kind, "A", 2, 4, before=opened, answer=1 if kind == "revoke" else -1, **moved)
    found = {"old token valid" if moved else "resurrection"}
    assert kinds([BIRTH, ending, row(2, "read", "A", 5, 6, before=seen(0))]) == found
    assert kinds([BIRTH, ending], {"A": seen(0, whole=True)}) == found
    assert kinds([BIRTH, ending, row(2, "read", "A", 3, 6, before=seen(0))]) == set()
    ending.result, ending.cookie, ending.new_token = UNKNOWN, "keep", ""
    assert kinds([BIRTH, ending, row(2, "read", "A", 5, 6, before=seen(0))]) == set()


def test_a_session_that_revoking_all_left_is_found() -> None:
    login = row(
        0, "login", "", 0, 1, account="b0/1", before=seen(outcome="none", owner=""), after=seen(0), cookie="set",
        new_token="A",
    )  # fmt: skip
    ending = row(1, "revoke-all", "A", 2, 6, account="b0/1", answer=1)
    moving = row(
        2, "rotate", "A", 3, 4, before=seen(0, principal="b0/1"), after=seen(0, 2), cookie="set", new_token="B"
    )
    late = row(3, "read", "B", 7, 8, before=seen(0, 2, principal="b0/1"))
    assert kinds([login, ending, moving, late]) == {"resurrection"}
    ending.spared = "A"
    assert kinds([login, ending, moving, late]) == set()


def test_a_session_that_vanished_is_found() -> None:
    reading = row(1, "read", "A", 2, 3, before=seen(outcome="unknown", owner=""))
    assert kinds([BIRTH, reading]) == {"lost session"}
    assert kinds([BIRTH], {"A": seen(outcome="unknown", owner="")}) == {"lost session"}
    assert kinds([BIRTH, row(1, "write", "A", 2, 3, before=seen(0), result=LOST)]) == {"lost session"}
    assert kinds([BIRTH, row(1, "revoke", "A", 2, 3, answer=0)]) == {"lost session"}
    ending = row(2, "logout", "A", 2.5, 9, before=seen(0), result=UNKNOWN)
    assert kinds([BIRTH, reading, ending], {"A": seen(outcome="unknown", owner="")}) == set()


def test_a_look_that_is_older_than_an_answer_is_found() -> None:
    writing = row(1, "write", "A", 2, 3, before=seen(0), after=seen(0, 1))
    assert kinds([BIRTH, writing, row(2, "read", "A", 4, 5, before=seen(0))]) == {"stale read"}
    assert kinds([BIRTH, writing, row(2, "read", "A", 2.5, 5, before=seen(0))]) == set()


def test_data_of_somebody_else_are_found() -> None:
    assert kinds([BIRTH, row(1, "read", "A", 2, 3, before=seen(0, owner="b1"))]) == {"another's data"}
    assert kinds([BIRTH, row(1, "read", "A", 2, 3, before=seen(0, principal="b1/0"))]) == {"another's data"}
    stranger = row(5, "read", "", 2, 3, before=seen(outcome="none", owner="b1"), browser=1)
    assert kinds([BIRTH, stranger], {"A": seen(0, 5, whole=True)}) >= {"another's data"}
    assert "mixed up" in kinds([BIRTH, row(1, "read", "A", 2, 3, before=seen(outcome="corrupt"))])


@pytest.mark.parametrize("result", [UNAVAILABLE, UNKNOWN, LOST])
def test_a_cookie_that_an_outage_changed_is_found(result: str) -> None:
    ending = row(2, "logout", "A", 1, 9, before=seen(0), result=UNKNOWN)
    writing = row(1, "write", "A", 2, 3, before=seen(0), result=result, cookie="clear")
    assert kinds([BIRTH, ending, writing]) == {"cookie"}


def test_two_heirs_of_one_session_are_found() -> None:
    moves = [
        row(n, "rotate", "A", 2, 3, before=seen(0), after=seen(0, n), cookie="set", new_token=f"B{n}") for n in (1, 2)
    ]
    assert kinds([BIRTH, *moves]) == {"forked"}
    assert [one.kind for one in Checker([BIRTH, *moves], {}, outages=True).judge().violations] == ["forked"]


def test_a_session_that_two_say_they_ended_is_found() -> None:
    login = row(
        1, "login", "A", 2, 4, account="b0/1", before=seen(0), after=seen(0, 1), cookie="set", new_token="B"
    )  # fmt: skip
    assert kinds([BIRTH, login, row(2, "revoke", "A", 2, 4, answer=1)]) == {"ended twice"}
    assert kinds([BIRTH, login, row(2, "revoke", "A", 2, 4, answer=0)]) == set()
    assert kinds([BIRTH, *(row(n, "revoke", "A", 2, 4, answer=1) for n in (1, 2))]) == {"ended twice"}


@pytest.mark.parametrize("kind", ["logout", "destroy", "revoke", "login"])
def test_r40_the_successor_of_a_rotation_that_lives_on_after_an_end_by_the_former_token_is_found(kind: str) -> None:
    moving = row(1, "rotate", "A", 2, 3, before=seen(0), after=seen(0, 1), cookie="set", new_token="B")
    opened = {} if kind == "revoke" else {"before": seen(0)}
    moved = {"cookie": "set", "new_token": "C", "account": "b0/1", "after": seen(0, 1, 2)} if kind == "login" else {}
    ending = row(2, kind, "A", 1.5, 5, answer=1 if kind == "revoke" else -1, **opened, **moved)
    dead = row(4, "read", "B", 6, 7, before=seen(outcome="unknown", owner=""))
    assert kinds([BIRTH, moving, ending, dead]) == set()
    found = {"old token valid" if kind == "login" else "resurrection"}
    assert kinds([BIRTH, moving, ending, row(4, "read", "B", 6, 7, before=seen(0, 1))]) == found
    assert kinds([BIRTH, moving, dead]) == {"lost session"}


def test_r40_a_login_by_the_former_token_that_lost_what_the_successor_holds_is_found() -> None:
    moving = row(1, "rotate", "A", 2, 3, before=seen(0), after=seen(0, 1), cookie="set", new_token="B")
    login = row(
        2, "login", "A", 1.5, 5, account="b0/1", before=seen(0), after=seen(0, 2, whole=True), cookie="set",
        new_token="C",
    )  # fmt: skip
    assert kinds([BIRTH, moving, login]) == {"lost update", "divergence"}


def test_of_two_revocations_one_may_have_lost_its_reply_but_a_login_knows_its_own_end() -> None:
    moving = row(
        1, "login", "A", 2, 4, account="b0/1", before=seen(0), after=seen(0, 1), cookie="set", new_token="B"
    )  # fmt: skip
    ending = [row(n, "revoke", "A", 2, 4, answer=1) for n in (2, 3)]
    assert Checker([BIRTH, *ending], {}, outages=True).judge().violations == []
    found = Checker([BIRTH, moving, ending[0]], {}, outages=True).judge().violations
    assert [one.kind for one in found] == ["ended twice"]


def test_an_outage_does_not_excuse_a_rotation_that_went_on_after_a_logout() -> None:
    writing = row(1, "write", "A", 2, 3, before=seen(0), after=seen(0, 1))
    moving = row(
        2, "rotate", "A", 1.5, 9, before=seen(0, whole=True), after=seen(0, 2, whole=True), cookie="set", new_token="B"
    )
    ending = row(3, "logout", "A", 4, 5, before=seen(0, 1))
    found = Checker([BIRTH, writing, moving, ending], {}, outages=True).judge().violations
    assert {one.kind for one in found} == {"lost update", "divergence"}


def test_losses_far_from_any_failover_are_violations() -> None:
    missing = Violation("lost update", "missing", (row(1, "write", "A", 2, 3),))
    foreign = Violation("another's data", "seen", (row(1, "write", "A", 2, 3),))
    assert split_losses([missing, foreign], [Done("failover", 3.5, 4)]) == ([missing], [foreign])
    assert split_losses([missing, foreign], [Done("failover", 30, 40)]) == ([], [missing, foreign])


def test_what_the_server_that_took_over_had_not_got_is_lost_by_the_failover_whenever_somebody_looks() -> None:
    born, used = row(1, "login", "A", 2, 3), row(2, "read", "A", 90, 91)
    later, never = Violation("lost session", "missing", (born, used)), Violation("lost session", "missing", (born,))
    found_before = Violation("lost session", "missing", (born, row(2, "read", "A", 5, 6)))
    losses = [later, never, found_before]
    assert split_losses(losses, [Done("failover", 40, 41)]) == ([], losses)
    assert split_losses(losses, [Done("failover", 40, 41, whole_at=30)]) == ([], losses)
    for behind in (2.5, -math.inf):
        assert split_losses(losses, [Done("failover", 40, 41, whole_at=behind)]) == ([later, never], [found_before])
    after = Violation("lost session", "missing", (row(1, "login", "A", 50, 51), used))
    assert split_losses([after], [Done("failover", 40, 41, whole_at=-math.inf)]) == ([], [after])


def test_a_server_has_everything_as_long_as_it_follows_and_nothing_when_it_comes_back_empty() -> None:
    def master(offset: int) -> dict[str, Any]:
        return {"role": "master", "master_repl_offset": offset}

    def replica(offset: int, of: int, link: str = "up") -> dict[str, Any]:
        return {"role": "slave", "master_port": of, "master_link_status": link, "slave_repl_offset": offset}

    def followed() -> Whole:
        whole = Whole(1)
        whole.note(5.0, 1, "a", master(100))
        whole.note(5.1, 2, "b", replica(100, 1))
        return whole

    assert followed().take_over(2) == 5.0
    behind = followed()
    behind.note(6.0, 1, "a", master(200))
    behind.note(6.1, 2, "b", replica(199, 1))
    behind.note(7.1, 2, "b", replica(250, 1, "down"))
    assert [behind.take_over(2), behind.take_over(2)] == [5.0, 5.0]
    # the former master is started again, and elected before and after it has all from the new one
    for link, expected in (("down", -math.inf), ("up", 9.0)):
        back = followed()
        back.take_over(2)
        back.note(8.0, 1, "c", master(0))
        back.note(9.0, 2, "b", master(300))
        back.note(9.1, 1, "c", replica(300, 2, link))
        assert back.take_over(1) == expected


def test_what_sentinels_say_of_one_change_of_master_is_joined() -> None:
    heard = [(1.2, False), (1.0, False), (3.0, True), (3.4, True), (3.1, False), (40.0, True), (90.0, False)]
    assert [(one.began, one.ended) for one in joined(heard)] == [(1.0, 3.4), (40.0, 40.0)]
    apart = [(1.0, False), (2.0, True), (30.0, False), (50.0, False), (51.0, True)]
    assert [(one.began, one.ended) for one in joined(apart)] == [(1.0, 2.0), (50.0, 51.0)]


def test_slow_answers_and_slow_recoveries_are_found() -> None:
    slow = row(1, "read", "A", 2, 5, way="asgi", before=seen(0))
    assert len(judge_times([slow], deadline=2.0, slack=0.5)) == 1
    assert judge_times([slow], deadline=2.0, slack=1.5) == []
    slow.stalled = 1.0  # the machine was busy with others
    assert judge_times([slow], deadline=2.0, slack=0.5) == []
    fault = Done("kill", 1.0, 2.0)
    failing = [row(n, "read", "A", n, n + 0.1, result=UNAVAILABLE) for n in range(2, 12)]
    assert len(judge_recoveries(recoveries(failing, [fault]))) == 1
    well = row(20, "read", "A", 5, 6)
    assert recoveries([*failing, well], [fault]) == [(fault, 0, 4.0)]


def test_an_ended_session_that_is_back_must_have_been_reported_before_it_was_seen_again() -> None:
    ending = row(1, "logout", "A", 2, 4, before=seen(0))
    again, twice = (row(number, "read", "A", at, at + 1, before=seen(0)) for number, at in ((2, 6), (3, 8)))
    lost = Checker([BIRTH, ending, again, twice], {"A": seen(0, whole=True)}).judge().violations
    assert [one.kind for one in lost] == ["resurrection"] * 3
    assert [one.number for one in sessions_back(lost)] == [0]
    assert [(one.kind, one.rows) for one in judge_back(lost, [])] == [("unreported", (BIRTH, ending, again))]
    assert judge_back(lost, [Report(token_id("B"), 3.0), Report(token_id("A"), 7.5)]) != []
    assert judge_back(lost, [Report(token_id("A"), 7.5), Report(token_id("A"), 3.0)]) == []
    assert judge_back([Violation("lost update", "", (BIRTH,))], []) == []
    at_the_end = Checker([BIRTH, ending], {"A": seen(0, whole=True)}).judge().violations
    assert [one.kind for one in judge_back(at_the_end, [])] == ["unreported"]
    assert judge_back(at_the_end, [Report(token_id("A"), 3.0)]) == []


def test_what_a_store_reports_is_kept_with_its_moment(tmp_path: Path) -> None:
    reports = Reports(lambda: 5.0)
    for name in ("deleted", "unconfirmed"):
        reports(Event(name, "an id"))
    reports.save(tmp_path / "0.reports")
    assert load(tmp_path.glob("*.reports")) == [Report("an id", 5.0)]
