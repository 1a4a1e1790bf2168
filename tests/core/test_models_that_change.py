"""Two versions of a model on two nodes that share their sessions: nothing that either wrote is lost by the other."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final, Literal, NewType

import attrs
import msgspec
import pydantic
import pytest
import typing_extensions
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import TypedDict

from sojourn import LoadOutcome
from sojourn.errors import ConfigurationError
from sojourn.merge import carry
from sojourn.serializers import JsonSerializer
from sojourn.session.model import Model, schema_id
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock
from tests.core.models import make_manager

Fields = dict[str, tuple[Any, Any]]
"""The type of each field, and its default."""


def _attrs(name: str, fields: Fields) -> Any:
    return attrs.make_class(name, {key: attrs.field(type=hint, default=value) for key, (hint, value) in fields.items()})


class Make:
    """Makes the same default for every instance."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __call__(self) -> Any:
        return copy(self.value)


def _dataclass(name: str, fields: Fields) -> Any:
    typed = [(key, hint, field(default_factory=Make(value))) for key, (hint, value) in fields.items()]
    return dataclasses.make_dataclass(name, typed)


def _struct(name: str, fields: Fields) -> Any:
    typed = [(key, hint, msgspec.field(default_factory=Make(value))) for key, (hint, value) in fields.items()]
    return msgspec.defstruct(name, typed)


def _typed_dict(name: str, fields: Fields) -> Any:
    return TypedDict(name, {key: hint for key, (hint, _) in fields.items()}, total=False)  # type: ignore[operator]


KINDS: Final[dict[str, Callable[[str, Fields], Any]]] = {
    "dataclass": _dataclass,
    "Struct": _struct,
    "TypedDict": _typed_dict,
    "attrs": _attrs,
    "BaseModel": lambda name, fields: create_model(name, **fields),
}
PAIRS: Final = [
    (kind, serializer)
    for kind in KINDS
    for serializer in ("json", "msgpack", "pydantic")
    if (kind, serializer) not in {("BaseModel", "msgpack"), ("Struct", "pydantic"), ("attrs", "pydantic")}
]
# Subscripted at run time, which type checkers take for an annotation.
LIST: Any = list
TUPLE: Any = tuple
DICT: Any = dict
create_model: Any = pydantic.create_model
PLACES: Final[dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], Callable[[Any], Any]]]] = {
    "itself": (lambda item: item, lambda item: item, lambda held: held),
    "optional": (lambda item: item | None, lambda item: item, lambda held: held),
    "list": (lambda item: LIST[item], lambda item: [item], lambda held: held[0]),
    "tuple": (lambda item: TUPLE[item, ...], lambda item: (item,), lambda held: held[0]),
    "pair": (lambda item: TUPLE[int, item], lambda item: (1, item), lambda held: held[1]),
    "dict": (lambda item: DICT[str, item], lambda item: {"k": item}, lambda held: held["k"]),
    "lists in a dict": (lambda item: DICT[str, LIST[item]], lambda item: {"k": [item]}, lambda held: held["k"][0]),
}


def get(data: Any, name: str) -> Any:
    return data[name] if isinstance(data, dict) else getattr(data, name)


def put(data: Any, name: str, value: object) -> None:
    if isinstance(data, dict):
        data[name] = value
    else:
        setattr(data, name, value)


class Nodes:
    """An old and a new node over one store."""

    def __init__(self, kind: str, serializer: str, old: Fields, new: Fields, **migrate: Any) -> None:
        clock = FakeClock()
        store = MemoryStore(clock=clock)
        self.models = {"old": KINDS[kind]("Data", old), "new": KINDS[kind]("Data", new)}
        plain = {node: {k: v for k, (_, v) in fields.items()} for node, fields in (("old", old), ("new", new))}
        self.managers: dict[str, Any] = {
            node: make_manager(
                store,
                clock=clock,
                model=model,
                serializer=serializer,
                new=Make(plain[node]) if kind == "TypedDict" else model,
                migrate=migrate.get(f"migrate_{node}"),
            ).blocking
            for node, model in self.models.items()
        }
        self.token: str | None = None

    def data(self, node: str) -> Any:
        session = self.managers[node].open(self.token)
        assert session.outcome is (LoadOutcome.LOADED if self.token else LoadOutcome.NONE)
        return session.data

    def write(self, node: str, **values: object) -> None:
        session = self.managers[node].open(self.token)
        for name, value in values.items():
            put(session.data, name, value)
        self.token = self.managers[node].commit(session).token or self.token


