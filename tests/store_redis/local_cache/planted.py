"""Nodes with one defect each, of the kinds that were seen in caches of this sort; the tests must find every one."""

from __future__ import annotations

from collections.abc import Sequence

from sojourn.stores import Record
from sojourn_store_redis.local_cache.cache import Reading
from sojourn_store_redis.local_cache.links import Action, Confirmed, Link, Message
from sojourn_store_redis.local_cache.protocol import Coherence
from tests.store_redis.local_cache.world import FAR, Call, Node, World, X, make_cache, primary_of


def _node(world: World, offset: float, kind: type[Coherence], tombstones: int = 1) -> Node:
    coherence = kind(make_cache(), max_staleness=X, primary_of=primary_of, most_tombstones=tombstones)
    return Node(world, coherence, (0, 1), offset)


class _NoToken(Coherence):
    def finish_read(self, id: str, reading: Reading | None, record: Record | None, now: float) -> None:
        if reading is not None and record is not None:
            self._keep(record, reading.epoch, now)


def without_token(world: World, offset: float) -> Node:
    """Keep the answer of a read although an announcement came in between."""
    return _node(world, offset, _NoToken, tombstones=0)


class _NoEpochOfReading(Coherence):
    def finish_read(self, id: str, reading: Reading | None, record: Record | None, now: float) -> None:
        if reading is not None and record is not None:
            self._copies.reading[id] = Reading(self._epoch_of(id))
            super().finish_read(id, self._copies.reading[id], record, now)


def without_epoch(world: World, offset: float) -> Node:
    """Keep the answer of a read that began before the connection was lost."""
    return _node(world, offset, _NoEpochOfReading)


class _NoFlush(Coherence):
    def _receive(self, primary: object, connection: int, message: Message, now: float) -> Sequence[Action]:
        link = self._link_of(primary)
        if isinstance(message, Confirmed) and link.fresh > 0 and link.connection == connection:
            return (self._ping(link, now),)
        return super()._receive(primary, connection, message, now)


def without_flush(world: World, offset: float) -> Node:
    """Go on with the same copies after a subscription was renewed."""
    return _node(world, offset, _NoFlush)


class _NoEpochs(Coherence):
    def _start_epoch(self, link: Link) -> None:
        pass


def without_epochs(world: World, offset: float) -> Node:
    """Go on with the same copies after a connection was lost."""
    return _node(world, offset, _NoEpochs)


class _LateLink(Link):
    __slots__ = ()

    def answered(self, nonce: bytes, now: float) -> bool:
        known = super().answered(nonce, now)
        if known:
            self.fresh = max(self.fresh, now)
        return known


class _LeaseOfReceipt(Coherence):
    def _link_of(self, primary: object) -> Link:
        if primary not in self._links:
            self._epochs += 1
            self._links[primary] = _LateLink(self._epochs)
        return self._links[primary]


def with_lease_of_receipt(world: World, offset: float) -> Node:
    """Count the lease from when the pong came."""
    return _node(world, offset, _LeaseOfReceipt)


class _CachedAbsence(Coherence):
    def finish_read(self, id: str, reading: Reading | None, record: Record | None, now: float) -> None:
        super().finish_read(id, reading, record or Record(id, 0, b"0", FAR, FAR), now)


def with_cached_absence(world: World, offset: float) -> Node:
    """Remember that a record was absent."""
    return _node(world, offset, _CachedAbsence)


class _NodeThatKeepsRepeats(Node):
    def finish(self, call: Call, *, is_repeat: bool = False) -> None:
        super().finish(call)


def with_kept_repeats(world: World, offset: float) -> Node:
    """Keep what an own write stored although the answer only says that it was stored once."""
    coherence = Coherence(make_cache(), max_staleness=X, primary_of=primary_of, most_tombstones=1)
    return _NodeThatKeepsRepeats(world, coherence, (0, 1), offset)


class _NodeWithOneKey(Node):
    def key(self, primary: int) -> object:
        return None


def with_one_subscriber(world: World, offset: float) -> Node:
    """Listen to one primary of two, trusting that it relays what the other one says."""
    return _NodeWithOneKey(world, Coherence(make_cache(), max_staleness=X, most_tombstones=1), (0,), offset)


class _NoTombstones(Coherence):
    def finish_write(self, id: str, writing: object, record: Record | None, now: float) -> None:
        if record is not None:
            self._copies.cache.put(record, self._epoch_of(id), now)


def without_tombstones(world: World, offset: float) -> Node:
    """Keep what an own write stored whatever was announced meanwhile."""
    return _node(world, offset, _NoTombstones)


PLANTED = (
    without_token,
    without_epoch,
    without_flush,
    without_epochs,
    with_lease_of_receipt,
    with_cached_absence,
    with_kept_repeats,
    with_one_subscriber,
    without_tombstones,
)
