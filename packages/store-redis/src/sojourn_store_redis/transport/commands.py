"""What a store needs of a transport, and the commands that both kinds of connection have in common.

Every error of redis-py and every error reply is mapped to an error of the store contract. No connection is used by two
processes or two event loops (FAILURES F21).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from redis.exceptions import NoScriptError

from sojourn.stores import StoreIO
from sojourn_store_redis.errors import mapped, settled_batch
from sojourn_store_redis.scripts import Script
from sojourn_store_redis.transport.connection import pack

Argument = bytes | str | int | float


@runtime_checkable
class Transport(Protocol):
    """Carry commands to the server that holds the records.

    Every method raises StoreUnavailableError or StoreTimeoutError, and CancelledError when it is cancelled; then the
    reply is never given to anybody else.
    """

    io: StoreIO
    address: str
    """Host and port, or the path of the socket; for messages, so without credentials."""

    async def execute(self, *command: Argument) -> Any:
        """Return the reply to one command."""
        ...

    async def execute_many(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Return the replies to several commands that were sent together; nothing else is atomic about them.

        Where a key holds another type than its command is for, a WrongTypeError stands in the place of the reply.
        """
        ...

    async def eval(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument]) -> Any:
        """Return the reply of a script, which is sent whole when the server does not know its digest."""
        ...

    async def aclose(self) -> None:
        """Release idle connections; the next call opens new ones."""


@runtime_checkable
class ShardedTransport(Transport, Protocol):
    """Carry commands to several servers, each of which holds some of the keys."""

    @property
    def generation(self) -> int:
        """A number that rises whenever keys have moved to another server."""
        ...

    def server_of(self, key: bytes) -> str:
        """Return the name of the server that holds *key*, without I/O; empty while it is not known."""
        ...

    async def servers(self) -> Sequence[Transport]:
        """Return a transport to each server, for commands without a key."""
        ...


def pack_wait(
    script: Script, keys: Sequence[bytes], arguments: Sequence[Argument], replicas: int, milliseconds: int
) -> bytes:
    """Return the bytes of a script, sent whole because the server may not know it, and of a WAIT for its writes."""
    command = ("EVAL", script.source, len(keys), *keys, *arguments)
    return pack(command) + pack(("WAIT", replicas, milliseconds))


class Commands:
    """The methods of a transport, over ``ask``, which sends bytes and returns replies."""

    def __init__(self, address: str) -> None:
        self.address = address

    async def execute(self, *command: Argument) -> Any:
        """Return the reply to one command."""
        reply = await self.ask(str(command[0]), pack(command))
        if isinstance(reply, Exception):
            raise mapped(reply, operation=str(command[0]), address=self.address) from reply
        return reply

    async def execute_many(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Return the replies to several commands that were sent together."""
        if not commands:
            return []
        operation = f"{commands[0][0]!s} x {len(commands)}"
        replies = await self.ask(operation, b"".join(pack(tuple(each)) for each in commands), len(commands))
        return settled_batch(replies, operation=operation, address=self.address)

    async def eval(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument]) -> Any:
        """Return the reply of a script, which is sent whole when the server does not know its digest."""
        reply = await self.ask(script.name, pack(("EVALSHA", script.digest, len(keys), *keys, *arguments)))
        return await self.eval_source(script, keys, arguments, reply) if isinstance(reply, Exception) else reply

    async def eval_source(
        self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument], reply: Exception
    ) -> Any:
        """Return the reply of a script that is sent whole if *reply* says that the server does not know it."""
        answer: Any = reply
        if isinstance(reply, NoScriptError):
            answer = await self.ask(script.name, pack(("EVAL", script.source, len(keys), *keys, *arguments)))
        if isinstance(answer, Exception):
            raise mapped(answer, operation=script.name, address=self.address) from answer
        return answer

    async def eval_and_wait(
        self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument], replicas: int, milliseconds: int
    ) -> tuple[Any, int]:
        """Return the reply of a script, and how many replicas have confirmed its writes."""
        replies = await self.ask(script.name, pack_wait(script, keys, arguments, replicas, milliseconds), 2)
        reply, confirmed = (replies, 0) if isinstance(replies, Exception) else replies
        if isinstance(reply, Exception):
            raise mapped(reply, operation=script.name, address=self.address) from reply
        return reply, confirmed if isinstance(confirmed, int) else 0

    @abstractmethod
    async def ask(self, operation: str, packed: bytes, batch: int | None = None) -> Any:
        """Send *packed* and return the reply, which may be an error, or a list of *batch* replies."""
