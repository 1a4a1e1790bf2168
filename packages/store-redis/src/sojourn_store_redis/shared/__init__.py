"""The transport of the store's own connections: one for each event loop, shared by all of its tasks.

The one rule: every caller gets the reply to its own command or an error, never another's (FAILURES F17).
"""

from sojourn_store_redis.shared.blocking import HeldTransport
from sojourn_store_redis.shared.line import LineFullError, ReplyLine, StrayReplyError
from sojourn_store_redis.shared.routes import DirectRoute, Route
from sojourn_store_redis.shared.transport import SharedTransport

__all__ = [
    "DirectRoute",
    "HeldTransport",
    "LineFullError",
    "ReplyLine",
    "Route",
    "SharedTransport",
    "StrayReplyError",
]
