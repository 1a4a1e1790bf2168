"""What redis-py raises, said in the words of the store's contract.

The one rule: a message names the operation and the address, never an argument; replies that quote arguments are cut
down to their code (SECURITY R6).
"""

from __future__ import annotations

from redis.exceptions import AskError, MovedError, RedisClusterException, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from sojourn.errors import StoreTimeoutError, StoreUnavailableError

CLIENT_ERRORS = (RedisError, RedisClusterException, OSError)
"""Everything a client raises; the builtin TimeoutError is an OSError, RedisClusterException is no RedisError."""


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
