"""Which replies mean that the server was the wrong one (FAILURES F13).

The one rule: such a reply says that nothing was applied, so the command may be sent once more, to the right server.
"""

from __future__ import annotations

from typing import Any, TypeGuard

from redis.exceptions import BusyLoadingError, MasterDownError, MovedError, ReadOnlyError, ResponseError

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
