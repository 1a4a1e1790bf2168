"""Requests that hold one session at the same time: whatever they do to it, and in whatever order (R39).

Two holders meet in every pair of moves, in both orders and with the second commit before each call of the first one;
three of them do anything at all in a state machine. Where one of the rules is taken out of the code, it notices.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from copy import copy
from itertools import product
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from sojourn import MemoryStore
from sojourn.codec import peek_flags
from sojourn.manager import rotation
from sojourn.manager.client_side import ClientSide
from sojourn.manager.engine import Engine
from sojourn.manager.revocations import Revocations
from sojourn.stores import MOVED, STUB, Deleted, Record, Replaced, Store
from sojourn_store_redis import ClusteredRedisStore, RedisStore
from tests.security.holders import ENDS, HOLDERS, MOVES, Deployment, Interrupted, Site
from tests.servers import RedisServer

REVOCATIONS = ("revoke", "revoke all", "revoke all others")


KINDS: dict[str, dict[str, Any]] = {
    "cookie, index in memory": {},
    "memory": {},
    "memory, one session": {"max_sessions": 1},
    "memory, two sessions": {"max_sessions": 2, "max_sessions_policy": "reject"},
    "cookie, index in redis": {},
    "redis": {},
    "clustered-redis": {},
}


@pytest.fixture(
    scope="module", params=[pytest.param(kind, marks=[pytest.mark.server] if "redis" in kind else []) for kind in KINDS]
)
def deployment(request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """Yield a deployment on each kind of store."""
    kind: str = request.param
    client_side, limits = "cookie" in kind, KINDS[kind]
    if "memory" in kind:
        yield Deployment(lambda clock: MemoryStore(clock=clock), client_side=client_side, **limits)
        return
    server: RedisServer = request.getfixturevalue("shared_redis_server")
    server.start_if_stopped()
    server.flush()
    if kind == "clustered-redis":
        made: list[ClusteredRedisStore] = []

        def make(clock: Any) -> Store:
            made.append(ClusteredRedisStore.from_url(server.url, clock=clock, timeout=20.0, connect_timeout=20.0))
            return made[-1].blocking_twin()

        yield Deployment(make, client_side=False)
        for store in made:
            asyncio.run(store.aclose())
        return
    with server.client() as client:
        yield Deployment(lambda clock: RedisStore(client, clock=clock), client_side=client_side)


def act(site: Site, at: int, move: str) -> Callable[[], object]:
    """Prepare a move of one holder; return what carries it out."""
    line = site.lines[0]
    if move == "revoke":
        return lambda: site.revoke(line.ids[0], at)
    if move in REVOCATIONS:
        return lambda: site.revoke_all("1", line.ids[0] if move == "revoke all others" else None, at)
    site.open(at, line.token)
    site.move(at, move)
    return lambda: site.commit(at)


@pytest.mark.parametrize("first", [*MOVES, *REVOCATIONS])
def test_r39_two_holders_meet_in_every_pair_of_moves(deployment: Deployment, first: str) -> None:
    for second, principal in product([*MOVES, *REVOCATIONS], [None, "1"]):
        site = Site(deployment)
        site.begin(principal, at=1)
        works = [act(site, 0, first), act(site, 1, second)]
        works[0]()
        site.check()
        works[1]()
        site.check()


@pytest.mark.parametrize("first", MOVES)
def test_r39_two_holders_meet_in_the_middle_of_a_commit(deployment: Deployment, first: str) -> None:
    for second, principal in product([*MOVES, *REVOCATIONS], [None, "1"]):
        before, made = 0, 1
        while before < made:
            site = Site(deployment)
            site.begin(principal, at=1)
            act(site, 0, first)
            made = site.commit(0, before=before, meanwhile=act(site, 1, second))
            site.check()
            before += 1


@pytest.mark.parametrize("last", [*MOVES, *REVOCATIONS])
def test_r40_a_holder_from_before_two_rotations_ends_what_they_led_to(deployment: Deployment, last: str) -> None:
    site = Site(deployment)
    line = site.begin("1", at=1)
    work = act(site, 0, last)
    for _ in range(2):
        act(site, 1, "rotate")()
    work()
    site.check()
    if last not in {*ENDS, "revoke", "revoke all"}:
        assert not line.ended


meeting = st.tuples(
    st.sampled_from(["1", None]),
    st.lists(st.sampled_from([*MOVES, "login", "login", "rotate", "renew", "renew"]), min_size=2, max_size=HOLDERS),
    st.integers(0, HOLDERS - 1),
    st.integers(0, 8),
)
"""Who comes by if nobody is there, what the requests do, who is first, and before which of its calls the next one commits."""


def test_r41_a_session_counts_that_only_a_roll_names_whatever_the_clocks_say() -> None:
    limits = {"max_sessions": 2, "max_sessions_policy": "reject"}
    machine = Holders(Deployment(lambda clock: MemoryStore(clock=clock), client_side=False, **limits))
    machine.begin("1")
    # one node is 60 s ahead, and the session that it began is named by a roll that the other one wrote
    machine.meet([("1", ["login", "login"], 0, 0), ("1", ["change", "renew"], 0, 0)])
    machine.meet([("1", ["login", "login"], 0, 0)])


def test_r41_no_login_takes_a_roll_made_anew_for_the_one_that_it_read() -> None:
    machine = Holders(Deployment(lambda clock: MemoryStore(clock=clock), client_side=False, max_sessions=1))
    machine.begin("1")
    machine.meet([("1", ["login as another", "change"], 0, 0), ("1", ["change", "renew"], 0, 0)])
    # two minutes later; by the clock of the second node, 60 s ahead, the roll is over, and it makes another one
    machine.meet([("1", ["change", "renew"], 0, 0), ("1", ["login as another", "login as another"], 0, 2)])


def test_r40_destroy_ends_what_a_session_became_that_a_commit_found_gone(deployment: Deployment) -> None:
    site = Site(deployment)
    line = site.begin("1")
    site.open(0, line.token)
    site.move(0, "change")
    act(site, 1, "rotate")()
    site.commit(0)
    site.check()
    site.move(0, "destroy")
    site.commit(0)
    site.check()
    site.move(0, "change")  # in place, after an end that is stored already: refused, and nothing comes back
    site.commit(0)
    site.check()
    assert line.ended


class Holders(RuleBasedStateMachine):
    """Three requests at a time, on one visitor's cookies."""

    def __init__(self, deployment: Deployment) -> None:
        super().__init__()
        self.site = Site(deployment)

    @initialize(principal=st.sampled_from(["1", None]))
    def begin(self, principal: str | None) -> None:
        """Let a visitor come by."""
        self.site.begin(principal)

    @rule(at=st.integers(0, HOLDERS - 1), back=st.sampled_from([0, 0, 0, 1, 2]))
    def open(self, at: int, back: int) -> None:
        """Begin a request with the cookie that was issued last, or an older one."""
        issued = [token for line in self.site.lines for _, token in line.tokens]
        self.site.open(at, issued[-1 - back % len(issued)])

    @rule(at=st.integers(0, HOLDERS - 1), move=st.sampled_from(MOVES))
    def move(self, at: int, move: str) -> None:
        """Do something to the session."""
        self.site.move(at, move)

    @rule(at=st.integers(0, HOLDERS - 1))
    def commit(self, at: int) -> None:
        """End a request."""
        self.site.commit(at)

    @rule(at=st.integers(0, HOLDERS - 1), other=st.integers(1, HOLDERS - 1), before=st.integers(0, 4))
    def commit_two(self, at: int, other: int, before: int) -> None:
        """End two requests at the same time."""
        second = (at + other) % HOLDERS
        self.site.commit(at, before=before, meanwhile=lambda: self.site.commit(second))

    @rule(meetings=st.lists(meeting, min_size=1, max_size=2))
    def meet(self, meetings: list[tuple[str | None, list[str], int, int]]) -> None:
        """Let two or three requests hold one session, and commit one in the middle of the other."""
        for principal, moves, first, before in meetings:
            line = next((line for line in reversed(self.site.lines) if not line.ended), None)
            token = (line if line is not None and line.is_certain else self.site.begin(principal)).token
            holders = [(first + number) % HOLDERS for number in range(len(moves))]
            for at, move in zip(holders, moves, strict=True):
                self.site.open(at, token)
                self.site.move(at, move)
            self.site.commit(holders[0], before=before, meanwhile=lambda: self.site.commit(holders[1]))  # noqa: B023
            for at in holders[1:]:
                self.site.commit(at)
            self.site.check()

    @rule(at=st.integers(0, HOLDERS - 1), line=st.integers(0, 9), back=st.integers(0, 2), before=st.integers(0, 4))
    def revoke(self, at: int, line: int, back: int, before: int) -> None:
        """Revoke a session by an id, beside a commit."""
        ids = self.site.lines[line % len(self.site.lines)].ids
        work = lambda: self.site.revoke(ids[-1 - back % len(ids)], (at + 1) % HOLDERS)  # noqa: E731
        self._beside(at, before, work)

    @rule(
        at=st.integers(0, HOLDERS - 1),
        principal=st.sampled_from(["1", "1", "2"]),
        spared=st.integers(-3, 9),
        back=st.integers(0, 2),
        before=st.integers(0, 4),
    )
    def revoke_all(self, at: int, principal: str, spared: int, back: int, before: int) -> None:
        """Revoke all sessions of a principal but one, beside a commit."""
        ids = self.site.lines[spared % len(self.site.lines)].ids
        kept = ids[-1 - back % len(ids)] if spared >= 0 else None
        self._beside(at, before, lambda: self.site.revoke_all(principal, kept, (at + 1) % HOLDERS))

    @rule(
        at=st.integers(0, HOLDERS - 1),
        other=st.integers(1, HOLDERS - 1),
        move=st.sampled_from(["rotate", "change"]),
        back=st.integers(0, 1),
        before=st.integers(0, 4),
    )
    def spare(self, at: int, other: int, move: str, back: int, before: int) -> None:
        """Revoke all sessions of a principal but the one that somebody holds, beside its commit."""
        line = next((line for line in reversed(self.site.lines) if line.principal and not line.ended), None)
        if line is None or not line.is_certain or line.principal is None:
            return
        self.site.open(at, line.token)
        self.site.move(at, move)
        principal, kept, second = line.principal, line.ids[-1 - back % len(line.ids)], (at + other) % HOLDERS
        self._beside(at, before, lambda: self.site.revoke_all(principal, kept, second))

    def _beside(self, at: int, before: int, work: Callable[[], object]) -> None:
        done: list[object] = []
        self.site.commit(at, before=before, meanwhile=lambda: done.append(work()))
        if not done:
            work()

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 20.0]))
    def wait(self, seconds: float) -> None:
        """Let a little time pass; no session expires."""
        self.site.deployment.clock.advance(seconds)

    @invariant()
    def what_ended_has_ended_and_nothing_else(self) -> None:
        """Open every cookie."""
        self.site.check()


