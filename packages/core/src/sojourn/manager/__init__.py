"""The manager of an application's sessions: the lifecycle logic, from opening to committing."""

from sojourn.manager.guarded_store import run_blocking
from sojourn.manager.health import Health, HealthState, Inspection, ServerHealth
from sojourn.manager.manager import BlockingManager, SessionManager
from sojourn.manager.nodes import Node
from sojourn.manager.queries import Page, SessionInfo

__all__ = [
    "BlockingManager",
    "Health",
    "HealthState",
    "Inspection",
    "Node",
    "Page",
    "ServerHealth",
    "SessionInfo",
    "SessionManager",
    "run_blocking",
]
