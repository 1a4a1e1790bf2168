"""The manager and what belongs to it; the only room with lifecycle logic."""

from sojourn.manager.blocking import BlockingManager
from sojourn.manager.driving import run_blocking
from sojourn.manager.exchange import ENVIRON_KEY, SCOPE_KEY, Exchange
from sojourn.manager.gate import require_manager
from sojourn.manager.manager import SessionManager
from sojourn.manager.mapping import SessionMapping
from sojourn.manager.queries import SessionInfo

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
