"""Drive a coroutine to its end without an event loop, or in a thread beside one."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from typing import Any, Final, Protocol, TypeVar

from sojourn.errors import ConfigurationError

R = TypeVar("R")

SUSPENDED: Final = (
    "the session store suspended where nothing can await it: under WSGI and in synchronous code use a store that "
    "blocks (memory, cookie, a synchronous client), or one built from settings, which brings its blocking twin"
)


class Offload(Protocol):
    """Drive the coroutine of a BLOCKING store in a worker thread and await its result."""

    def __call__(self, work: Coroutine[Any, Any, R], /) -> Awaitable[R]:
        """Return the result of *work*."""
        ...


def run_blocking(work: Coroutine[Any, Any, R]) -> R:
    """Return the result of a coroutine that never suspends: one ``send(None)`` drives it (DESIGN 3).

    Raises ConfigurationError when it suspends: then its store needs an event loop.
    """
    try:
        work.send(None)
    except StopIteration as done:
        result: R = done.value
        return result
    work.close()
    raise ConfigurationError(SUSPENDED)
