"""The executable model of a store: what the contract says, in as few lines as it takes.

Its one rule: it is told the time with every call, so that it has neither clock nor memory of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from sojourn.stores.contract import Created, Deleted, Record, Replaced


@dataclass(slots=True)
class StoreModel:
    """Say what a store must answer; *records* holds the expired ones too, until they are overwritten or cleared."""

    records: dict[str, Record] = field(default_factory=dict)

    def copy(self) -> StoreModel:
        """Return an independent copy."""
        return StoreModel(dict(self.records))

    def load(self, id: str, now: float) -> Record | None:
        """Return the live record."""
        record = self.records.get(id)
        return None if record is None or record.is_expired(now) else record

    def create(self, record: Record, write_id: bytes, now: float) -> Created:
        """Store a record that is absent."""
        present = self.load(record.id, now)
        if present is not None:
            return Created.OK if write_id in present.write_ids else Created.EXISTS
        self.records[record.id] = record.written_by(write_id)
        return Created.OK

    def replace(self, record: Record, expected: int, write_id: bytes, now: float) -> Replaced:
        """Replace the record of the expected version."""
        present = self.load(record.id, now)
        if present is None:
            return Replaced.GONE
        if write_id in present.write_ids:
            return Replaced.OK
        if present.version != expected:
            return Replaced.CONFLICT
        self.records[record.id] = record.written_by(write_id, present.write_ids)
        return Replaced.OK

    def touch(self, id: str, idle_deadline: float, now: float) -> bool:
        """Move the idle deadline forwards, at most to the absolute one."""
        present = self.load(id, now)
        if present is not None:
            moved = max(present.idle_deadline, min(idle_deadline, present.absolute_deadline))
            self.records[id] = replace(present, idle_deadline=moved)
        return present is not None

    def delete(self, id: str, expected: int | None, now: float) -> Deleted:
        """Delete the live record."""
        present = self.load(id, now)
        if present is None:
            return Deleted.GONE
        if expected is not None and present.version != expected:
            return Deleted.CONFLICT
        del self.records[id]
        return Deleted.OK

    def live(self, now: float) -> set[str]:
        """Return the ids of all live records."""
        return {id for id, record in self.records.items() if not record.is_expired(now)}

    def ids_of(self, label: str, now: float) -> set[str]:
        """Return the ids of the live records with that label."""
        return {id for id in self.live(now) if self.records[id].index_label == label}
