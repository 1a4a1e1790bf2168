"""What docs/write-a-plugin.md shows beside its example package: a store that honours the deadline of a request."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sojourn.errors import StoreTimeoutError
from sojourn.stores.deadline import Deadline, DeadlineScope
from tests.docs.pages import blocks, page, run, section

SHOWN = section(page("docs/write-a-plugin.md"), "8. What a store may declare")


class Client:
    """A client whose server answers, or never does."""

    def __init__(self, *, answers: bool) -> None:
        self._answers = answers
        self.asked: list[tuple[Any, ...]] = []

    async def call(self, *command: Any) -> str:
        self.asked.append(command)
        if not self._answers:
            await asyncio.Event().wait()
        return "answer"


@pytest.fixture
def remote_store(monkeypatch: pytest.MonkeyPatch) -> Any:
    return run(monkeypatch, "remote_store", blocks(SHOWN)[0]).RemoteStore


def call(store: Any, left: float | None) -> Any:
    async def main() -> Any:
        with DeadlineScope(None if left is None else Deadline(left)):
            return await store._call("GET", "key")

    return asyncio.run(main())


def test_a_call_ends_at_the_deadline_of_the_request(remote_store: Any) -> None:
    store = remote_store(Client(answers=False), timeout=3600.0)
    with pytest.raises(StoreTimeoutError):
        call(store, 0.01)


@pytest.mark.parametrize("left", [None, 3600.0])
def test_a_call_ends_at_the_time_out_of_the_store_where_that_comes_first(remote_store: Any, left: float | None) -> None:
    store = remote_store(Client(answers=False), timeout=0.01)
    assert store.longest_load == 0.01
    with pytest.raises(StoreTimeoutError):
        call(store, left)


@pytest.mark.parametrize("left", [None, 3600.0])
def test_an_answer_in_time_is_handed_on(remote_store: Any, left: float | None) -> None:
    client = Client(answers=True)
    assert call(remote_store(client), left) == "answer"
    assert client.asked == [("GET", "key")]


def test_every_declaration_that_the_page_lists_is_a_member_of_the_contract() -> None:
    from sojourn import stores
    from tests.docs.pages import rows

    members = {
        name
        for kind in vars(stores).values()
        if isinstance(kind, type) and getattr(kind, "_is_protocol", False)
        for name in (*vars(kind), *getattr(kind, "__annotations__", ()))
    }
    listed = {first.strip("`").partition("(")[0] for first, *_ in rows(SHOWN)}
    assert listed <= members
