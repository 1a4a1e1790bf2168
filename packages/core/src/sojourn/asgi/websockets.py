"""Close the WebSockets of sessions that have ended: revoked or logged out on any node, or past their time.

From the moment at which the end is known the application neither gets nor sends a message any more.
"""

from __future__ import annotations

import logging
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from sojourn.adapters import hears_of_every_end, is_client_side, look_up, require_manager
from sojourn.asgi.session import Application, Message, Receive, Scope, Send
from sojourn.crypto import token_id
from sojourn.manager import SessionManager
from sojourn.session.session import state_of
from sojourn.session.transitions import LoadOutcome

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_log: Final = logging.getLogger("sojourn.asgi")

_POLICY_VIOLATION: Final = 1008  # RFC 6455 7.4.1
_LOOK_EVERY: Final = 30.0
"""Seconds between two looks at a session whose end no store announces."""
_AFTER_AN_OUTAGE: Final = 5.0
_SHORTEST: Final = 0.5
_LOOKS_A_SECOND: Final = 2000.0
"""How fast all sessions are looked up again when a link is back."""


class SessionEndedError(OSError):
    """What an application gets that sends to a WebSocket whose session has ended; ASGI has it be an OSError."""


class RevocationMiddleware:
    """Close a WebSocket with *code* once the session that it was opened with has ended. Stands inside SessionMiddleware.

    Where the store announces (``clustered-redis``, and one process with ``memory``) that is at once; with other stores
    the session is looked up every 30 seconds. A session whose idle timeout passes has ended, too: a WebSocket alone does
    not use it. During an outage sockets stay open. Those opened without a session are left alone.
    """

    def __init__(self, app: Application, sessions: SessionManager[Any], *, code: int = _POLICY_VIOLATION) -> None:
        require_manager(sessions)
        self.app = app
        self.sessions = sessions
        self.code = code
        self._watches: dict[str, set[_Watch]] = {}
        self._stop: Callable[[], None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "websocket":
            await self.app(scope, receive, send)
            return
        if self._stop is None:
            self._stop = self.sessions.on_revoked(self._end, on_doubt=self._doubt, only=lambda id: id in self._watches)
        draft = state_of(await self.sessions.get(scope))
        watch = _Watch(self, receive, send)

        async def send_wrapped(message: Message) -> None:
            await watch.send(message)
            if message["type"] == "websocket.accept" and draft.id is not None and draft.token is not None:
                watch.start(draft.token)
            elif message["type"] == "websocket.close":
                await watch.stop()

        try:
            await self.app(scope, watch.receive, send_wrapped)
        except SessionEndedError:
            if not watch.ended:
                raise
        finally:
            await watch.stop()

    def enter(self, id: str, watch: _Watch) -> None:
        """Let *watch* know when the session of that id ends."""
        self._watches.setdefault(id, set()).add(watch)

    def leave(self, id: str, watch: _Watch) -> None:
        """Undo ``enter``."""
        watches = self._watches.get(id, set())
        watches.discard(watch)
        if not watches:
            self._watches.pop(id, None)

    def _end(self, id: str) -> None:
        for watch in list(self._watches.get(id, ())):
            watch.end()

    def _doubt(self) -> None:
        watches = {watch for each in list(self._watches.values()) for watch in list(each)}
        for number, watch in enumerate(watches):
            watch.look(number / _LOOKS_A_SECOND)


class _Watch:
    """One open WebSocket."""

    def __init__(self, middleware: RevocationMiddleware, receive: Receive, send: Send) -> None:
        import asyncio

        self.ended = False
        self._is_told = False
        self._middleware = middleware
        self._receive = receive
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._receiving: asyncio.Task[Message] | None = None
        self._ids: list[str] = []

    def start(self, token: str) -> None:
        """Begin to watch; the connection was accepted."""
        self._task = self._loop.create_task(self._run(token))

    async def stop(self) -> None:
        """End, whatever is going on."""
        import asyncio

        for task in (self._task, self._receiving):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait([task])
        self._task = self._receiving = None
        for id_ in self._ids:
            self._middleware.leave(id_, self)

    def end(self) -> None:
        """Note that the session has ended; called in any thread."""
        self._is_told = True
        self._wake(self._woken.set)

    def look(self, delay: float) -> None:
        """Have the session looked up after *delay* seconds; called in any thread."""
        self._wake(lambda: self._loop.call_later(delay, self._woken.set))

    def _wake(self, call: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop is closed: so is the connection
            self._loop.call_soon_threadsafe(call)

    async def send(self, message: Message) -> None:
        """Pass a message on, unless the session has ended."""
        if self.ended:
            raise SessionEndedError("the session of this WebSocket has ended, and with it the connection")
        await self._send(message)

    async def receive(self) -> Message:
        """Return the next message; the end of the session is the end of the connection."""
        import asyncio

        if self._task is None:
            return await self._receive()
        if self._receiving is None:
            self._receiving = asyncio.ensure_future(self._receive())
        over = self._loop.create_task(self._over.wait())
        try:
            await asyncio.wait([self._receiving, over], return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
        if self.ended:
            return {"type": "websocket.disconnect", "code": self._middleware.code, "reason": "session ended"}
        received, self._receiving = self._receiving, None
        return received.result()

    async def _run(self, token: str) -> None:
        try:
            await self._wait_for_the_end(token)
        except Exception:  # noqa: BLE001 - a socket that nobody watches must not stay open
            _log.exception("a WebSocket is closed, for its session could not be watched")
        self.ended = True
        self._over.set()
        with suppress(Exception):  # the client has gone meanwhile
            await self._send({"type": "websocket.close", "code": self._middleware.code, "reason": "session ended"})

    async def _wait_for_the_end(self, token: str) -> None:
        import asyncio

        sessions = self._middleware.sessions
        if not is_client_side(sessions):
            self._enter(token_id(token))
        while not self._is_told:
            self._woken.clear()
            found = await look_up(sessions, token)
            pause = self._longest_pause()
            if found.outcome is LoadOutcome.UNAVAILABLE:
                pause = min(pause, _AFTER_AN_OUTAGE)
            elif found.id is None:
                return
            else:
                if self._enter(found.id):
                    continue  # it may have ended before anybody would have told us
                pause = min(pause, max(_SHORTEST, found.seconds))
            with suppress(TimeoutError):
                async with asyncio.timeout(None if pause == math.inf else pause):
                    await self._woken.wait()

    def _enter(self, id: str) -> bool:
        """Ask to be told of this id; tell whether it is a new one, as after a renewal."""
        if id in self._ids:
            return False
        self._ids.append(id)
        self._middleware.enter(id, self)
        return True

    def _longest_pause(self) -> float:
        """Return how long nobody need look: a store that announces is believed, but it names no renewal."""
        sessions = self._middleware.sessions
        pause = math.inf if hears_of_every_end(sessions) else _LOOK_EVERY
        if sessions.settings.renew_after is not None:
            pause = min(pause, max(_SHORTEST, sessions.settings.renew_grace.total_seconds() / 2))
        return pause
