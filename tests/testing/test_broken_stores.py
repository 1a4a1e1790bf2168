"""The published contract finds what is wrong with a store, and names the rule."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings

from sojourn.stores import ClientSideStore, Clock, Created, Deleted, Record, Replaced, Store, StoreIO
from sojourn.testing import (
    CLIENT_SIDE_RULES,
    STORE_RULES,
    ClientSideStoreSuite,
    FakeClock,
    RuleViolationError,
    StoreSuite,
    make_record,
    make_write_id,
)
from sojourn_testing.model import Create, Load, StoreModel
from sojourn_testing.races import PAIRS, Done, Pair, explore, is_explained, orders
from tests.testing import broken_stores as broken
from tests.testing.plain_stores import BatchingPlainStore, PlainStore

MACHINE = "test_any_calls_in_any_order_agree_with_the_model"
DOCUMENT = Path(__file__).parents[2] / "docs" / "stores.md"


def suite_of(store: type[PlainStore]) -> type[StoreSuite]:
    class Suite(StoreSuite):
        patience = 0.1
        machine_settings = settings(
            max_examples=1000, stateful_step_count=30, derandomize=True, database=None, phases=[Phase.generate]
        )

        def make_store(self, clock: Clock) -> Store:
            return store(clock)

    return Suite


def findings(suite: type[StoreSuite | ClientSideStoreSuite], *, races: bool) -> Iterator[RuleViolationError]:
    for name in dir(suite):
        if (re.match(r"test_(?!s20)", name) and name != MACHINE) or (races and name.startswith("test_s20")):
            try:
                getattr(suite(), name)()
            except RuleViolationError as error:
                yield error


@pytest.mark.parametrize("store", broken.BROKEN_STORES)
def test_a_broken_store_is_found_and_its_rule_is_named(store) -> None:
    found = list(findings(suite_of(store), races=store.rule == "S20"))
    assert store.rule in {error.rule for error in found}
    for error in found:
        assert str(error).startswith(f"{error.rule} {STORE_RULES[error.rule]}: ")


@pytest.fixture
def as_found() -> Iterator[None]:
    """Leave what is found as it was found: to shrink it takes longer than to find it."""
    usual = settings.get_current_profile_name()
    settings.register_profile("as found", settings(), phases=[Phase.explicit, Phase.generate])
    settings.load_profile("as found")
    yield
    settings.load_profile(usual)


@pytest.mark.usefixtures("as_found")
@pytest.mark.parametrize("store", broken.BROKEN_TOKEN_STORES)
def test_a_broken_client_side_store_is_found_and_its_rule_is_named(store: Any) -> None:
    class Suite(ClientSideStoreSuite):
        def make_store(self, clock: Clock) -> ClientSideStore:
            made: ClientSideStore = store()
            return made

    found = {error.rule for error in findings(Suite, races=False)}
    assert found == {store.rule}


@pytest.mark.slow
@pytest.mark.parametrize(
    "store",
    [
        broken.CreateThatSaysExistsAndWrites,
        broken.UpsertingReplace,
        broken.ReplaceThatIgnoresTheVersion,
        broken.RepeatedCreateThatExists,
        broken.KeepsOneWriteId,
        broken.ResurrectingTouch,
        broken.TouchThatRaisesTheVersion,
        broken.DeleteThatIgnoresTheVersion,
        broken.RecordsAreChangedInPlace,
        broken.IndexNamesStrangers,
        broken.CountOfEverything,
    ],
)
def test_the_state_machine_finds_it_too(store) -> None:
    with pytest.raises(RuleViolationError) as caught:
        getattr(suite_of(store)(), MACHINE)()
    # which of its wrong answers comes first follows from what is drawn, and that from all numbers in the sources
    assert caught.value.rule in {store.rule, getattr(store, "also", store.rule)}
    assert "after these calls:\n" in str(caught.value)


class FailingStore(PlainStore):
    io = StoreIO.ASYNC

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.01, answer.set_exception, TimeoutError("too late"))
        await answer
        return await super().replace(record, expected=expected, write_id=write_id)


def test_a_store_that_fails_under_the_scheduler_shows_its_own_error() -> None:
    with pytest.raises(TimeoutError, match="too late"):
        suite_of(FailingStore)().test_s20_two_programs_meet_in_the_middle_of_their_calls()


class HesitantStore(PlainStore):
    """Answer now and then so late that the scheduler does not wait: the choices of one schedule are not always the same."""

    io = StoreIO.ASYNC
    draw = random.Random(0)

    async def hesitate(self) -> None:
        await asyncio.sleep(0.002 if self.draw.random() < 0.3 else 0)

    async def load(self, id: str) -> Record | None:
        await self.hesitate()
        return await super().load(id)

    async def create(self, record: Record, *, write_id: bytes) -> Created:
        await self.hesitate()
        return await super().create(record, write_id=write_id)

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        await self.hesitate()
        return await super().replace(record, expected=expected, write_id=write_id)

    async def touch(self, id: str, idle_deadline: float) -> bool:
        await self.hesitate()
        return await super().touch(id, idle_deadline)

    async def delete(self, id: str, *, expected: int | None = None) -> Deleted:
        await self.hesitate()
        return await super().delete(id, expected=expected)


@pytest.mark.parametrize("seed", range(4))
def test_a_right_store_passes_although_the_machine_holds_up_some_of_its_answers(monkeypatch, seed) -> None:
    monkeypatch.setattr(HesitantStore, "draw", random.Random(seed))
    monkeypatch.setattr("sojourn_testing.races._QUIET", 0.0005)
    monkeypatch.setattr("sojourn_testing.races.PAIRS", [Pair("start", "touch", present=False)])
    suite_of(HesitantStore)().test_s20_two_programs_meet_in_the_middle_of_their_calls()


def test_every_rule_of_stores_is_broken_by_some_store() -> None:
    planted = {store.rule for store in [*broken.BROKEN_STORES, *broken.BROKEN_TOKEN_STORES]}
    assert planted == {*STORE_RULES, *CLIENT_SIDE_RULES}


class Shared:
    """A server that several namespaces share."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, Record]] = {}