@pytest.mark.parametrize(("kind", "serializer"), PAIRS)
@pytest.mark.parametrize(
    ("hint", "default", "value"),
    [
        (int, 0, 7),
        (str, "", "x"),
        (float, 0.0, 1.5),
        (bool, False, True),
        (int | None, None, 7),
        (list[int], [], [1, 2]),
        (dict[str, int], {}, {"a": 1}),
        (set[str], set(), {"b", "a"}),
        (tuple[int, str], (0, ""), (1, "a")),
        (Literal["a", "b"], "a", "b"),
        (Any, None, [{"a": 1}]),
    ],
    ids=["int", "str", "float", "bool", "optional", "list", "dict", "set", "tuple", "literal", "any"],
)
def test_a_field_that_one_node_does_not_know_survives_its_writes(
    kind: str, serializer: str, hint: Any, default: Any, value: Any
) -> None:
    nodes = Nodes(kind, serializer, {"count": (int, 0)}, {"count": (int, 0), "more": (hint, default)})
    nodes.write("old", count=1)
    assert get(nodes.data("new"), "count") == 1
    nodes.write("new", more=value)
    nodes.write("old", count=2)
    nodes.write("old", count=3)
    data = nodes.data("new")
    assert (get(data, "count"), get(data, "more")) == (3, value)
    nodes.write("new", count=4)
    assert get(nodes.data("old"), "count") == 4


@pytest.mark.parametrize(("kind", "serializer"), PAIRS)
@pytest.mark.parametrize("place", PLACES)
def test_a_nested_field_that_one_node_does_not_know_survives_its_writes(kind: str, serializer: str, place: str) -> None:
    around, hold, first = PLACES[place]
    item = {"old": KINDS[kind]("Item", {"name": (str, "")})}
    item["new"] = KINDS[kind]("Item", {"name": (str, ""), "colour": (str, "")})
    nodes = Nodes(
        kind,
        serializer,
        {"count": (int, 0), "held": (around(item["old"]), hold(item["old"](name="")))},
        {"count": (int, 0), "held": (around(item["new"]), hold(item["new"](name="", colour="")))},
    )
    nodes.write("new", held=hold(item["new"](name="ball", colour="red")))
    nodes.write("old", count=1)
    held = first(get(nodes.data("new"), "held"))
    assert (get(held, "name"), get(held, "colour")) == ("ball", "red")
    # The old node changes the item itself.
    nodes.write("old", held=hold(item["old"](name="bowl")))
    held = first(get(nodes.data("new"), "held"))
    assert (get(held, "name"), get(held, "colour")) == ("bowl", "red")
    assert get(first(get(nodes.data("old"), "held")), "name") == "bowl"


@pytest.mark.parametrize(("kind", "serializer"), PAIRS)
@pytest.mark.parametrize("late", ["old", "new"])
def test_a_field_that_one_node_does_not_know_survives_a_merge(kind: str, serializer: str, late: str) -> None:
    nodes = Nodes(kind, serializer, {"count": (int, 0)}, {"count": (int, 0), "more": (str, "")})
    nodes.write("new", count=1)
    sessions = {node: manager.open(nodes.token) for node, manager in nodes.managers.items()}
    put(sessions["old"].data, "count", 2)
    put(sessions["new"].data, "more", "x")
    for node in sorted(sessions, key=late.__eq__):
        nodes.managers[node].commit(sessions[node])
    data = nodes.data("new")
    assert (get(data, "count"), get(data, "more")) == (2, "x")


@dataclass
class OldItem:
    name: str = ""


@dataclass
class NewItem:
    name: str = ""
    colour: str = ""


@dataclass
class Sized:
    size: int = 0


def nodes_with_items() -> Nodes:
    nodes = Nodes("dataclass", "json", {"items": (list[OldItem], [])}, {"items": (list[NewItem], [])})
    nodes.write("new", items=[NewItem("a", "red"), NewItem("b", "blue"), NewItem("c", "green")])
    return nodes


