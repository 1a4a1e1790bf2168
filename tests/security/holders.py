"""Several requests that hold one session, and an oracle that says which cookies may still be worth something.

A *line* is what a visitor takes for one session: it begins with a login, or with the first write of somebody
anonymous, and goes on through rotations and renewals under other ids and tokens. The oracle knows only what was
acknowledged, so it does not care in which order concurrent commits reach the store:

* a line that somebody ended (logout, destroy, login over it, revoke, revoke_all) has no cookie that opens;
* a line that nobody ended has exactly one id that opens, and the cookie issued for that id last opens it;
* a commit issues no cookie for a line that had ended before the commit began;
* of renewals of one token all send the same cookie;
* where the number of sessions is limited, no more lines of a principal open;
* the store names and counts the ids that open, and nothing that a rotation, a renewal or a login left.

The keys of the nodes stand in two orders, as they do while secrets are rotated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from sojourn import CookieAction, MemoryStore, Session, new_secret
from sojourn.errors import SessionConflictError, SessionStateError, TooManySessionsError
from sojourn.manager import BlockingManager, run_blocking
from sojourn.stores import CachingStore, Store
from sojourn.testing import FakeClock, Fault, FaultyStore
from sojourn_store_cookie import CookieStore
from tests.core.models import make_manager

MOVES: Final = ("change", "touch", "rotate", "renew", "login", "login as another", "logout", "destroy", "clear")
"""What a request can do to the session that it holds, before it commits."""
HOLDERS: Final = 3
OFFSETS: Final = (0.0, 60.0, 30.0)
"""By how many seconds the clock of each holder's node is ahead: any two differ by the tolerated 60 at most."""


RENEW_AFTER: Final = 61.0
"""Seconds after which a node renews a token, where that is on."""
ENDS: Final = {"login", "login as another", "logout", "destroy", "clear"}


