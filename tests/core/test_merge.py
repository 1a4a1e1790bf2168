from __future__ import annotations

import dataclasses
import datetime
import decimal
import functools
from dataclasses import InitVar, dataclass, field
from typing import Annotated, Any, Final, Generic, NotRequired, Required, TypeVar

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import TypedDict

from sojourn.errors import ConfigurationError
from sojourn.merge import (
    MISSING,
    Merge,
    Rule,
    field_types,
    field_values,
    is_same,
    merge_messages,
    merge_models,
    merge_rules,
    merge_values,
    with_values,
)

T = TypeVar("T")

keys = st.sampled_from("abcdef")
values = st.none() | st.booleans() | st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2) | st.just(float("nan"))
mappings = st.dictionaries(keys, values, max_size=6)
counts = st.integers(-50, 50)
lists = st.lists(st.integers(0, 4), max_size=5)
sets = st.frozensets(st.integers(0, 8), max_size=6)


def longest(base: list[str], ours: list[str], theirs: list[str]) -> list[str]:
    return max(ours, theirs, key=len)


@dataclass
class Basket:
    user_id: int | None = None
    visits: Annotated[int, Merge.counter] = 0
    cart: Annotated[list[str], Merge.append] = field(default_factory=list)
    tags: Annotated[set[str], Merge.union] = field(default_factory=set)
    story: Annotated[list[str], longest] = field(default_factory=list)


baskets = st.builds(
    Basket,
    user_id=st.none() | st.integers(0, 3),
    visits=counts,
    cart=st.lists(keys, max_size=3),
    tags=st.sets(keys, max_size=3),
    story=st.lists(keys, max_size=3),
)
RULES = merge_rules(Basket)


@dataclass(frozen=True, slots=True)
class FrozenModel:
    user_id: int = 0
    visits: Annotated[int, Merge.counter] = 0


