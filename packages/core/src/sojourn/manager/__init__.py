"""The manager and what belongs to it; the only room with lifecycle logic."""

from sojourn.manager.gate import require_manager
from sojourn.manager.guarded_store import run_blocking
from sojourn.manager.manager import BlockingManager, SessionManager
from sojourn.manager.queries import SessionInfo
from sojourn.manager.request import ENVIRON_KEY, SCOPE_KEY, Exchange, SessionMapping

__all__ = [
    "ENVIRON_KEY",
    "SCOPE_KEY",
    "BlockingManager",
    "Exchange",
    "SessionInfo",
    "SessionManager",
    "SessionMapping",
    "require_manager",
    "run_blocking",
]