def run_machine(deployment: Deployment, steps: int, *, seed: int | None = None, **options: Any) -> None:
    """Let three holders do anything, in so many steps; *options* are further settings of hypothesis."""

    class Bound(Holders):
        def __init__(self) -> None:
            super().__init__(deployment)

    if seed is not None:
        hypothesis.seed(seed)(Bound)
    at_once = 15
    run_state_machine_as_test(
        Bound,
        settings=settings(
            max_examples=steps // at_once,
            stateful_step_count=at_once,
            suppress_health_check=list(HealthCheck),
            deadline=None,
            **options,
        ),
    )


@pytest.mark.slow
def test_r39_whatever_three_holders_do_what_ended_has_ended_and_nothing_else(deployment: Deployment) -> None:
    run_machine(deployment, 2_000 if isinstance(deployment.server, MemoryStore) else 400)


@pytest.mark.long
def test_r39_in_very_many_steps_what_ended_has_ended_and_nothing_else(deployment: Deployment) -> None:
    run_machine(deployment, 20_000 if isinstance(deployment.server, MemoryStore) else 7_000)


# -- what the machine finds when a rule is taken out -------------------------------------------------------------

Patch = pytest.MonkeyPatch


def ask_and_then_issue(patch: Patch) -> None:
    """R39: a rotation asks the index whether the session ended, and enters nothing."""

    async def move(self: Revocations, id: str, until: float, successor: str) -> bool:
        del successor
        return await self.store.load(self._entry(id, until).id, fresh=True) is None

    patch.setattr(Revocations, "move", move)


