"""One process of the prover on a Redis Cluster, whose failovers take back what they had not replicated.

Nothing is judged before it is known which acknowledged writes were lost: a copy is not old for want of a
write that no server has any more.
"""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from sojourn.errors import StoreUnavailableError
from sojourn.stores import Deleted, Record, Replaced
from sojourn.testing import make_write_id
from verification.caches.node import FAR, Node, Plan


class ClusterNode(Node):
    """The store of one process, with a history of what was acknowledged to it."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.acknowledged: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self.dead: set[str] = set()
        self.lost: dict[str, set[int]] = defaultdict(set)
        self.suspects: list[tuple[str, int, float]] = []

    def is_leased(self, id: str, now: float) -> bool:
        """Decide, and set aside what would be too old, were none of the writes lost."""
        is_leased = self._is_leased(id, now)
        if is_leased:
            self.hits += 1
            number = int(self._found.record.payload)
            stale = self.board.staleness(self.slot_of[id], number, now - self._boot)
            if stale > self.plan.staleness:
                self.suspects.append((id, number, now - self._boot))
            elif stale > 0.0:
                self.stale += 1
                phase = "faults" if (Path(self.plan.folder) / "faults").exists() else "calm"
                self.worst[phase] = max(self.worst[phase], stale)
        return is_leased

    async def write(self, slot: int, chance: random.Random, present: int) -> int:
        """Update or revoke the session of an own slot; return its version, 0 when there is none."""
        number = self.board.acknowledged(slot) + 1
        id = self.id_of(slot, self.board.generation(slot))
        write_id = make_write_id(f"{slot} {number}")
        record = Record(id, present + 1, b"%d" % number, FAR, FAR)
        is_death = present > 0 and chance.random() < 0.3
        if is_death:
            assert await self._tried(lambda: self.store.delete(id)) in {Deleted.OK, Deleted.GONE}
        elif not present:
            await self._tried(lambda: self.store.create(record, write_id=write_id))
        elif await self._tried(lambda: self.store.replace(record, expected=present, write_id=write_id)) != Replaced.OK:
            stored = await self._tried(lambda: self.store.load_fresh(id))
            self._note_lost(id, stored)
            if stored is None:
                self.board.next_generation(slot)
            return 0 if stored is None else int(stored.version)
        now = time.monotonic()
        self.acknowledged[id].append((number, now))
        self.board.acknowledge(slot, number, now)
        self.writes += 1
        if is_death:
            self.revocations += 1
            self.dead.add(id)
            self.board.next_generation(slot)
            return 0
        return present + 1

    async def verify(self) -> None:
        """Compare what is stored at the end with what was acknowledged, and write the history down."""
        for id in list(self.acknowledged):
            stored = await self._tried(partial(self.store.load_fresh, id))
            if stored is not None or id not in self.dead:
                self._note_lost(id, stored)
        history = {
            "acknowledged": self.acknowledged,
            "lost": {id: sorted(numbers) for id, numbers in self.lost.items()},
            "suspects": self.suspects,
        }
        (Path(self.plan.folder) / f"history{self.plan.number}.json").write_text(json.dumps(history))

    def _note_lost(self, id: str, stored: Record | None) -> None:
        """Note what was acknowledged after the write that is *stored*."""
        last = 0 if stored is None else int(stored.payload)
        numbers = [number for number, _ in self.acknowledged[id] if number > last]
        self.lost[id] |= set(numbers)

    async def _tried(self, call: Callable[[], Awaitable[Any]]) -> Any:
        while True:
            try:
                return await call()
            except StoreUnavailableError:
                self.errors += 1
                await self.store.sleep(0.005)