class Interrupted(FaultyStore):
    """A store whose calls are counted and interrupted; it reads past a local cache where the store has one."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        if isinstance(inner, CachingStore):
            self.load_fresh = lambda id: self._call("load", lambda: inner.load_fresh(id))
            self.cache_stats, self.evict = inner.cache_stats, inner.evict


class OffsetClock:
    """The wall clock of a node that is ahead of the others."""

    def __init__(self, clock: FakeClock, offset: float) -> None:
        self._clock = clock
        self._offset = offset

    def time(self) -> float:
        return self._clock.time() + self._offset

    def monotonic(self) -> float:
        return self._clock.monotonic()


class Deployment:
    """Nodes with clocks of their own over one store on a server, or over cookies with a revocation index there.

    *make* opens the store of the server for a node with a clock.
    """

    def __init__(self, make: Callable[[Any], Store], *, client_side: bool, **settings: Any) -> None:
        self.client_side = client_side
        self.clock = FakeClock()
        self._make = make
        self._secrets = [new_secret(), new_secret()]
        long = {"idle_timeout": "20h", "absolute_timeout": "24h", "renew_after": RENEW_AFTER}
        self._settings = {"encrypt": True, "retry_attempts": 0, **long, **settings}
        self.most: int | None = settings.get("max_sessions")
        self.evicts = self.most is not None and settings.get("max_sessions_policy") != "reject"
        self.server = make(self.clock)
        self.nodes: list[tuple[BlockingManager[Any], FaultyStore]] = [
            self._node(offset, reverse=at == 1) for at, offset in enumerate(OFFSETS)
        ]
        self.onlooker = self._node(30.0, reverse=False)[0]

    def _node(self, offset: float, *, reverse: bool) -> tuple[BlockingManager[Any], FaultyStore]:
        """Return a node, and the store whose calls are counted and interrupted."""
        clock: Any = OffsetClock(self.clock, offset)
        settings = {**self._settings, "secrets": self._secrets[::-1] if reverse else self._secrets}
        store = Interrupted(self.server if isinstance(self.server, MemoryStore) else self._make(clock))
        if self.client_side:
            manager = make_manager(CookieStore(), clock=clock, revocation_store=store, settings=settings)
        else:
            manager = make_manager(store, clock=clock, settings=settings)
        return manager.blocking, store

    def clear(self) -> None:
        """Forget everything, for the next example."""
        run_blocking(self.server.clear())  # type: ignore[attr-defined]
        for _, store in self.nodes:
            store.follow(())
            store.calls.clear()


@dataclass(eq=False)
class Line:
    """One session as a visitor sees it."""

    principal: str | None
    ended: bool = False
    is_certain: bool = True
    """Whether it must be alive as long as nobody ended it."""
    ids: list[str] = field(default_factory=list)
    """The latest is the one that must open."""
    tokens: list[tuple[str, str]] = field(default_factory=list)
    """Every cookie that was issued, after the id that it was issued for."""
    renewed: set[str | None] = field(default_factory=set)
    """The ids that a renewal has moved to another one: to one each (R49)."""

    def add(self, id: str, token: str) -> None:
        if id not in self.ids:
            self.ids.append(id)
        self.tokens.append((id, token))

    @property
    def token(self) -> str:
        """The cookie that opens the session, if it is alive."""
        return [token for id, token in self.tokens if id == self.ids[-1]][-1]


@dataclass(eq=False)
class Holder:
    """One request: the session that it opened, and what its commit is going to do."""

    node: BlockingManager[Any]
    store: FaultyStore
    session: Session[Any] | None = None
    line: Line | None = None
    """What it holds; None when what it stores next begins a line."""
    ends: list[Line] = field(default_factory=list)
    """What its next commit ends."""
    moves: list[str] = field(default_factory=list)
    is_destroyed: bool = False
    """Whether it called destroy(), perhaps before an earlier commit."""


class Site:
    """A deployment, the requests under way, and everything that was ever issued."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        deployment.clear()
        self.holders = [Holder(node, store) for node, store in deployment.nodes]
        self.lines: list[Line] = []
        self.log: list[str] = []
        self._began_in: list[Line] | None = None

    def begin(self, principal: str | None, at: int = 0) -> Line:
        """Let somebody come by who has no cookie."""
        holder = self.holders[at]
        self.open(at, None)
        assert holder.session is not None
        holder.session.data.note = "begun"
        if principal is not None:
            holder.session.login(principal)
            holder.moves.append("login")
        self.commit(at)
        holder.session = holder.line = None
        return self.lines[-1]

    def open(self, at: int, token: str | None) -> None:
        """Begin a request with a cookie."""
        holder = self.holders[at]
        holder.session, holder.line, holder.ends, holder.moves = holder.node.open(token), None, [], []
        holder.is_destroyed = False
        if holder.session.outcome.value == "loaded":
            holder.line = next(line for line in self.lines if token in {issued for _, issued in line.tokens})
        self.log.append(f"{at} opens {self.name(holder.line)}")

    def move(self, at: int, move: str) -> None:
        """Let a request do something to its session."""
        holder = self.holders[at]
        session = holder.session
        if session is None:
            return
        try:
            match move:
                case "change":
                    session.data.count += 1
                case "touch":
                    session.touch()
                case "rotate":
                    session.rotate()
                case "renew":
                    self.deployment.clock.advance(RENEW_AFTER)
                    session._state.accessed = True
                case "login" | "login as another":
                    session.login("1" if move == "login" else "2")
                case "logout":
                    session.logout()
                case "clear":
                    session.clear()
                case _:
                    session.destroy()
                    holder.is_destroyed = True
        except SessionStateError:
            return
        if move in ENDS:
            holder.ends += [holder.line] if holder.line is not None else []
            holder.line = None
        holder.moves.append(move)
        self.log.append(f"{at} {move}")

    def commit(self, at: int, *, before: int = 0, meanwhile: Callable[[], object] | None = None) -> int:
        """Let a request commit, and something happen before one of its calls; return how many calls it made."""
        holder = self.holders[at]
        if holder.session is None:
            return 0
        held, former = holder.line, holder.session.id
        had_ended = held is not None and held.ended
        holder.store.calls.clear()
        try:
            with self._interrupted(holder.store, before, meanwhile) as began:
                change = holder.node.commit(holder.session)
        except (SessionConflictError, TooManySessionsError) as refused:  # the browser was told so
            self.log.append(f"{at} commits {self.name(held)}: {refused}, after {holder.store.calls}")
            for line in holder.ends:
                line.is_certain = False  # a logout before the login that was refused has ended it
            holder.session = holder.line = None
            return len(holder.store.calls)
        except SessionStateError as refused:
            # the end was carried out, and what changed in place after it is refused
            self.require(holder.is_destroyed and holder.moves[-1] == "change", str(refused))
            self.log.append(f"{at} commits {self.name(held)}: {refused}")
            for line in holder.ends:
                line.ended = True
            holder.ends, holder.moves, holder.session = [], [], None
            return len(holder.store.calls)
        made = len(holder.store.calls)
        for line in holder.ends:
            line.ended = True
        holder.ends = []
        self.log.append(f"{at} commits {self.name(held)}: {change.action.value} after {holder.store.calls}")
        token = change.token
        if change.action is CookieAction.SET and token is not None and not self._is_known(token):
            self.require(not had_ended, "a cookie was issued for a session that had ended")
            id = holder.session.id
            if held is None:
                # a revoke_all() during the commit of a login may come before or after it
                principal = holder.session.principal
                is_certain = "revoke all" not in self.log_since(began) and not self.deployment.evicts
                line = Line(principal, is_certain=is_certain or principal is None)
                self.lines.append(line)
                held = holder.line = line
            if holder.session.decisions.written == "renewed":
                self.require(former not in held.renewed, "one token was renewed to two")
                held.renewed.add(former)
            held.add(id, token)
            self.log[-1] += f" -> {self.name(held)}"
        holder.moves = []
        return made

    @contextmanager
    def _interrupted(self, store: FaultyStore, before: int, meanwhile: Callable[[], object] | None) -> Iterator[int]:
        began, done = len(self.log), meanwhile is None

        def plan(_: str) -> Fault:
            nonlocal done
            if not done and len(store.calls) == before + 1:
                done = True
                assert meanwhile is not None
                meanwhile()
            return Fault.NONE

        store.follow(plan)
        try:
            yield began
        finally:
            store.follow(())

    def log_since(self, began: int) -> str:
        return "\n".join(self.log[began:])

    def _is_known(self, token: str) -> bool:
        return any(token == issued for line in self.lines for _, issued in line.tokens)

    def revoke(self, id: str, at: int = 0) -> None:
        """End one session by an id that it has or had."""
        self.holders[at].node.revoke(id)
        for line in self.lines:
            line.ended = line.ended or id in line.ids
        self.log.append(f"{at} revoke {self.name(next((line for line in self.lines if id in line.ids), None))}")

    def revoke_all(self, principal: str, spared: str | None = None, at: int = 0) -> None:
        """End all sessions of a principal but one."""
        self.holders[at].node.revoke_all(principal, except_id=spared)
        for line in self.lines:
            line.ended = line.ended or (line.principal == principal and spared not in line.ids)
        self.log.append(f"{at} revoke all of {principal}")

    def check(self) -> None:
        """Open every cookie that was ever issued."""
        living: list[str] = []
        ids: set[str | None] = set()
        for line in self.lines:
            opened: dict[str, str | None] = {}
            for _, token in line.tokens:
                session = self.deployment.onlooker.open(token, fresh=True)
                if session.outcome.value == "loaded":
                    opened[token] = session.id
                    self.require(session.principal == line.principal, f"{self.name(line)} is somebody else's")
            self.require(not (line.ended and opened), f"{self.name(line)} has ended, and a cookie of it opens")
            if not line.ended:
                self.require(set(opened.values()) <= {line.ids[-1]}, f"{self.name(line)} opens under an older id")
                self.require(
                    not line.is_certain or line.token in opened, f"{self.name(line)} was lost, and nobody ended it"
                )
            ids |= set(opened.values())
            living += [line.principal] if opened and line.principal is not None else []
        for principal in set(living):
            most = self.deployment.most or len(living)
            self.require(living.count(principal) <= most, f"{principal} has more than {most} sessions")
        if not self.deployment.client_side:
            onlooker = self.deployment.onlooker
            self.require(
                sorted(onlooker.all_session_ids()) == sorted(map(str, ids)), "other sessions are named than open"
            )
            self.require(onlooker.count() == len(ids), "other sessions are counted than open")

    def name(self, line: Line | None) -> str:
        return "nothing" if line is None else f"line {self.lines.index(line)} of {line.principal}"

    def require(self, holds: bool, what: str) -> None:
        """Fail, telling everything that happened."""
        if not holds:
            raise AssertionError("\n  ".join([f"{what}, after", *self.log]))