def end_only_the_id_that_was_named(patch: Patch) -> None:
    """R39: a revocation that meets the entry of a rotation does not follow it."""
    patch.setattr(Revocations, "_successor", lambda _self, _entry: None)


def spare_no_successor(patch: Patch) -> None:
    """R39: `revoke_all(except_id=)` spares the id that it is given, and not where its session moves."""

    async def trail(self: Revocations, id: str) -> list[str]:
        del self
        return [id]

    patch.setattr(Revocations, "_trail", trail)


def issue_without_a_last_look(patch: Patch) -> None:
    """R39: a slow write of a session that ended meanwhile sends its cookie."""
    replace = ClientSide.replace

    async def blind(self: ClientSide, engine: Engine[Any], *rest: Any) -> None:
        engine = copy(engine)
        engine.revocations = None
        await replace(self, engine, *rest)

    patch.setattr(ClientSide, "replace", blind)


def leave_no_trail(patch: Patch) -> None:
    """R40: a rotation leaves nothing that leads on, as a login does."""
    patch.setattr(Engine, "trail", lambda self, old, _new_id: self.end_of(old))


def end_what_was_opened(patch: Patch) -> None:
    """R40: who ends a session that changed or moved meanwhile does not look where it is."""

    async def end(engine: Engine[Any], record: Record) -> list[str]:
        return [record.id] if await engine.store.delete(record.id, expected=record.version) is Deleted.OK else []

    patch.setattr(Engine, "end", end)
    patch.setattr("sojourn.manager.committing.ServerSide.end", staticmethod(end))


