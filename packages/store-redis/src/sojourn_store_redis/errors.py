"""What redis-py raises, said in the words of the store's contract.

The one rule: a message names the operation and the address, never an argument; replies that quote arguments are cut
down to their code (SECURITY R6).
"""

from __future__ import annotations

from typing import Any, TypeGuard

from redis.exceptions import (
    AskError,
    BusyLoadingError,
    MasterDownError,
    MovedError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from sojourn.errors import StoreTimeoutError, StoreUnavailableError

CLIENT_ERRORS = (RedisError, RedisClusterException, OSError)
"""Everything a client raises; the builtin TimeoutError is an OSError, RedisClusterException is no RedisError."""


class LineFullError(RedisError):
    """So many callers are waiting that one more would wait in vain."""


class StrayReplyError(RedisError):
    """A reply came that nobody had asked for: from here on nobody knows whose the replies are."""


def mapped(error: Exception, *, operation: str, address: str) -> StoreUnavailableError:
    """Return what to raise from *error*: StoreTimeoutError when the effect is unknown, else StoreUnavailableError."""
    if isinstance(error, RedisTimeoutError | TimeoutError):
        return StoreTimeoutError(
            f"redis at {address} did not answer {operation} in time; whether it took effect is unknown, "
            "try again with the same write id"
        )
    return StoreUnavailableError(f"redis at {address} could not do {operation}: {_reason(error)}; try again later")


def _reason(error: Exception) -> str:
    kind = type(error).__name__
    if isinstance(error, MovedError | AskError):
        return f"{kind}, as from a node of a Redis Cluster, whose SOJOURN_REDIS_URL begins with redis+cluster://"
    if not isinstance(error, ResponseError):
        return f"{kind}: {error}"
    code = str(error).split(" ", 1)[0].rstrip(":")
    return f"{kind} {code}" if code.isupper() else kind


_KINDS = (ReadOnlyError, BusyLoadingError, MasterDownError, MovedError)
_WORDS = ("NOREPLICAS", "WAIT cannot be used with replica")


def is_refusal(reply: object) -> bool:
    """Tell whether *reply* says that another server, or this one later, is the one to ask."""
    if isinstance(reply, Exception):
        return isinstance(reply, _KINDS) or (isinstance(reply, ResponseError) and str(reply).startswith(_WORDS))
    if _is_list(reply):  # of commands that were sent together: only when nothing at all was applied
        return bool(reply) and all(isinstance(each, Exception) and is_refusal(each) for each in reply)
    return False


def first_error(reply: object) -> Exception | None:
    """Return the error that a reply is, or that is among the replies to commands that were sent together."""
    if isinstance(reply, Exception):
        return reply
    if _is_list(reply):
        return next((each for each in reply if isinstance(each, Exception)), None)
    return None


def _is_list(reply: object) -> TypeGuard[list[Any]]:
    return isinstance(reply, list)