class NamespacedStore(PlainStore):
    """Clear its own namespace; or, with *greedy*, all of them; or see all of them."""

    def __init__(self, clock: Clock, server: Shared, namespace: str, *, greedy: bool = False) -> None:
        super().__init__(clock)
        self.server = server
        self.greedy = greedy
        self.records = server.records.setdefault(namespace, {})

    async def clear(self) -> None:
        await super().clear()
        if self.greedy:
            for records in self.server.records.values():
                records.clear()


@pytest.mark.parametrize(("greedy", "namespace"), [(True, "theirs"), (False, "ours")])
def test_s19_a_store_that_reaches_into_another_namespace_is_found(greedy, namespace) -> None:
    class Suite(StoreSuite):
        def make_store(self, clock: Clock) -> Store:
            self.server = Shared()
            return NamespacedStore(clock, self.server, "ours", greedy=greedy)

        def make_neighbour(self, clock: Clock) -> Store:
            return NamespacedStore(clock, self.server, namespace)

    with pytest.raises(RuleViolationError, match="^S19 .* namespace"):
        Suite().test_s19_clear_spares_other_namespaces()


def test_s19_a_store_that_keeps_to_its_namespace_passes() -> None:
    class Suite(StoreSuite):
        def make_store(self, clock: Clock) -> Store:
            self.server = Shared()
            return NamespacedStore(clock, self.server, "ours")

        async def make_neighbour(self, clock: Clock) -> Store:
            return NamespacedStore(clock, self.server, "theirs")

    Suite().test_s19_clear_spares_other_namespaces()


@pytest.mark.parametrize("claim", ["indexed", "scannable"])
def test_s24_a_capability_that_is_claimed_and_missing_is_found(claim) -> None:
    suite = suite_of(PlainStore)
    setattr(suite, claim, False)
    with pytest.raises(RuleViolationError, match=f"^S24 .*: {claim} = False is claimed"):
        suite().test_s24_the_store_has_the_capabilities_claimed_for_it()