@pytest.mark.parametrize(
    ("names", "colours"),
    [
        ("abcd", ["red", "blue", "green", ""]),
        ("cab", ["green", "red", "blue"]),
        ("ac", ["red", "green"]),
        ("xabc", ["", "red", "blue", "green"]),
        ("axc", ["red", "blue", "green"]),
        ("axcd", ["red", "blue", "green", ""]),
        # Where something was taken away nobody knows which item a new one was.
        ("ax", ["red", ""]),
        ("", []),
    ],
)
def test_items_keep_the_fields_of_newer_nodes_wherever_an_older_one_moves_them(names: str, colours: list[str]) -> None:
    nodes = nodes_with_items()
    nodes.write("old", items=[OldItem(name) for name in names])
    assert nodes.data("new").items == [NewItem(*pair) for pair in zip(names, colours, strict=True)]


@dataclass
class OldEither:
    held: OldItem | Sized = field(default_factory=OldItem)
    items: list[OldItem | Sized] = field(default_factory=list)


@dataclass
class NewEither:
    held: NewItem | Sized = field(default_factory=NewItem)
    items: list[NewItem | Sized] = field(default_factory=list)


def test_what_an_object_held_is_not_carried_into_one_of_another_class() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    old, new = (
        make_manager(store, clock=clock, model=model, serializer="pydantic").blocking
        for model in (OldEither, NewEither)
    )
    session = new.open(None)
    session.data = NewEither(NewItem("ball", "red"), [NewItem("bowl", "blue")])
    token = new.commit(session).token
    session = old.open(token)
    session.data = OldEither(Sized(3), [Sized(4)])
    old.commit(session)
    # With the colour beside it the size would be read as an item without a name.
    assert new.open(token).data == NewEither(Sized(3), [Sized(4)])


def test_a_default_that_nobody_stored_is_not_stored_by_a_node_that_does_not_know_the_rest() -> None:
    seen: list[dict[str, object]] = []

    def note(fields: dict[str, object]) -> dict[str, object]:
        seen.append(dict(fields))
        return fields

    old, new = {"name": (str, ""), "count": (int, 0)}, {"full_name": (str, ""), "count": (int, 0)}
    nodes = Nodes("dataclass", "json", old, new, migrate_new=note)
    nodes.write("new", full_name="ada")
    nodes.write("old", count=1)
    assert nodes.data("new").full_name == "ada"
    assert seen == [{"full_name": "ada", "count": 1}]
    nodes.write("old", name="grace")
    nodes.data("new")
    assert seen[-1] == {"full_name": "ada", "count": 1, "name": "grace"}


# -- migrate -----------------------------------------------------------------------------------------------------


class Migration:
    """A migrate that renames `name` and notes what it was called with."""

    def __init__(self) -> None:
        self.calls: list[dict[str, object]] = []

    def __call__(self, fields: dict[str, object]) -> dict[str, object]:
        self.calls.append(dict(fields))
        if "name" in fields:
            fields["full_name"] = fields.pop("name")
        return fields


def renaming(kind: str = "dataclass", serializer: str = "json") -> tuple[Nodes, Migration]:
    migration = Migration()
    old, new = {"name": (str, ""), "count": (int, 0)}, {"full_name": (str, ""), "count": (int, 0)}
    return Nodes(kind, serializer, old, new, migrate_new=migration), migration


@pytest.mark.parametrize(("kind", "serializer"), PAIRS)
def test_a_renamed_field_is_migrated_although_the_record_would_fit(kind: str, serializer: str) -> None:
    nodes, migration = renaming(kind, serializer)
    nodes.write("old", name="ada", count=1)
    data = nodes.data("new")
    assert (get(data, "full_name"), get(data, "count")) == ("ada", 1)
    # Before a default has filled anything in.
    assert migration.calls == [{"name": "ada", "count": 1}]
    nodes.write("new", count=2)
    nodes.write("old", count=3)
    nodes.write("new", count=4)
    nodes.write("old", count=5, name="grace")
    data = nodes.data("new")
    assert (get(data, "full_name"), get(data, "count")) == ("grace", 5)


def test_migrate_is_not_called_for_what_this_model_wrote() -> None:
    nodes, migration = renaming()
    nodes.write("new", full_name="ada")
    nodes.write("new", count=1)
    assert nodes.data("new").count == 1
    assert migration.calls == []


def test_migrate_is_not_called_for_what_this_model_wrote_around_fields_of_another() -> None:
    calls: list[dict[str, object]] = []

    def keep(fields: dict[str, object]) -> dict[str, object]:
        calls.append(fields)
        return fields

    old, new = {"name": (str, ""), "count": (int, 0)}, {"full_name": (str, ""), "count": (int, 0)}
    nodes = Nodes("dataclass", "json", old, new, migrate_new=keep)
    nodes.write("old", name="ada")
    nodes.write("new", full_name="grace")
    calls.clear()
    nodes.write("new", count=1)
    nodes.write("new", count=2)
    assert (nodes.data("new").full_name, calls) == ("grace", [])
    assert nodes.data("old").name == "ada"