class StructModel(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    user_id: int = 0
    visits: Annotated[int, Merge.counter] = 0


@attrs.frozen
class AttrsModel:
    user_id: int = 0
    visits: Annotated[int, Merge.counter] = 0


@attrs.define
class AttrsWithHook:
    user_id: int = 0
    visits: Annotated[int, Merge.counter] = 0
    total: int = attrs.field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self.total = self.user_id + self.visits


class PydanticModel(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="allow")
    user_id: int = pydantic.Field(default=0, alias="userId")
    visits: Annotated[int, Merge.counter, pydantic.Field(ge=0)] = 0


class DictModel(TypedDict, total=False):
    user_id: Required[int]
    visits: Annotated[int, Merge.counter]
    note: NotRequired[Annotated[str, max]]


KINDS: list[Any] = [FrozenModel, StructModel, AttrsModel, AttrsWithHook, PydanticModel, DictModel]


def make(kind: Any, user_id: int, visits: int) -> Any:
    if kind is PydanticModel:
        return PydanticModel(userId=user_id, visits=visits)
    return kind(user_id=user_id, visits=visits)


# Laws


def same(one: Any, other: Any) -> bool:
    return is_same(one, other)


@given(base=mappings, ours=mappings)
def test_merging_with_an_unchanged_side_gives_the_other_side(base: dict[str, Any], ours: dict[str, Any]) -> None:
    assert same(merge_values(base, ours, base, {}), ours)
    assert same(merge_values(base, base, ours, {}), ours)
    assert same(merge_values(base, base, base, {}), base)


@given(base=baskets, ours=baskets)
def test_merging_a_model_with_an_unchanged_side_gives_the_other_side(base: Basket, ours: Basket) -> None:
    assert merge_models(base, ours, base, RULES) == ours
    assert merge_models(base, base, ours, RULES) == ours


@given(base=mappings, ours=mappings, theirs=mappings)
def test_a_key_changed_by_one_side_takes_that_side_and_by_both_takes_ours(
    base: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    merged = merge_values(base, ours, theirs, {})
    for key in "abcdef":
        before, mine, other = (side.get(key, MISSING) for side in (base, ours, theirs))
        expected = other if is_same(mine, before) else mine
        assert same(merged.get(key, MISSING), expected)


@given(base=mappings, ours=mappings, theirs=mappings, split=st.sets(keys))
def test_changes_of_different_keys_commute(
    base: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any], split: set[str]
) -> None:
    left = {key: side[key] for key in "abcdef" if key in (side := ours if key in split else base)}
    right = {key: side[key] for key in "abcdef" if key in (side := base if key in split else theirs)}
    assert same(merge_values(base, left, right, {}), merge_values(base, right, left, {}))


@given(base=baskets, ours=baskets, theirs=baskets)
def test_merging_changes_none_of_the_three(base: Basket, ours: Basket, theirs: Basket) -> None:
    before = repr((base, ours, theirs))
    merge_models(base, ours, theirs, RULES)
    assert repr((base, ours, theirs)) == before


@given(base=counts, mine=counts, other=counts)
def test_a_counter_adds_both_changes_even_equal_ones(base: int, mine: int, other: int) -> None:
    merged = merge_values({"n": base}, {"n": base + mine}, {"n": base + other}, {"n": Merge.counter})
    assert merged == {"n": base + mine + other}


@given(base=lists, mine=lists, other=lists)
def test_append_keeps_theirs_and_then_what_ours_appended(base: list[int], mine: list[int], other: list[int]) -> None:
    assert Merge.append(base, base + mine, base + other) == base + other + mine
    assert Merge.append(tuple(base), (*base, *mine), (*base, *other)) == (*base, *other, *mine)


@given(base=lists, ours=lists, theirs=lists)
def test_append_never_loses_what_theirs_holds_nor_what_ours_added(
    base: list[int], ours: list[int], theirs: list[int]
) -> None:
    merged = Merge.append(base, ours, theirs)
    assert merged[: len(theirs)] == theirs
    for value in {*ours}:
        assert merged.count(value) == theirs.count(value) + max(0, ours.count(value) - base.count(value))


@given(base=sets, ours=sets, theirs=sets)
def test_union_keeps_every_addition_and_every_removal_and_commutes(
    base: frozenset[int], ours: frozenset[int], theirs: frozenset[int]
) -> None:
    merged = Merge.union(base, ours, theirs)
    assert merged == ((base | ours | theirs) - (base - ours) - (base - theirs))
    assert merged == Merge.union(base, theirs, ours)
    assert type(merged) is frozenset
    as_lists = Merge.union(sorted(base), sorted(ours), sorted(theirs))
    assert set(as_lists) == merged
    assert len(as_lists) == len(merged)
    as_keys = Merge.union(dict.fromkeys(base, 1), dict.fromkeys(ours, 1), dict.fromkeys(theirs, 1))
    assert set(as_keys) == merged


def test_union_of_a_mapping_lets_ours_win_where_both_changed_one_key() -> None:
    assert Merge.union({"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 3, "b": 4, "c": 5}) == {"a": 2, "b": 4, "c": 5}


@given(base=mappings, ours=mappings, theirs=mappings)
def test_a_consumed_message_stays_consumed_and_no_new_one_is_lost(
    base: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    merged = merge_messages(base, ours, theirs)
    for key in "abcdef":
        before, mine, other = (side.get(key, MISSING) for side in (base, ours, theirs))
        if mine is not MISSING and not is_same(mine, before):
            assert is_same(merged[key], mine)
        elif other is not MISSING and not is_same(other, before):
            assert is_same(merged[key], other)
        else:
            assert (key in merged) is (before is not MISSING and mine is not MISSING and other is not MISSING)


# Absent values


@pytest.mark.parametrize("absent", [None, MISSING])
@pytest.mark.parametrize(
    ("rule", "base", "ours", "theirs", "merged"),
    [
        (Merge.counter, "absent", 2, 3, 5),
        (Merge.counter, 5, "absent", 7, 2),
        (Merge.counter, 5, 7, "absent", 2),
        (Merge.counter, 5, "absent", "absent", "absent"),
        (Merge.append, "absent", [1], [2], [2, 1]),
        (Merge.append, [1], "absent", [1, 2], [1, 2]),
        (Merge.append, [1], [1, 2], "absent", [2]),
        (Merge.union, "absent", {1}, {2}, {1, 2}),
        (Merge.union, {1}, "absent", {1, 2}, {2}),
        (Merge.union, {1}, {1, 2}, "absent", {2}),
    ],
)
def test_the_built_in_rules_take_an_absent_value_as_nothing(
    absent: Any, rule: Rule, base: Any, ours: Any, theirs: Any, merged: Any
) -> None:
    sides = [absent if side == "absent" else side for side in (base, ours, theirs)]
    mappings = [{} if side is MISSING else {"k": side} for side in sides]
    expected = absent if merged == "absent" else merged
    assert merge_values(*mappings, {"k": rule}).get("k", MISSING) == expected  # type: ignore[call-arg]


def test_a_function_of_the_application_is_called_only_with_three_values() -> None:
    rules = {"k": lambda base, ours, theirs: [base, ours, theirs]}
    assert merge_values({"k": 1}, {"k": 2}, {"k": 3}, rules) == {"k": [1, 2, 3]}
    assert merge_values({}, {"k": 2}, {"k": 3}, rules) == {"k": 2}
    assert merge_values({"k": 1}, {}, {"k": 3}, rules) == {}
    assert merge_values({"k": 1}, {"k": 2}, {}, rules) == {"k": 2}


def test_keys_keep_the_order_of_theirs_and_new_ones_of_ours_follow() -> None:
    merged = merge_values({"a": 1, "b": 1}, {"n": 1, "b": 1, "a": 2}, {"b": 2, "t": 1, "a": 1}, {})
    assert list(merged.items()) == [("b", 2), ("t", 1), ("a", 2), ("n", 1)]


def test_counters_may_be_decimals_floats_and_durations() -> None:
    second = datetime.timedelta(seconds=1)
    assert Merge.counter(decimal.Decimal("0.1"), decimal.Decimal("0.3"), None) == decimal.Decimal("0.2")
    assert Merge.counter(None, second, second * 2) == second * 3
    assert Merge.counter(0.5, 1.0, 1.5) == 2.0


# Models


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_merges_by_field(kind: Any) -> None:
    rules = merge_rules(kind)
    merged = merge_models(make(kind, 1, 10), make(kind, 1, 11), make(kind, 2, 12), rules)
    assert merged == make(kind, 2, 13)
    assert isinstance(merged, dict if kind is DictModel else kind)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_gives_its_values_types_and_changed_copies(kind: Any) -> None:
    data = make(kind, 1, 10)
    changed = with_values(data, visits=11)
    assert {name: field_values(changed)[name] for name in ("user_id", "visits")} == {"user_id": 1, "visits": 11}
    assert field_values(data)["visits"] == 10
    assert {"user_id", "visits"} <= field_types(kind).keys()
    assert merge_rules(kind)["visits"] is Merge.counter


def test_merge_of_a_typed_dict_keeps_removed_keys_removed() -> None:
    base: DictModel = {"user_id": 1, "note": "a", "visits": 3}
    merged = merge_models(
        base, {"user_id": 1, "visits": 4}, {"user_id": 2, "note": "a", "visits": 5}, merge_rules(DictModel)
    )
    assert merged == {"user_id": 2, "visits": 6}
    assert merge_rules(DictModel) == {"visits": Merge.counter, "note": max}
    both = merge_models(base, {"user_id": 1, "note": "b"}, {"user_id": 1, "note": "c"}, merge_rules(DictModel))
    assert both == {"user_id": 1, "note": "c"}


def test_merge_of_a_pydantic_model_merges_its_extra_fields_too() -> None:
    base, ours, theirs = (
        PydanticModel.model_validate(extra)
        for extra in ({"gone": 1, "kept": 1}, {"gone": 1, "kept": 1, "mine": 1}, {"kept": 2, "theirs": 1})
    )
    merged = merge_models(base, ours, theirs, merge_rules(PydanticModel))
    assert merged.model_extra == {"kept": 2, "mine": 1, "theirs": 1}
    assert ours.model_extra == {"gone": 1, "kept": 1, "mine": 1}


@dataclass
class Totalled:
    prices: Annotated[list[int], Merge.append] = field(default_factory=list)
    total: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.total = sum(self.prices)


def test_what_post_init_computes_is_computed_from_the_merged_values() -> None:
    merged = merge_models(Totalled([1]), Totalled([1, 2]), Totalled([1, 3]), merge_rules(Totalled))
    assert merged == Totalled([1, 3, 2])
    assert merged.total == 6
    assert with_values(AttrsWithHook(1, 2), visits=5).total == 6


class Hidden:
    __slots__ = ("hidden",)
    hidden: str


@dataclass
class BesideSlots(Hidden):
    visits: int


@dataclass
class InAList(list[int]):
    visits: int


@dataclass
class WithACopyOfItsOwn:
    visits: int
    cached: str | None = None

    def __copy__(self) -> WithACopyOfItsOwn:
        return WithACopyOfItsOwn(self.visits)


def test_what_a_class_keeps_beside_its_fields_is_copied_as_the_class_wants_it() -> None:
    beside, listed, own = BesideSlots(1), InAList(1), WithACopyOfItsOwn(1, "of one visit")
    beside.hidden = "kept"
    listed.append(7)
    assert with_values(beside, visits=2).hidden == "kept"
    assert [*with_values(listed, visits=2)] == [7]
    assert with_values(own, visits=2) == WithACopyOfItsOwn(2, None)


# Reading the rules


@dataclass
class Generics(Generic[T]):
    plain: T
    many: Annotated[list[T], Merge.append] = field(default_factory=list)


@dataclass
class Wrapped(Generics[int]):
    maybe: Annotated[list[int], Merge.append] | None = None
    fixed: Final[Annotated[int, Merge.counter]] = 0
    noted: Annotated[Annotated[int, Merge.counter], "a note", msgspec.Meta(ge=0)] = 0
    bound: Annotated[int, functools.partial(Merge.counter)] = 0
    typed: Annotated[int, int, str.upper] = 0


def test_rules_are_found_inside_optional_final_and_inherited_annotations() -> None:
    rules = merge_rules(Wrapped)
    assert rules.keys() == {"many", "maybe", "fixed", "noted", "bound"}
    assert rules["maybe"] is Merge.append
    assert merge_rules(Generics[int]) == {"many": Merge.append}


def test_a_local_pydantic_model_needs_no_resolvable_names() -> None:
    class Local(pydantic.BaseModel):
        class_wide: int = 0
        visits: Annotated[int | None, Merge.counter] = None

    assert merge_rules(Local) == {"visits": Merge.counter}


@dataclass
class TwoRules:
    visits: Annotated[int, Merge.counter, max] = 0


@dataclass
class ShortRule:
    visits: Annotated[int, lambda ours, theirs: ours] = 0


@dataclass
class Unresolved:
    visits: Annotated[Nowhere, Merge.counter] = 0  # type: ignore[name-defined] # noqa: F821


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (TwoRules, "field visits of .*TwoRules.* has 2 merge rules"),
        (ShortRule, r"rule of field visits of .*ShortRule.* must take \(base, ours, theirs\)"),
        (Unresolved, "annotations of .*Unresolved.* cannot be resolved: name 'Nowhere'"),
    ],
)
def test_a_rule_that_cannot_work_is_refused_with_its_field(model: Any, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        merge_rules(model)


# Equality


@dataclass(eq=False)
class ByIdentity:
    x: Any = 0


@attrs.define(eq=False)
class AttrsByIdentity:
    x: Any = 0


class StructByIdentity(msgspec.Struct, eq=False):
    x: Any = 0


@dataclass
class Noted:
    x: int
    note: str = field(compare=False)


@pytest.mark.parametrize("kind", [ByIdentity, AttrsByIdentity, StructByIdentity])
def test_objects_that_compare_by_identity_are_compared_by_field(kind: Any) -> None:
    nan = float("nan")
    assert is_same(
        kind([kind(1), (kind(nan),), {"k": kind(2)}]), kind([kind(1), (kind(float("nan")),), {"k": kind(2)}])
    )
    assert not is_same(kind([kind(1)]), kind([kind(2)]))
    assert not is_same(kind(1), ByIdentity(1) if kind is not ByIdentity else AttrsByIdentity(1))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        ([1], [1, 2]),
        ({"a": 1}, {"b": 1}),
        ({"a": 1}, {"a": 2}),
        (float("nan"), 1.0),
        (1.0, float("nan")),
        ({1}, {2}),
        (True, 1),
        ([0], [False]),
        ([1], {1}),
        (Noted(1, "a"), Noted(1, "b")),
    ],
)
def test_different_values_are_different(one: object, other: object) -> None:
    assert not is_same(one, other)
    assert not is_same(other, one)
    assert not is_same(object(), object())


@pytest.mark.parametrize(
    ("one", "other"), [(1, 1.0), ([1], (1,)), ({1}, frozenset({1})), ({"a": 1, "b": 2}, {"b": 2, "a": 1})]
)
def test_values_of_equal_meaning_are_the_same(one: object, other: object) -> None:
    assert is_same(one, other)


def test_init_only_parameters_are_no_fields() -> None:
    @dataclass
    class WithInitVar:
        x: int
        seed: InitVar[int] = 0

    assert field_values(WithInitVar(1, 2)) == {"x": 1}


def test_f29_the_fields_of_a_model_are_looked_up_once_and_not_with_every_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Counted:
        count: int = 0

    asked: list[object] = []
    fields = dataclasses.fields

    def asking(model: type[Any]) -> Any:
        asked.append(model)
        return fields(model)

    monkeypatch.setattr(dataclasses, "fields", asking)
    rules: dict[str, Rule] = {"count": Merge.counter}
    for number in range(3):
        assert merge_models(Counted(1), Counted(2), Counted(number), rules) == Counted(number + 1)
    assert len(asked) <= 1
