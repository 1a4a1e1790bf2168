"""`./dev prove rolling`: the settings of a fleet change node by node while visitors are served, and nobody is logged out.

`store` moves sessions from a Redis without encryption to another Redis with encryption (docs/operations.md, moving to another
store); `keys` changes the secret (changing the secret). The exit status is 1 when a session is lost, or a write that was
acknowledged, or when one that was ended comes back.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, TypeAlias

from sojourn import LoadOutcome, Merge, SessionManager, new_secret
from sojourn.errors import SessionUnavailableError
from sojourn.settings import SessionSettings
from sojourn_store_redis import RedisStore
from tests.servers import RedisServer

NODES: Final = 4


@dataclass
class Visit:
    """What each session holds."""

    writes: Annotated[int, Merge.counter] = 0
    seen: list[str] = field(default_factory=list)


Node: TypeAlias = SessionManager[Visit]


@dataclass(frozen=True)
class Stage:
    """Settings that every node gets in turn, and what is done once all have them."""

    name: str
    make: Callable[[], Node]
    then: Callable[[Node], Awaitable[int]] | None = None


@dataclass
class Visitor:
    """One browser, and what it was told."""

    name: str
    token: str | None = None
    writes: int = 0
    """How many writes were acknowledged."""
    ended: list[str] = field(default_factory=list)


class Fleet:
    """Nodes that are replaced one by one while visitors ask them."""

    def __init__(self, stages: Sequence[Stage], *, seed: int, visitors: int, requests: int) -> None:
        self.stages = stages
        self.chance = random.Random(seed)
        self.visitors = [Visitor(f"visitor {number}") for number in range(visitors)]
        self.absent = [Visitor(f"absent visitor {number}") for number in range(visitors)]
        """They log in before anything changes, and come back when all is over."""
        self.requests = requests
        self.nodes: list[Node] = []
        self.made: list[Node] = []
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self.done: dict[str, int] = {}
        self.is_over = False

    async def play(self) -> None:
        """Serve visitors through all stages."""
        try:
            await self.go_through_stages()
        finally:
            for node in self.made:
                await node.aclose()

    def make(self, stage: Stage) -> Node:
        """Return a new node."""
        self.made.append(stage.make())
        return self.made[-1]

    async def go_through_stages(self) -> None:
        """Replace each node by one of the next stage, until all are of the last."""
        first, *rest = self.stages
        self.nodes = [self.make(first) for _ in range(NODES)]
        for visitor in self.absent:
            await self.ask(visitor, self.nodes[0])
        tasks = [asyncio.ensure_future(self.visit(visitor)) for visitor in self.visitors]
        await self.serve(self.requests)
        for stage in rest:
            for number in range(NODES):
                self.nodes[number] = self.make(stage)  # requests that the former one has begun go on there
                await self.serve(self.requests)
            if stage.then is not None:
                self.done[stage.name] = await stage.then(self.nodes[-1])
                await self.serve(self.requests)
        self.is_over = True
        await asyncio.gather(*tasks)
        for visitor in self.absent:
            await self.ask(visitor, self.nodes[0])
        for visitor in self.visitors:
            await self.look_back(visitor, self.nodes[0])

    async def serve(self, requests: int) -> None:
        """Return after so many more requests."""
        enough = self.counts["requests"] + requests
        while self.counts["requests"] < enough:
            await asyncio.sleep(0.001)

    async def visit(self, visitor: Visitor) -> None:
        """Log in, read, write and log out, each time on any node."""
        while not self.is_over:
            node = self.chance.choice(self.nodes)
            self.counts["requests"] += 1
            try:
                await self.ask(visitor, node)
            except SessionUnavailableError:
                self.counts["answered 503"] += 1
            await asyncio.sleep(0)

    async def ask(self, visitor: Visitor, node: Node) -> None:
        """Make one request."""
        session = await node.open(visitor.token)
        if visitor.token is None:
            session.login(visitor.name)
            change = await node.commit(session)
            visitor.token, visitor.writes = change.token, 0
            self.counts["logins"] += 1
            return
        if session.outcome is LoadOutcome.UNAVAILABLE:
            raise SessionUnavailableError
        if session.outcome is not LoadOutcome.LOADED or session.principal != visitor.name:
            self.problems.append(f"{visitor.name} was logged out: {session.outcome.value}")
            visitor.token = None
            return
        if session.data.writes < visitor.writes:
            self.problems.append(f"{visitor.name} had {visitor.writes} writes and sees {session.data.writes}")
        dice = self.chance.random()
        if dice < 0.4:
            session.data.writes += 1
            await node.commit(session)
            visitor.writes += 1
            self.counts["writes"] += 1
        elif dice < 0.43:
            session.logout()
            await node.commit(session)
            visitor.ended.append(visitor.token)
            visitor.token = None
            self.counts["logouts"] += 1
        elif dice < 0.46 and visitor.ended:
            await self.look_back(visitor, node)
        else:
            self.counts["reads"] += 1

    async def look_back(self, visitor: Visitor, node: Node) -> None:
        """Try the cookies of sessions that were ended."""
        for token in visitor.ended[-3:]:
            if (await node.open(token)).outcome is LoadOutcome.LOADED:
                self.problems.append(f"a session that {visitor.name} had ended came back")
            self.counts["looks at ended sessions"] += 1


def change_store(old: str, new: str) -> list[Stage]:
    """Return the stages of a move to another server, where records are encrypted."""
    until, secret = datetime.now(UTC) + timedelta(hours=20), new_secret()

    def node(here: str, there: str | None, **values: Any) -> Callable[[], Node]:
        def make() -> Node:
            settings = SessionSettings(_env_file=None, secret=secret, **values)
            fallback = None if there is None else RedisStore.from_url(there)
            return SessionManager(Visit, RedisStore.from_url(here), fallback_store=fallback, settings=settings)

        return make

    moves_not = {"fallback_until": until, "fallback_encrypt": True, "fallback_moves": False}
    moves = {"fallback_until": until, "fallback_encrypt": False}
    return [
        Stage("before", node(old, None, encrypt=False)),
        Stage("first step", node(old, new, encrypt=False, **moves_not)),
        Stage("second step", node(new, old, encrypt=True, **moves), lambda node: node.move()),
        Stage("after", node(new, None, encrypt=True)),
    ]


def change_keys(url: str) -> list[Stage]:
    """Return the stages of a change of the secret."""
    old, new = new_secret(), new_secret()

    def node(**values: Any) -> Callable[[], Node]:
        return lambda: SessionManager(
            Visit, RedisStore.from_url(url), settings=SessionSettings(_env_file=None, **values)
        )

    return [
        Stage("before", node(secret=old)),
        Stage("the new one opens", node(secrets=[old], retired_secrets=[new])),
        Stage("the new one seals", node(secrets=[new], retired_secrets=[old]), lambda node: node.reseal()),
        Stage("after", node(secret=new)),
    ]


def prove(what: str, *, seed: int, visitors: int, requests: int) -> Fleet:
    """Play one change on servers of its own, and return what happened."""
    with ExitStack() as stack:
        urls = [stack.enter_context(RedisServer()).url for _ in range(2 if what == "store" else 1)]
        stages = change_store(*urls) if what == "store" else change_keys(*urls)
        fleet = Fleet(stages, seed=seed, visitors=visitors, requests=requests)
        asyncio.run(fleet.play())
        return fleet


def main() -> int:
    """Run it for each change asked for."""
    parser = argparse.ArgumentParser(prog="./dev prove rolling", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--visitors", type=int, default=200)
    parser.add_argument("--requests", type=int, default=2000, help="before the next node is replaced")
    parser.add_argument("--changes", default="store,keys")
    arguments = parser.parse_args()
    problems = 0
    for what in arguments.changes.split(","):
        fleet = prove(what, seed=arguments.seed, visitors=arguments.visitors, requests=arguments.requests)
        told = {"change": what, "seed": arguments.seed, "visitors": arguments.visitors, "nodes": NODES}
        told |= {**fleet.counts, **fleet.done, "problems": len(fleet.problems)}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.write("".join(f"  {problem}\n" for problem in fleet.problems[:10]))
        problems += len(fleet.problems)
    return 1 if problems else 0