def write_the_roll_unseen(patch: Patch) -> None:
    """R41: who enters writes the roll over that of somebody else."""
    write = rotation._write_roll

    async def over(engine: Engine[Any], key: str, present: Record | None, roll: Any) -> bool:
        return await write(engine, key, await engine.store.load(key, fresh=True), roll)

    patch.setattr(rotation, "_write_roll", over)


def redirect_whatever_stands_there(patch: Patch) -> None:
    """R49: the redirect of a renewal is written over that of another node."""
    replace = Interrupted.replace

    async def over(self: Interrupted, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        if peek_flags(record.payload) & (STUB | MOVED) == STUB:
            present = await self.load(record.id)
            expected = expected if present is None else present.version
        return await replace(self, record, expected=expected, write_id=write_id)

    patch.setattr(Interrupted, "replace", over)


PLANTS = [
    ("cookie, index in memory", ask_and_then_issue),
    ("cookie, index in memory", end_only_the_id_that_was_named),
    ("cookie, index in memory", spare_no_successor),
    ("cookie, index in memory", issue_without_a_last_look),
    ("memory", leave_no_trail),
    ("memory", end_what_was_opened),
    ("memory, one session", write_the_roll_unseen),
    ("memory, two sessions", write_the_roll_unseen),
    ("memory", redirect_whatever_stands_there),
]


@pytest.mark.slow  # what hypothesis draws, and so how long it takes, depends on its release and on the modules that are loaded
@pytest.mark.parametrize(
    ("deployment", "plant"),
    [pytest.param(kind, plant, id=f"{kind}-{plant.__name__}") for kind, plant in PLANTS],
    indirect=["deployment"],
)
def test_r39_the_machine_notices_that_a_rule_was_taken_out(
    deployment: Deployment, plant: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError, match="after\n"):
        # by this seed most take a few hundred steps
        run_machine(
            deployment,
            30_000,
            seed=6,
            phases=[Phase.generate],
            database=None,
            report_multiple_bugs=False,
        )
