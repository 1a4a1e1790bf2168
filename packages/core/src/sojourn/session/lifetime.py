"""When a session ends, and how much later an access lets it end (SECURITY R10).

Its one rule: the absolute deadline never moves, but where settings became stricter since.
"""

from __future__ import annotations

from sojourn.session.change import Limits
from sojourn.session.payload import Payload
from sojourn.stores import Record


def deadlines(limits: Limits, facts: Payload, record: Record | None, now: float) -> tuple[float, float]:
    """Return the idle and the absolute deadline of what is written *now* over *record*, which it goes on with."""
    lifetime = facts.lifetime
    absolute = facts.created_at + (limits.absolute_timeout if lifetime is None else lifetime)
    if record is not None:
        absolute = min(absolute, record.absolute_deadline)
    return min(now + (limits.idle_timeout if lifetime is None else lifetime), absolute), absolute


def touch_share(limits: Limits, facts: Payload) -> float:
    """Return by how many seconds an access has to move the idle deadline before it is worth a call of the store."""
    lifetime = facts.lifetime
    return limits.touch_after if lifetime is None else limits.touch_after * lifetime / limits.idle_timeout
