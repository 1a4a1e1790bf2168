"""What tests of sojourn, of its plugins and of applications need; install ``sojourn[testing]`` for the suites.

The one rule: nothing here waits for real time, except a suite told that its store expires records by itself.
Names are loaded when they are used, so that the fakes need neither hypothesis nor pytest.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sojourn.testing.browser import Browser, client
    from sojourn.testing.client_side import ClientSideStoreSuite
    from sojourn.testing.clocks import FakeClock
    from sojourn.testing.faults import Fault, FaultyStore
    from sojourn.testing.recorders import RecordingMetrics, RecordingObserver
    from sojourn.testing.records import make_id, make_label, make_record, make_write_id
    from sojourn.testing.replies import Reply
    from sojourn.testing.rules import CLIENT_SIDE_RULES, STORE_RULES, RuleViolationError
    from sojourn.testing.suite import StoreSuite

__all__ = [
    "CLIENT_SIDE_RULES",
    "STORE_RULES",
    "Browser",
    "ClientSideStoreSuite",
    "FakeClock",
    "Fault",
    "FaultyStore",
    "RecordingMetrics",
    "RecordingObserver",
    "Reply",
    "RuleViolationError",
    "StoreSuite",
    "client",
    "make_id",
    "make_label",
    "make_record",
    "make_write_id",
]

_ROOMS = {
    "CLIENT_SIDE_RULES": "rules",
    "STORE_RULES": "rules",
    "Browser": "browser",
    "ClientSideStoreSuite": "client_side",
    "FakeClock": "clocks",
    "Fault": "faults",
    "FaultyStore": "faults",
    "RecordingMetrics": "recorders",
    "RecordingObserver": "recorders",
    "Reply": "replies",
    "RuleViolationError": "rules",
    "StoreSuite": "suite",
    "client": "browser",
    "make_id": "records",
    "make_label": "records",
    "make_record": "records",
    "make_write_id": "records",
}


def __getattr__(name: str) -> object:
    room = _ROOMS.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{room}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
