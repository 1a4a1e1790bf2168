"""A slot on its way from one primary to another."""

from __future__ import annotations

from typing import Self

from redis.crc import key_slot

from tests.servers import ClusterSetup, RedisServer, wait_until
from tests.store_redis.cluster.conftest import other_than


class Move:
    """A slot that goes from one primary to another, and back at the end."""

    def __init__(self, setup: ClusterSetup, key: bytes) -> None:
        self.setup = setup
        self.slot = key_slot(key)
        self.source: RedisServer = setup.primary_of(key)
        self.target: RedisServer = other_than(setup, self.source)

    def __enter__(self) -> Self:
        return self

    def begin(self) -> None:
        self.setup.begin_to_move(self.slot, self.source, self.target)

    def move_keys(self) -> int:
        return self.setup.move_keys(self.slot, self.source, self.target)

    def end(self) -> None:
        self.setup.end_move(self.slot, self.source, self.target)

    def whole(self) -> None:
        self.begin()
        self.move_keys()
        self.end()

    def __exit__(self, *_: object) -> None:
        self.setup.flush()
        for node in (self.source, self.target):
            node.command("CLUSTER", "SETSLOT", self.slot, "STABLE")
        if self.setup.server_of(self.slot, self.source) is not self.source:
            self.setup.begin_to_move(self.slot, self.target, self.source)  # without it, the way back has no epoch
            self.setup.end_move(self.slot, self.target, self.source)
        wait_until(
            lambda: all(self.setup.server_of(self.slot, node) is self.source for node in self.setup.nodes),
            "the slot does not come back",
        )