def test_migrate_is_not_called_for_what_a_merge_of_this_model_wrote() -> None:
    nodes, migration = renaming()
    nodes.write("new", count=1)
    manager = nodes.managers["new"]
    one, other = manager.open(nodes.token), manager.open(nodes.token)
    one.data.count = 2
    other.data.full_name = "ada"
    manager.commit(one)
    manager.commit(other)
    data = nodes.data("new")
    assert (data.count, data.full_name, migration.calls) == (2, "ada", [])


def test_what_another_model_wrote_meanwhile_is_migrated_before_it_is_merged() -> None:
    nodes, _ = renaming()
    nodes.write("new", count=1)
    manager = nodes.managers["new"]
    ours = manager.open(nodes.token)
    ours.data.count = 2
    nodes.write("old", name="ada")
    manager.commit(ours)
    data = nodes.data("new")
    assert (data.count, data.full_name) == (2, "ada")


def test_what_a_login_elsewhere_emptied_meanwhile_is_merged_with_a_new_session() -> None:
    model = Model(OldItem, new=OldItem, serializer=JsonSerializer(OldItem))
    assert model.merge(None, OldItem("ada"), None) == (b'{"name":"ada"}', model.schema_id)


def test_a_record_is_not_written_only_because_it_was_migrated() -> None:
    nodes, _ = renaming()
    nodes.write("old", name="ada")
    manager = nodes.managers["new"]
    session = manager.open(nodes.token)
    assert session.data.full_name == "ada"
    assert session.changed is False


@pytest.mark.parametrize(("kind", "serializer"), PAIRS)
def test_a_field_of_another_type_is_migrated_in_both_directions(kind: str, serializer: str) -> None:
    def to(wanted: type) -> Callable[[dict[str, object]], dict[str, object]]:
        return lambda fields: {**fields, "number": wanted(fields.get("number", 0))}

    nodes = Nodes(
        kind,
        serializer,
        {"number": (int, 0), "count": (int, 0)},
        {"number": (str, "0"), "count": (int, 0)},
        migrate_old=to(int),
        migrate_new=to(str),
    )
    nodes.write("old", number=7)
    assert get(nodes.data("new"), "number") == "7"
    nodes.write("new", number="8")
    assert get(nodes.data("old"), "number") == 8
    nodes.write("old", count=1)
    assert get(nodes.data("new"), "number") == "8"


# -- models that forbid what they do not know ----------------------------------------------------------------------


def forbidding(**fields: Any) -> Any:
    nested = create_model("Nested", __config__=pydantic.ConfigDict(extra="forbid"), **dict.fromkeys(fields, (int, 0)))
    return create_model(
        "Data",
        __config__=pydantic.ConfigDict(extra="forbid"),
        nested=(nested, nested()),
        **dict.fromkeys(fields, (int, 0)),
    )


def test_a_model_that_forbids_extra_fields_is_refused_under_a_pydantic_that_cannot_read_past_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class OldAdapter:
        """As pydantic 2.11 has it."""

        def __init__(self, model: Any) -> None:
            self.adapter: Any = adapter_of(model)
            self.rebuild, self.dump_json = self.adapter.rebuild, self.adapter.dump_json
            self.core_schema = self.adapter.core_schema

        def validate_json(self, data: Any, *, by_alias: bool, by_name: bool) -> Any:
            return self.adapter.validate_json(data, by_alias=by_alias, by_name=by_name)

    adapter_of = pydantic.TypeAdapter
    monkeypatch.setattr(pydantic, "TypeAdapter", OldAdapter)
    with pytest.raises(
        ConfigurationError, match="Data has extra='forbid', which only pydantic 2.12 and later can read"
    ):
        make_manager(model=forbidding(a=0))
    make_manager(model=Allowing)


