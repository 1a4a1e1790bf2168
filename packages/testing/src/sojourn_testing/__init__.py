"""What tests of sojourn, of its plugins and of applications need; also to be had as ``sojourn.testing``.

Names are imported when they are first used: only the suites need hypothesis, which ``sojourn-testing[suite]`` brings.
Nothing here waits for real time, except a suite that was told that its store expires records by itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sojourn_testing.adapters import AdapterSuite
    from sojourn_testing.browser import Browser, Reply, client
    from sojourn_testing.clients import session_of
    from sojourn_testing.fakes import (
        FakeClock,
        Fault,
        FaultyStore,
        RecordingMetrics,
        RecordingObserver,
        make_id,
        make_label,
        make_record,
        make_write_id,
    )
    from sojourn_testing.model import CLIENT_SIDE_RULES, STORE_RULES, RuleViolationError
    from sojourn_testing.suite import ClientSideStoreSuite, StoreSuite

__all__ = [
    "CLIENT_SIDE_RULES",
    "STORE_RULES",
    "AdapterSuite",
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
    "session_of",
]

_MODULES: Final = {
    "CLIENT_SIDE_RULES": "model",
    "STORE_RULES": "model",
    "AdapterSuite": "adapters",
    "Browser": "browser",
    "ClientSideStoreSuite": "suite",
    "FakeClock": "fakes",
    "Fault": "fakes",
    "FaultyStore": "fakes",
    "RecordingMetrics": "fakes",
    "RecordingObserver": "fakes",
    "Reply": "browser",
    "RuleViolationError": "model",
    "StoreSuite": "suite",
    "client": "browser",
    "make_id": "fakes",
    "make_label": "fakes",
    "make_record": "fakes",
    "make_write_id": "fakes",
    "session_of": "clients",
}
"""The module of each public name."""


def __getattr__(name: str) -> object:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{module}"), name)
    except ModuleNotFoundError as error:
        if error.name == "hypothesis":
            error.msg = f'{name} needs hypothesis: pip install "sojourn-testing[suite]"'
        raise


def __dir__() -> list[str]:
    return sorted(__all__)
