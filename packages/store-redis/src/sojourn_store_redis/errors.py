"""Errors of redis-py and replies of the server, mapped to the errors of the store contract.

Messages name the operation and the address, never an argument; replies that may quote arguments are cut down to their
code (SECURITY R6).
"""

from __future__ import annotations

import re
from socket import gaierror
from ssl import SSLError
from typing import Any, cast

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from sojourn.errors import StoreTimeoutError, StoreUnavailableError

CLIENT_ERRORS = (RedisError, RedisClusterException, OSError)
"""All that redis-py raises; the built-in TimeoutError is an OSError, RedisClusterException is no RedisError."""


class QueueFullError(RedisError):
    """As many callers wait for replies as one connection allows."""


class StrayReplyError(RedisError):
    """A reply arrived without a command: replies can no longer be matched to callers."""


class WrongTypeError(StoreUnavailableError):
    """The key holds another type than all that the store writes: somebody else wrote it, so it is damage (SECURITY R50)."""


def mapped(error: Exception, *, operation: str, address: str) -> StoreUnavailableError:
    """Return the store error for *error*: StoreTimeoutError when the effect is unknown, else StoreUnavailableError."""
    if isinstance(error, RedisTimeoutError | TimeoutError):
        return StoreTimeoutError(
            f"redis at {address} did not answer {operation} in time; whether it took effect is unknown, "
            "try again with the same write id"
        )
    make = WrongTypeError if is_wrong_type(error) else StoreUnavailableError
    return make(
        f"redis at {address} could not do {operation}: {reason_of(error)}; try again later", kind=kind_of(error)
    )


_DENIED_IN_SCRIPT = ("ACL failure in script", "The user executing the script can't")
"""How replies of Redis and of Valkey begin to a script that does what its user may not."""
_DENIED = re.compile(r"'([a-z|]+)' command")
_BY_CLASS: tuple[tuple[type[BaseException], str], ...] = (
    (ReadOnlyError, "read-only"),
    (BusyLoadingError, "loading"),
    (OutOfMemoryError, "out of memory"),
    (MasterDownError, "no master"),
    (ClusterDownError, "cluster down"),
    (AuthenticationError, "auth"),
    (AuthenticationWrongNumberOfArgsError, "auth"),
    (QueueFullError, "queue full"),
    (AskError, "wrong server"),
    (MovedError, "wrong server"),
)
_BY_CODE = (
    ("NOREPLICAS", "too few replicas"),
    ("NOAUTH", "auth"),
    ("WRONGPASS", "auth"),
    ("DB index is out of range", "wrong server"),
    ("This instance has cluster support disabled", "wrong server"),
    ("unknown command", "wrong server"),
)
_BY_CAUSE: tuple[tuple[type[BaseException], str], ...] = (
    (ConnectionRefusedError, "refused"),
    (gaierror, "name not found"),
    (SSLError, "tls"),
    (TimeoutError, "timeout"),
)


def kind_of(error: Exception) -> str:
    """Return in a word or two what is the matter, as the server or the system said it (FAILURES F26)."""
    text = str(error)
    if isinstance(error, NoPermissionError) or text.startswith(_DENIED_IN_SCRIPT):
        command = _DENIED.search(text)
        return f"denied: {command[1]}" if command else "denied"
    for kind, name in _BY_CLASS:
        if isinstance(error, kind):
            return name
    if isinstance(error, ResponseError):
        return next((name for code, name in _BY_CODE if text.startswith(code)), "refused by the server")
    cause: BaseException | None = error
    while cause is not None:
        for kind, name in _BY_CAUSE:
            if isinstance(cause, kind):
                return name
        cause = cause.__cause__ or cause.__context__
    return "connection lost"


def is_wrong_type(reply: object) -> bool:
    """Tell whether *reply* says that the key holds another type than the command is for."""
    return isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE")


def reason_of(error: Exception) -> str:
    """Return what the server or the system said, without what it may quote of the arguments (SECURITY R6)."""
    kind = type(error).__name__
    if isinstance(error, MovedError | AskError):
        return f"{kind}, as from a node of a Redis Cluster, whose SOJOURN_REDIS_URL begins with redis+cluster://"
    if not isinstance(error, ResponseError):
        return f"{kind}: {error}"
    code = str(error).split(" ", 1)[0].rstrip(":")
    return f"{kind} {code}" if code.isupper() else kind


_KINDS = (ReadOnlyError, BusyLoadingError, MasterDownError, MovedError)
_PREFIXES = ("NOREPLICAS", "WAIT cannot be used with replica")


def is_refusal(reply: object) -> bool:
    """Tell whether *reply* is from a server that takes no writes now (F13): nothing was applied, another may be asked."""
    if isinstance(reply, Exception):
        return isinstance(reply, _KINDS) or (isinstance(reply, ResponseError) and str(reply).startswith(_PREFIXES))
    # a batch may be sent again only if none of its commands was applied
    if isinstance(reply, list):
        replies = cast("list[object]", reply)
        return bool(replies) and all(isinstance(each, Exception) and is_refusal(each) for each in replies)
    return False


def settled_batch(reply: Any, *, operation: str, address: str) -> list[Any]:
    """Return the replies of a batch; raise the first error in it, or what the whole batch ended in.

    A key of another type is no failure of the batch: a WrongTypeError stands in the place of its reply.
    """
    replies: list[Any] = [reply] if isinstance(reply, Exception) else reply
    if not any(isinstance(each, Exception) for each in replies):
        return replies
    for each in replies:
        if isinstance(each, Exception) and not is_wrong_type(each):
            raise mapped(each, operation=operation, address=address) from each
    return [
        mapped(each, operation=operation, address=address) if isinstance(each, Exception) else each for each in replies
    ]