def test_a_model_that_forbids_extra_fields_reads_past_those_of_a_newer_node_and_keeps_them() -> None:
    if "extra" not in inspect.signature(pydantic.TypeAdapter.validate_json).parameters:
        return  # pydantic before 2.12 is the test above
    store = MemoryStore()
    old, new = forbidding(a=0), forbidding(a=0, b=0)
    nodes = {"old": make_manager(store, model=old).blocking, "new": make_manager(store, model=new).blocking}
    session = nodes["new"].open(None)
    session.data.b = session.data.nested.b = 7
    token = nodes["new"].commit(session).token
    session = nodes["old"].open(token)
    assert session.outcome is LoadOutcome.LOADED
    session.data.a = session.data.nested.a = 1
    nodes["old"].commit(session)
    data = nodes["new"].open(token).data
    assert (data.a, data.b, data.nested.a, data.nested.b) == (1, 7, 1, 7)
    with pytest.raises(pydantic.ValidationError):
        old(b=1)


class Forbidding(msgspec.Struct, forbid_unknown_fields=True):
    n: int = 0


class Allowing(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")


class Mixed(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    inner: Allowing = Allowing()


class Arrays(msgspec.Struct, array_like=True):
    n: int = 0


@dataclass
class Holds:
    inner: list[Forbidding] = field(default_factory=list)


@dataclass
class HoldsArrays:
    inner: list[Arrays] = field(default_factory=list)


class Root(pydantic.RootModel[dict[str, int]]):
    root: dict[str, int] = {}


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        (Forbidding, "the session model Forbidding has forbid_unknown_fields=True: .* once a newer one adds a field"),
        (Holds, r"field inner\[...\] of the session model Holds has forbid_unknown_fields=True"),
        (HoldsArrays, r"field inner\[...\] of the session model HoldsArrays is array_like"),
        (Mixed, "the session model Mixed mixes extra='forbid' and extra='allow'"),
        (Root, "Root is no session model: a RootModel has no fields"),
    ],
)
def test_a_model_that_a_newer_node_would_break_is_refused_at_start_up(model: Any, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        make_manager(model=model)


# -- the fingerprint -----------------------------------------------------------------------------------------------

PROGRAM = """
from dataclasses import dataclass, field
from typing import Annotated
from sojourn import Merge
from sojourn.session.model import schema_id
class Custom: pass
@dataclass
class Inner:
    tags: list = field(default_factory=lambda: [1])
@dataclass
class Data:
    count: Annotated[int, Merge.counter, Custom()] = 0
    inner: dict[str, Inner | None] = field(default_factory=lambda: {})
print(schema_id(Data, "json").hex())
"""


def test_the_fingerprint_is_the_same_in_every_process() -> None:
    padding = "junk = [object() for _ in range(50_000)]\n"
    found = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        for program in (PROGRAM, padding + PROGRAM, PROGRAM.replace("from typing", padding + "from typing"))
    }
    assert len(found) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_fingerprint_changes_with_every_field_type_and_default_down_to_nested_models(kind: str) -> None:
    def of(fields: Fields, serializer: str = "json") -> bytes:
        inner = KINDS[kind]("Inner", fields)
        return schema_id(KINDS[kind]("Data", {"held": (DICT[str, LIST[inner]], {})}), serializer)

    plain: Fields = {"a": (int, 0)}
    others: list[Fields] = [
        {"b": (int, 0)},
        {"a": (str, "")},
        {"a": (int | None, None)},
        {"a": (int, 0), "b": (int, 0)},
    ]
    others += [{"a": (Literal[1], 1)}, {"a": (Literal[2], 2)}, {"a": (list[int], [])}, {"a": (list[str], [])}]
    found = {of(plain), of(plain, "msgpack"), *map(of, others)}
    assert len(found) == len(others) + 2
    assert of(plain) == of({"a": (int, 0)})
    if kind in {"attrs", "BaseModel"}:
        assert of({"a": (int, 1)}) != of(plain)


def test_the_fingerprint_sees_through_names_of_types_also_of_one_that_names_itself() -> None:
    def of(hint: Any) -> bytes:
        return schema_id(_dataclass("Data", {"held": (hint, None)}), "json")

    named = NewType("named", OldItem)
    alias: Any = typing_extensions.TypeAliasType
    other, same = (alias("Json", LIST["Json"] | int) for _ in range(2))
    longer = alias("Json", LIST["Json"] | int | str)
    assert of(other) == of(same) != of(longer)
    itself = alias("Itself", LIST[OldItem])
    assert len({of(itself), of(TUPLE[itself, itself]), of(named)}) == 3
    assert of(named) == of(OldItem)


# -- the law of carrying -------------------------------------------------------------------------------------------


