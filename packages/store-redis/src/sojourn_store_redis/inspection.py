"""The look at the server that follows the first answer it gives (FAILURES F14, F24).

The one rule: it warns and never fails; a server that is down at start-up is asked when it is back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

from sojourn.errors import StoreUnavailableError
from sojourn_store_redis.scripts import Script
from sojourn_store_redis.transport import Argument, SpreadTransport, Transport

_log = logging.getLogger("sojourn_store_redis")


class InspectedTransport:
    """A transport that, once it works, asks the server whether it evicts sessions.

    *on_inspected* is called when it begins to ask: from then on the *transport* alone will do.
    """

    def __init__(self, transport: Transport, *, on_inspected: Callable[[], None]) -> None:
        self.io = transport.io
        self.address = transport.address
        self._transport = transport
        self._is_inspected = False
        self._on_inspected = on_inspected

    async def execute(self, *command: Argument) -> Any:
        """Return the reply to one command."""
        reply = await self._transport.execute(*command)
        if not self._is_inspected:
            await self._inspect()
        return reply

    async def execute_many(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Return the replies to several commands."""
        return await self._transport.execute_many(commands)

    async def eval(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument]) -> Any:
        """Return the reply of a script."""
        reply = await self._transport.eval(script, keys, arguments)
        if not self._is_inspected:
            await self._inspect()
        return reply

    async def aclose(self) -> None:
        """Release idle connections."""
        await self._transport.aclose()

    async def _inspect(self) -> None:
        self._is_inspected = True
        self._on_inspected()
        with suppress(StoreUnavailableError):  # it may be forbidden here; then there is nothing to say
            transport = self._transport
            for server in await transport.servers() if isinstance(transport, SpreadTransport) else (transport,):
                policy = _policy_in(await server.execute("INFO", "memory"))
                if policy not in {"", "noeviction"}:
                    _log.warning(
                        "redis at %s evicts keys when its memory is full (maxmemory-policy %s): sessions would end "
                        "early; set maxmemory-policy noeviction there",
                        server.address,
                        policy,
                    )


def _policy_in(reply: object) -> str:
    """Find the policy in the reply to INFO, which redis-py has parsed and other transports have not."""
    if isinstance(reply, Mapping):
        return str(cast("Mapping[str, object]", reply).get("maxmemory_policy", ""))
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else str(reply)
    _, _, rest = text.partition("maxmemory_policy:")
    return rest.split(maxsplit=1)[0] if rest.strip() else ""
