"""The store over a transport of the test's own: what a server does rarely, and that the seam holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from sojourn.errors import StoreTimeoutError
from sojourn.stores import Deleted, Replaced, StoreIO
from sojourn.testing import FakeClock, make_id, make_label, make_record, make_write_id
from sojourn_store_redis import RedisStore
from sojourn_store_redis.records import pack
from sojourn_store_redis.scripts import DELETE, REPLACE, UNINDEX, Script
from sojourn_store_redis.transport.commands import Transport
from sojourn_testing.bench import Driver

W1 = make_write_id(1)


class Scripted:
    """Answer by a table; raise what is an exception."""

    io = StoreIO.BLOCKING
    address = "nowhere:1"

    def __init__(self, **replies: Any) -> None:
        self.replies = {"INFO": {}, **replies}
        self.asked: list[str] = []
        self.is_closed = False

    def _answer(self, name: str) -> Any:
        self.asked.append(name)
        reply = self.replies[name]
        if isinstance(reply, list):
            reply = reply.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def execute(self, *command: Any) -> Any:
        return self._answer(str(command[0]))

    async def execute_many(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        return [pack(make_record(index_label=make_label()), W1) for _ in commands]

    async def eval(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Any]) -> Any:
        assert all(isinstance(key, bytes) for key in keys)
        return self._answer(script.name)

    async def aclose(self) -> None:
        self.is_closed = True


def _ask(transport: Scripted, call: str, *arguments: Any, **options: Any) -> Any:
    store = RedisStore(transport, clock=FakeClock())
    with Driver() as driver:
        if call == "scan":
            return driver.collect(store.scan(), store.io)
        return driver.run(getattr(store, call)(*arguments, **options), store.io)


def test_the_store_takes_any_transport() -> None:
    transport = Scripted(GET=None)
    assert isinstance(transport, Transport)
    assert _ask(transport, "load", make_id()) is None
    _ask(transport, "aclose")
    assert transport.is_closed


def test_an_id_that_the_server_repeats_while_it_rehashes_is_yielded_once() -> None:
    key = b"sojourn:session:" + make_id().encode()
    transport = Scripted(SCAN=[(b"7", [key, key]), (b"9", []), (b"0", [key])])
    assert _ask(transport, "scan") == [make_id()]


@pytest.mark.parametrize("script", [DELETE.silent, REPLACE.silent])
def test_a_write_that_is_done_is_not_reported_lost_because_the_index_could_not_be_tidied(script: Script) -> None:
    transport = Scripted(**{script.name: make_label().encode(), UNINDEX.name: StoreTimeoutError("late")})
    if script is DELETE.silent:
        assert _ask(transport, "delete", make_id()) is Deleted.OK
    else:
        assert _ask(transport, "replace", make_record(), expected=1, write_id=W1) is Replaced.OK
    assert UNINDEX.name in transport.asked


@pytest.mark.parametrize(
    "reply",
    [
        {"maxmemory_policy": "allkeys-lfu"},
        b"# Memory\r\nused_memory:1\r\nmaxmemory_policy:allkeys-lfu\r\nmem_x:1\r\n",
        "# Memory\r\nmaxmemory_policy:allkeys-lfu",
    ],
)
def test_f14_the_policy_is_found_in_every_form_of_the_reply(reply: object, caplog: pytest.LogCaptureFixture) -> None:
    _ask(Scripted(GET=None, INFO=reply), "load", make_id())
    assert "allkeys-lfu" in caplog.text


@pytest.mark.parametrize("reply", [{}, b"", b"maxmemory_policy:", b"maxmemory_policy:noeviction\r\n", None])
def test_f14_a_reply_without_an_evicting_policy_is_silent(reply: object, caplog: pytest.LogCaptureFixture) -> None:
    _ask(Scripted(GET=None, INFO=reply), "load", make_id())
    assert caplog.text == ""


def test_f14_the_server_is_asked_after_its_first_answer_and_once() -> None:
    transport = Scripted(GET=[StoreTimeoutError("late"), None, None], INFO={})
    store = RedisStore(transport, clock=FakeClock())
    with Driver() as driver:
        with pytest.raises(StoreTimeoutError):
            driver.run(store.load(make_id()), store.io)
        assert transport.asked == ["GET"]
        driver.run(store.load(make_id()), store.io)
        driver.run(store.load(make_id()), store.io)
    assert transport.asked == ["GET", "GET", "INFO", "GET"]
