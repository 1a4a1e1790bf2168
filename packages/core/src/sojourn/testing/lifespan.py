"""How a server tells an ASGI application that it starts and stops.

Its one rule: an application without lifespan is left alone; one that says that it failed fails the test.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio


class Lifespan:
    """The lifespan of *app*, in the event loop that is running."""

    def __init__(self, app: Callable[..., Any]) -> None:
        import asyncio

        self._app = app
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._outbox: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Send ``lifespan.startup``. RuntimeError when the application says that it failed."""
        import asyncio

        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
        self._task = asyncio.ensure_future(self._app(scope, self._inbox.get, self._outbox.put))
        await self._exchange("startup")

    async def stop(self) -> None:
        """Send ``lifespan.shutdown``, and wait for the application to end. RuntimeError as for ``start``."""
        task = self._task
        if task is not None:
            if not task.done():
                await self._exchange("shutdown")
            if not task.done():
                await task

    async def _exchange(self, phase: str) -> None:
        import asyncio

        task = self._task
        if task is None:
            return
        await self._inbox.put({"type": f"lifespan.{phase}"})
        answer = asyncio.ensure_future(self._outbox.get())
        await asyncio.wait({answer, task}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            if phase == "startup":
                task.exception()  # looked at: an application may refuse a lifespan by raising
            return
        message = answer.result()
        if message["type"] == f"lifespan.{phase}.failed":
            raise RuntimeError(f"the application failed at {phase}: {message.get('message', '')}")
