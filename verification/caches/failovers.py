"""What goes wrong while the prover runs on a Redis Cluster: primaries die and freeze, one after the other.

The next fault waits until the cluster is whole again, the former victim following its successor.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass

from redis.crc import key_slot

from sojourn_store_redis.records import KeyNames
from tests.servers import ClusterSetup, wait_until

KINDS = ("kill", "freeze")
_KEYS = KeyNames.of("sojourn")


@dataclass(frozen=True)
class Fault:
    """What happened to which slots, and when; times are monotonic."""

    kind: str
    began: float
    elected: float
    ended: float
    slots: frozenset[int]

    def concerns(self, id: str) -> bool:
        """Tell whether the record of *id* was on the victim."""
        return key_slot(_KEYS.session_key(id)) in self.slots


class Failovers(threading.Thread):
    """Take *count* primaries away, with rests in between."""

    def __init__(self, setup: ClusterSetup, *, count: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.done: list[Fault] = []
        self.failure: Exception | None = None
        self._setup = setup
        self._count = count
        self._chance = random.Random(seed)

    def run(self) -> None:
        kinds: list[str] = []
        try:
            for _ in range(self._count):
                kinds = kinds or self._chance.sample(KINDS, len(KINDS))
                self._do(kinds.pop())
                time.sleep(self._chance.uniform(1.0, 2.0))
        except Exception as error:  # noqa: BLE001 - raised by whoever waits for the end
            self.failure = error

    def _do(self, kind: str) -> None:
        setup = self._setup
        victim = self._chance.choice(setup.primaries())
        slots = frozenset(setup.slots_of(victim))
        began = time.monotonic()
        victim.kill() if kind == "kill" else victim.freeze()
        setup.wait_for_failover(victim, 30.0)
        elected = time.monotonic()
        if kind == "kill":
            time.sleep(self._chance.uniform(0.5, 2.0))
            victim.restart()
        else:
            time.sleep(self._chance.uniform(0.0, 2.0))
            victim.thaw()
        wait_until(lambda: victim not in setup.primaries(), "the former primary does not follow", 30.0)
        setup.wait_until_followed(30.0)
        self.done.append(Fault(kind, began, elected, time.monotonic(), slots))
