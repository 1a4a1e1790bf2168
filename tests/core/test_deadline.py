"""The deadline that the store calls of one request share, as stores and their authors see it."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from sojourn import MemoryStore, stores
from sojourn.stores import deadline as module
from sojourn.stores.deadline import CURRENT_DEADLINE, Deadline, DeadlineScope, seconds_left


def test_nothing_limits_a_call_outside_of_a_scope() -> None:
    assert seconds_left() is None
    with DeadlineScope(None):
        assert seconds_left() is None


def test_what_one_call_spends_is_gone_for_the_next() -> None:
    deadline = Deadline(2.0)
    with DeadlineScope(deadline):
        assert seconds_left() == 2.0
        deadline.spend(1.5)
        assert seconds_left() == 0.5
        deadline.spend(1.5)
        assert seconds_left() == 0.0, "never below zero: a store may hand it to its client"
    assert deadline.left == -1.0


def test_an_inner_scope_holds_until_it_ends_and_one_without_a_deadline_changes_nothing() -> None:
    with DeadlineScope(Deadline(2.0)):
        with DeadlineScope(Deadline(0.5)):
            assert seconds_left() == 0.5
            with DeadlineScope(None):
                assert seconds_left() == 0.5
        assert seconds_left() == 2.0
    assert CURRENT_DEADLINE.get() is None


def test_a_scope_ends_with_the_error_that_leaves_it() -> None:
    with pytest.raises(KeyError), DeadlineScope(Deadline(1.0)):
        raise KeyError
    assert seconds_left() is None


def test_tasks_of_a_request_share_its_deadline_and_no_other_request_does() -> None:
    async def request(left: float) -> float | None:
        deadline = Deadline(left)
        with DeadlineScope(deadline):

            async def call() -> None:
                await asyncio.sleep(0)
                deadline.spend(1.0)

            await asyncio.gather(call(), call())
            return seconds_left()

    async def two() -> list[float | None]:
        return list(await asyncio.gather(request(5.0), request(3.0)))

    assert asyncio.run(two()) == [3.0, 1.0]


def test_a_thread_has_the_deadline_of_the_context_that_it_runs_in() -> None:
    with DeadlineScope(Deadline(1.0)):
        inside = contextvars.copy_context()
    assert inside.run(seconds_left) == 1.0
    assert seconds_left() is None


def test_the_package_of_stores_offers_the_same_names() -> None:
    from sojourn import stores

    for name in ("CURRENT_DEADLINE", "Deadline", "DeadlineScope", "seconds_left"):
        assert getattr(stores, name) is getattr(module, name)
        assert name in vars(stores)


@pytest.mark.parametrize(
    ("former", "name"),
    [
        ("PATIENCE", "CURRENT_DEADLINE"),
        ("Patience", "Deadline"),
        ("Waiting", "DeadlineScope"),
        ("patience_left", "seconds_left"),
    ],
)
def test_a_former_name_still_leads_to_what_it_named_and_says_the_name_of_today(former: str, name: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"sojourn.stores.{former} is called {name} now"):
        assert getattr(stores, former) is getattr(stores, name)


def test_the_memory_store_is_still_found_beside_the_contract_and_says_where_it_is_today() -> None:
    with pytest.warns(DeprecationWarning, match="sojourn.stores.MemoryStore is called sojourn.MemoryStore now"):
        assert stores.MemoryStore is MemoryStore


def test_a_name_that_never_was_is_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = stores.nothing