def test_s25_a_store_on_several_servers_keeps_its_rule_and_one_without_a_partition_needs_none() -> None:
    class Spread(PlainStore):
        partition: broken.Ring | None = broken.Ring()

    for store in (PlainStore, Spread):
        suite_of(store)().test_s25_a_partition_names_the_server_of_every_record()
    Spread.partition = None
    suite_of(Spread)().test_s25_a_partition_names_the_server_of_every_record()


def test_s26_a_store_that_reads_and_deletes_many_at_once_keeps_its_rule_and_one_that_does_not_needs_none() -> None:
    for store in (PlainStore, BatchingPlainStore):
        suite_of(store)().test_s26_many_records_at_once_are_read_and_deleted_as_one_by_one()


@pytest.mark.parametrize("suite", [StoreSuite, ClientSideStoreSuite])
def test_a_suite_without_make_store_says_what_to_define(suite) -> None:
    unfinished = type("TestUnfinished", (suite,), {})
    with pytest.raises(TypeError, match=r"TestUnfinished must define make_store\(self, clock\)"):
        unfinished().test_s22_aclose_may_be_called_twice()


def test_the_rules_in_the_documentation_are_those_of_the_suite() -> None:
    documented = dict(re.findall(r"^- \*\*([SC]\d+)\*\* (.+?)\.", DOCUMENT.read_text(), flags=re.MULTILINE))
    assert documented == {**STORE_RULES, **CLIENT_SIDE_RULES}


def test_every_interleaving_is_listed_once_and_those_with_few_switches_first() -> None:
    seen: list[tuple[bool, ...]] = []

    def run(switches) -> list[bool | None]:
        taken = [bool(switches[at]) if at < len(switches) else False for at in range(4)]
        seen.append(tuple(taken))
        return [None, *taken][1:]

    assert explore(run, 1_000) == 16
    assert len(set(seen)) == 16
    assert [sum(taken) for taken in seen] == sorted(sum(taken) for taken in seen)
    assert explore(run, 5) == 5


def test_no_interleaving_is_listed_again_when_a_program_was_not_ready_where_it_was_to_go_on() -> None:
    seen: list[list[bool]] = []

    def run(switches) -> list[bool | None]:
        seen.append(list(switches))
        return [None, False, False] if switches == [True] else [False, False, False]

    explore(run, 1_000)
    assert len(set(map(tuple, seen))) == len(seen)


def test_every_order_of_two_programs_is_listed_once() -> None:
    assert sorted(orders(2, 1)) == [(0, 0, 1), (0, 1, 0), (1, 0, 0)]
    assert len(set(orders(2, 2))) == 6


def test_answers_that_no_order_gives_are_not_explained() -> None:
    now = FakeClock().time()
    pair = next(pair for pair in PAIRS if (pair.left, pair.right, pair.present) == ("save twice", "save twice", True))
    meeting = pair.meeting(now, "test")
    assert meeting.first is not None
    model = StoreModel()
    meeting.first.on_model(model, now)
    left, right = (program[0] for program in meeting.programs)
    both_won = [[Done(left, Replaced.OK, 1, 3)], [Done(right, Replaced.OK, 2, 4)]]
    assert not is_explained(model, both_won, [], now)
    assert is_explained(model, both_won[:1], [], now)


def test_an_answer_is_explained_only_by_calls_that_had_begun() -> None:
    now = FakeClock().time()
    record = make_record()
    create, load = Create(record, make_write_id()), Load(record.id)
    early = [[Done(load, record, 1, 2)], [Done(create, Created.OK, 3, 4)]]
    meanwhile = [[Done(load, record, 1, 4)], [Done(create, Created.OK, 2, 3)]]
    assert not is_explained(StoreModel(), early, [], now)
    assert is_explained(StoreModel(), meanwhile, [], now)