def test_a_list_that_the_model_reads_as_a_shorter_one_is_taken_as_it_is_now() -> None:
    assert carry([{"?": 1}, {"?": 1}], [{}], [{}, {"a": 1}], []) == [{}, {"a": 1}]


leaves = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from("ab")
known = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


def with_unknown(plain: Any, draw: Callable[[Any], Any]) -> Any:
    """Return what a newer node has stored: *plain* with names that begin with "?" in any of its mappings."""
    if isinstance(plain, dict):
        found = {name: with_unknown(value, draw) for name, value in plain.items()}
        return {**found, **draw(st.dictionaries(st.sampled_from(["?x", "?y"]), leaves, max_size=2))}
    return [with_unknown(value, draw) for value in plain] if isinstance(plain, list) else plain


def without_unknown(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_unknown(inner) for name, inner in value.items() if not name.startswith("?")}
    return [without_unknown(inner) for inner in value] if isinstance(value, list) else value


@given(plain=known, now=known, data=st.data())
def test_what_is_carried_changes_nothing_that_this_node_knows(plain: Any, now: Any, data: st.DataObject) -> None:
    stored = with_unknown(plain, data.draw)
    pack = msgspec.json.encode
    found: list[str] = []
    assert pack(carry(stored, plain, plain, found)) == pack(stored)
    assert bool(found) is (pack(stored) != pack(plain))
    assert pack(without_unknown(carry(stored, plain, now, []))) == pack(now)


@given(stored=st.dictionaries(st.sampled_from("abc"), known), data=st.data())
def test_what_was_not_changed_is_what_was_stored_whatever_this_node_makes_of_it(
    stored: dict[str, Any], data: st.DataObject
) -> None:
    plain = {name: data.draw(known) for name in stored}  # as of a model that reads a number as text
    changed = data.draw(st.dictionaries(st.sampled_from("abc"), known))
    kept = carry(stored, plain, {**plain, **changed}, [])
    pack = msgspec.json.encode
    same = {name for name in stored if name not in changed or pack(changed[name]) == pack(plain[name])}
    assert {name: pack(kept[name]) for name in same} == {name: pack(stored[name]) for name in same}


@given(plain=st.dictionaries(st.sampled_from("abc"), leaves), now=st.dictionaries(st.sampled_from("abc"), leaves))
def test_unknown_names_survive_whatever_else_a_mapping_becomes(plain: dict[str, Any], now: dict[str, Any]) -> None:
    found: list[str] = []
    assert carry({**plain, "?x": 1}, plain, now, found)["?x"] == 1
    assert found == ["?x"]


# -- what it costs -------------------------------------------------------------------------------------------------


def calls_of(action: Callable[[], object]) -> list[str]:
    """Return the functions of the session's model and of the serializers that *action* enters, in order."""
    found: list[str] = []

    def note(frame: FrameType, event: str, _argument: object) -> None:
        file = frame.f_code.co_filename
        if event == "call" and ("/sojourn/serializers/" in file or file.endswith("/sojourn/session/model.py")):
            found.append(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(None)
    return found


@pytest.mark.parametrize("kind", ["dataclass", "Struct", "attrs"])
@pytest.mark.parametrize("serializer", ["json", "msgpack"])
def test_a_read_calls_the_library_alone_and_a_write_encodes_once_and_looks_once(kind: str, serializer: str) -> None:
    clock = FakeClock()
    model = KINDS[kind]("Data", {"count": (int, 0), "cart": (list[str], [])})
    settings = {"preset": "production", "secret": "d2hhdCBhIHRlc3Qgc2VhbHMgd2l0aCBpcyBubyBzZWM"}
    parts: dict[str, Any] = {"clock": clock, "model": model, "serializer": serializer, "settings": settings}
    store = MemoryStore(clock=clock)
    plain = make_manager(store, **parts).blocking
    session = plain.open(None)
    session.data.count = 1
    token = plain.commit(session).token
    assert calls_of(lambda: plain.open(token)) == []  # the library is called directly
    session = plain.open(token)
    session.data.count = 2
    # Classes of attrs may have converters, so what is written of them is decoded and compared.
    looks = ["_require_return", "decode", "_is_equal"] if kind == "attrs" else ["is_exact"]
    assert calls_of(lambda: plain.commit(session)) == ["settle", "_encoded", "encode", *looks]
    migrating = make_manager(store, migrate=lambda fields: fields, **parts).blocking
    assert calls_of(lambda: migrating.open(token)) == ["load", "decode"]
