"""The commands of a transport, said once for both kinds of connection.

The one rule: nothing redis-py raises, and no error that the server replies, leaves from here unmapped.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from redis.exceptions import NoScriptError

from sojourn_store_redis.failures import mapped
from sojourn_store_redis.scripts import Script
from sojourn_store_redis.shared.adoption import pack
from sojourn_store_redis.shared.refusals import first_error
from sojourn_store_redis.transport import Argument


def pack_wait(
    script: Script, keys: Sequence[bytes], arguments: Sequence[Argument], replicas: int, milliseconds: int
) -> bytes:
    """Return the bytes of a script and of a WAIT for what it wrote; a script that the server may not know yet."""
    command = ("EVAL", script.source, len(keys), *keys, *arguments)
    return pack(command) + pack(("WAIT", replicas, milliseconds))


class Commands:
    """Turn calls into bytes, and replies into results or errors of the contract."""

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
        if (error := first_error(replies)) is not None:
            raise mapped(error, operation=operation, address=self.address) from error
        found: list[Any] = replies
        return found

    async def eval(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument]) -> Any:
        """Return the reply of a script, which the server is taught when it does not know it."""
        reply = await self.ask(script.name, pack(("EVALSHA", script.digest, len(keys), *keys, *arguments)))
        return await self.taught(script, keys, arguments, reply) if isinstance(reply, Exception) else reply

    async def taught(
        self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument], reply: Exception
    ) -> Any:
        """Return the reply of a script once the server was taught it, if that is what the first *reply* asked for."""
        answer: Any = reply
        if isinstance(reply, NoScriptError):
            answer = await self.ask(script.name, pack(("EVAL", script.source, len(keys), *keys, *arguments)))
        if isinstance(answer, Exception):
            raise mapped(answer, operation=script.name, address=self.address) from answer
        return answer

    async def eval_and_wait(
        self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument], replicas: int, milliseconds: int
    ) -> tuple[Any, int]:
        """Return the reply of a script, and how many replicas have confirmed it."""
        replies = await self.ask(script.name, pack_wait(script, keys, arguments, replicas, milliseconds), 2)
        reply, confirmed = (replies, 0) if isinstance(replies, Exception) else replies
        if isinstance(reply, Exception):
            raise mapped(reply, operation=script.name, address=self.address) from reply
        return reply, confirmed if isinstance(confirmed, int) else 0

    @abstractmethod
    async def ask(self, operation: str, packed: bytes, batch: int | None = None) -> Any:
        """Return the reply, which may be an error, or a list of *batch* replies."""
