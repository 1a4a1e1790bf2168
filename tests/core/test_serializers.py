from __future__ import annotations

import datetime
import decimal
import enum
import pickle
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NotRequired, Optional, TypeVar

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import TypedDict

from sojourn.errors import ConfigurationError, SerializationError
from sojourn.serializers import (
    JsonSerializer,
    MsgpackSerializer,
    PydanticSerializer,
    Serializer,
    SerializerFactory,
    builtin_serializer,
)
from sojourn.serializers.msgspec_models import decoding_path, failing_path, with_order_of
from sojourn.serializers.pydantic_models import as_stored

T = TypeVar("T")
SECRET = "hunter2-never-shown"


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Item:
    name: str = ""
    price: float = 0.0


@dataclass
class PlainModel:
    user_id: int | None = None
    cart: list[str] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)
    prefs: dict[str, Any] = field(default_factory=dict)
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class FrozenModel:
    user_id: int | None = None
    tags: frozenset[str] = frozenset()


class RenamedStruct(msgspec.Struct, frozen=True, rename="camel", tag="shop"):
    user_id: int | None = None
    score: float = 0.0


class PartialDict(TypedDict, total=False):
    user_id: int
    tags: set[str]


class MixedDict(TypedDict):
    user_id: int
    note: NotRequired[str]


@attrs.frozen
class AttrsModel:
    user_id: int | None = None
    colour: Colour = Colour.RED


@dataclass
class Box(Generic[T]):
    value: T
    others: list[T] = field(default_factory=list)


@dataclass
class IntBox(Box[int]):
    name: str = ""


@dataclass
class Tree:
    label: str = ""
    children: list[Tree] = field(default_factory=list)
    parent: Tree | None = None


class AliasedPydantic(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True)
    user_id: int | None = pydantic.Field(default=None, validation_alias="uid", serialization_alias="userId")
    tags: set[str] = set()
    sizes: frozenset[int] = frozenset()
    score: float | None = None
    items: list[Item] = []
    by_name: dict[str, set[str]] = {}

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return (self.user_id or 0) * 2


class SmallPydantic(pydantic.BaseModel):
    user_id: int | None = None
    secret: bytes = b""


STRUCTURED: list[SerializerFactory] = [JsonSerializer, MsgpackSerializer]
names = st.text(max_size=5)
plain_models = st.builds(
    PlainModel,
    user_id=st.none() | st.integers(-(2**63), 2**63 - 1),
    cart=st.lists(names, max_size=4),
    items=st.lists(st.builds(Item, name=names, price=st.floats(allow_nan=False, allow_infinity=False)), max_size=3),
    tags=st.sets(names, max_size=5),
    prefs=st.dictionaries(names, st.none() | st.booleans() | st.integers(0, 9) | names, max_size=4),
    score=st.floats(allow_nan=False, allow_infinity=False),
)


def some(model: Any) -> Serializer[Any]:
    made = builtin_serializer("auto", model)
    assert made is not None
    return made


@pytest.mark.parametrize("factory", [*STRUCTURED, PydanticSerializer])
@given(data=plain_models)
def test_what_is_encoded_decodes_to_an_equal_model(factory: SerializerFactory, data: PlainModel) -> None:
    serializer = factory(PlainModel)
    payload = serializer.encode(data)
    assert serializer.decode(payload) == data
    assert serializer.decode_fields(payload).keys() == serializer.known
    assert serializer.encode(serializer.decode(payload)) == payload


@pytest.mark.parametrize("factory", [*STRUCTURED, PydanticSerializer])
@given(tags=st.lists(names, unique=True, min_size=2, max_size=6), keys=st.permutations(["b", "a", "c"]))
def test_equal_sets_encode_to_equal_bytes_and_dicts_keep_their_order(
    factory: SerializerFactory, tags: list[str], keys: list[str]
) -> None:
    serializer = factory(PlainModel)
    backwards = tags[::-1]
    prefs = {key: [key, {"z": 1, "a": 2}] for key in keys}
    first = serializer.encode(PlainModel(tags=set(tags), prefs=prefs))
    assert first == serializer.encode(PlainModel(tags=set(backwards), prefs=prefs))
    kept: Any = serializer.decode_fields(first)
    assert list(kept["prefs"]) == keys
    assert list(kept["prefs"]["a"][1]) == ["z", "a"]
    assert kept["tags"] == sorted(kept["tags"])


@pytest.mark.parametrize("factory", [*STRUCTURED, PydanticSerializer])
@given(payload=st.binary(max_size=60))
def test_any_bytes_decode_or_are_refused_as_a_serialization_error(factory: SerializerFactory, payload: bytes) -> None:
    serializer = factory(PlainModel)
    for decode in (serializer.decode, serializer.decode_fields):
        try:
            decode(payload)
        except SerializationError as error:
            assert error.__context__ is None  # noqa: PT017 - either outcome is right, this one has a form


@pytest.mark.parametrize("factory", [*STRUCTURED, PydanticSerializer])
@given(
    fields=st.dictionaries(names, st.recursive(st.none() | st.booleans() | names, st.lists, max_leaves=4), max_size=4)
)
def test_plain_fields_survive_in_their_order(factory: SerializerFactory, fields: dict[str, object]) -> None:
    serializer = factory(PlainModel)
    back = serializer.decode_fields(serializer.encode_fields(fields))
    assert list(back.items()) == list(fields.items())


@pytest.mark.parametrize(
    ("model", "data", "known"),
    [
        (PlainModel, PlainModel(3, ["a"]), {"user_id", "cart", "items", "tags", "prefs", "score"}),
        (FrozenModel, FrozenModel(3, frozenset("ba")), {"user_id", "tags"}),
        (RenamedStruct, RenamedStruct(3), {"type", "userId", "score"}),
        (PartialDict, {"user_id": 3}, {"user_id", "tags"}),
        (PartialDict, {}, {"user_id", "tags"}),
        (MixedDict, {"user_id": 3}, {"user_id", "note"}),
        (AttrsModel, AttrsModel(3, Colour.BLUE), {"user_id", "colour"}),
        (Box[int], Box(3, [4]), {"value", "others"}),
        (IntBox, IntBox(3, [4], "x"), {"value", "others", "name"}),
        (Tree, Tree("a", [Tree("b")]), {"label", "children", "parent"}),
    ],
)
@pytest.mark.parametrize("name", ["json", "msgpack", "auto"])
def test_every_kind_of_model_survives(name: str, model: Any, data: Any, known: set[str]) -> None:
    serializer = builtin_serializer(name, model)
    assert isinstance(serializer, Serializer)
    assert serializer.name == ("msgpack" if name == "msgpack" else "json")
    assert serializer.known == known
    payload = serializer.encode(data)
    assert serializer.decode(payload) == data
    assert serializer.decode_fields(payload).keys() <= known


def test_a_pydantic_model_is_kept_by_pydantic_under_its_field_names() -> None:
    serializer = some(AliasedPydantic)
    data = AliasedPydantic(
        uid=3,  # type: ignore[call-arg]
        tags={"z", "a"},
        sizes=frozenset({3, 1}),
        items=[Item("x")],
        by_name={"k": {"y", "b"}},
    )
    payload = serializer.encode(data)
    assert serializer.name == "pydantic"
    assert serializer.known == {"user_id", "tags", "sizes", "score", "items", "by_name"}
    assert serializer.decode(payload) == data
    fields = serializer.decode_fields(payload)
    assert fields.keys() == serializer.known
    assert fields["tags"] == ["a", "z"]
    assert fields["sizes"] == [1, 3]
    assert fields["by_name"] == {"k": ["b", "y"]}
    assert serializer.encode_fields({"a": 1}) == b'{"a":1}'


@pytest.mark.parametrize(("model", "data"), [(MixedDict, {"user_id": 3}), (Item, Item("x", 1.5)), (Box[int], Box(1))])
def test_pydantic_may_be_asked_to_keep_other_models(model: Any, data: Any) -> None:
    serializer = builtin_serializer("pydantic", model)
    assert serializer is not None
    assert serializer.decode(serializer.encode(data)) == data


def test_a_name_that_is_not_built_in_is_left_to_the_plugins() -> None:
    assert builtin_serializer("yaml", PlainModel) is None


@pytest.mark.parametrize("model", [int, list[int], int | str, Optional[int], str, Colour])  # noqa: UP045 - both forms
@pytest.mark.parametrize("name", ["json", "msgpack", "pydantic"])
def test_what_is_no_model_is_refused_when_the_serializer_is_made(name: str, model: Any) -> None:
    with pytest.raises(ConfigurationError, match="is no session model"):
        builtin_serializer(name, model)


class ArrayStruct(msgspec.Struct, array_like=True):
    user_id: int = 0


@dataclass
class Unresolved:
    user_id: Nowhere  # type: ignore[name-defined] # noqa: F821


@dataclass
class TwoDicts:
    value: FrozenModel | Item


@pytest.mark.parametrize(
    ("name", "model", "match"),
    [
        ("json", ArrayStruct, "array_like"),
        ("json", Unresolved, "Unresolved cannot be kept as json"),
        ("json", TwoDicts, "field value of .* TwoDicts has the type .*FrozenModel .*SOJOURN_SERIALIZER=pydantic"),
        ("pydantic", Unresolved, "Unresolved cannot be kept as pydantic"),
        ("msgpack", SmallPydantic, "set SOJOURN_SERIALIZER=json"),
    ],
)
def test_a_model_that_does_not_suit_is_refused_with_its_name(name: str, model: Any, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        builtin_serializer(name, model)


Cyclic: list[object] = []
Cyclic.append(Cyclic)


@pytest.mark.parametrize("name", ["json", "msgpack"])
@pytest.mark.parametrize(
    ("model", "data", "path"),
    [
        (PlainModel, PlainModel(user_id=object()), "user_id"),  # type: ignore[arg-type]
        (PlainModel, PlainModel(cart=["a", SECRET + "\ud800"]), "cart[1]"),
        (PlainModel, PlainModel(items=[Item(), Item(object())]), "items[1].name"),  # type: ignore[arg-type]
        (PlainModel, PlainModel(prefs={SECRET: {"x": (1, object())}}), "prefs[...][...][1]"),
        (PlainModel, PlainModel(tags={object()}), "tags[...]"),  # type: ignore[arg-type]
        (RenamedStruct, RenamedStruct(object()), "user_id"),  # type: ignore[arg-type]
        (AttrsModel, AttrsModel(object()), "user_id"),  # type: ignore[arg-type]
        (PartialDict, {"user_id": object()}, "user_id"),
        (PartialDict, {"tags": {object()}}, "tags[...]"),
    ],
)
def test_f15_a_value_that_does_not_serialise_is_named_by_its_path(name: str, model: Any, data: Any, path: str) -> None:
    serializer = builtin_serializer(name, model)
    assert serializer is not None
    with pytest.raises(SerializationError) as caught:
        serializer.encode(data)
    assert f"field {path} of {model.__name__} cannot be kept as {name}" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None


def test_f15_data_that_contains_itself_is_refused() -> None:
    with pytest.raises(SerializationError, match="field prefs"):
        some(PlainModel).encode(PlainModel(prefs={"x": Cyclic}))


class Slippery(msgspec.Struct):
    """Fails as a whole although each of its fields can be encoded."""

    prefs: dict[Any, int] = {}


def test_f15_a_mapping_with_a_key_that_json_cannot_write_is_named() -> None:
    with pytest.raises(SerializationError, match="field prefs of Slippery"):
        some(Slippery).encode(Slippery({(1, 2): 3}))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_f15_a_float_that_json_would_turn_into_null_is_refused_by_json_and_kept_by_msgpack(bad: float) -> None:
    data = PlainModel(items=[Item(), Item("x", bad)])
    with pytest.raises(SerializationError, match=r"field items\[1\].price of PlainModel"):
        JsonSerializer(PlainModel).encode(data)
    with pytest.raises(SerializationError, match="session field 'score'"):
        JsonSerializer(PlainModel).encode_fields({"user_id": None, "score": [bad]})
    with pytest.raises(SerializationError, match="field score of AliasedPydantic"):
        some(AliasedPydantic).encode(AliasedPydantic(score=bad))
    with pytest.raises(SerializationError, match="field score of PlainModel"):
        PydanticSerializer(PlainModel).encode(PlainModel(score=bad))
    packed = MsgpackSerializer(PlainModel)
    assert repr(packed.decode(packed.encode(data)).items[1].price) == repr(bad)


class Precise(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(ser_json_inf_nan="strings")
    score: float = 0.0
    note: str | None = None


class PreciseDict(TypedDict):
    note: str | None
    score: float


def test_a_pydantic_model_that_writes_infinities_itself_keeps_them() -> None:
    serializer = some(Precise)
    assert serializer.decode(serializer.encode(Precise(score=float("inf")))).score == float("inf")


def test_f15_an_infinity_in_a_typed_dict_under_pydantic_is_named() -> None:
    with pytest.raises(SerializationError, match="field score of PreciseDict"):
        PydanticSerializer(PreciseDict).encode({"note": None, "score": float("inf")})


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (SmallPydantic.model_construct(user_id=SECRET), "user_id"),
        (SmallPydantic(secret=b"\xff"), "secret"),
    ],
)
def test_f15_pydantic_names_the_field_and_never_the_value(data: SmallPydantic, name: str) -> None:
    with pytest.raises(SerializationError) as caught:
        some(SmallPydantic).encode(data)
    assert str(caught.value) == f"field {name} of SmallPydantic cannot be kept as pydantic"
    assert caught.value.__context__ is None


@pytest.mark.parametrize("factory", [*STRUCTURED, PydanticSerializer])
def test_f15_a_plain_field_that_does_not_serialise_is_named(factory: SerializerFactory) -> None:
    serializer = factory(PlainModel)
    with pytest.raises(SerializationError, match="session field 'cart' cannot be kept") as caught:
        serializer.encode_fields({"user_id": SECRET, "cart": [object()]})
    assert SECRET not in str(caught.value)
    with pytest.raises(SerializationError, match="names of session fields are str, not int"):
        serializer.encode_fields({1: 2})  # type: ignore[dict-item]
    with pytest.raises(SerializationError, match=r"session field '\\ud800' cannot be kept"):
        serializer.encode_fields({"\ud800": 2})
    with pytest.raises(SerializationError, match="mapping"):
        serializer.decode_fields(serializer.encode_fields({"a": 1})[:-1])


@pytest.mark.parametrize("name", ["json", "msgpack", "pydantic"])
def test_data_of_another_type_is_refused(name: str) -> None:
    serializer = builtin_serializer(name, Item)
    assert serializer is not None
    with pytest.raises(SerializationError, match="the session data is a dict, not a Item"):
        serializer.encode({"name": SECRET})


@pytest.mark.parametrize("factory", [*STRUCTURED, PydanticSerializer])
def test_f15_a_key_that_a_typed_dict_does_not_declare_is_refused_rather_than_lost(factory: SerializerFactory) -> None:
    with pytest.raises(SerializationError, match="a key that PartialDict does not declare"):
        factory(PartialDict).encode({"user_id": 1, SECRET: 2})


@pytest.mark.parametrize(
    ("model", "payload", "message"),
    [
        (PlainModel, b'{"user_id":"hunter2"}', "the stored session does not fit PlainModel: field user_id"),
        (
            PlainModel,
            b'{"items":[{},{"price":"hunter2"}]}',
            "the stored session does not fit PlainModel: field items[1].price",
        ),
        (MixedDict, b'{"note":"hunter2"}', "the stored session does not fit MixedDict: field user_id"),
        (Box[int], b'{"others":["hunter2"],"value":1}', "the stored session does not fit Box: field others[0]"),
        (AttrsModel, b'{"colour":"hunter2` - at `$.x"}', "the stored session does not fit AttrsModel: field colour"),
        (PlainModel, b'["hunter2"]', "the stored session does not fit PlainModel"),
        (PlainModel, b'{"user_id":1', "the stored session does not fit PlainModel"),
        (PlainModel, b'{"prefs":' + b"[" * 100_000, "the stored session does not fit PlainModel: field prefs"),
        (SmallPydantic, b'{"user_id":"hunter2"}', "the stored session does not fit SmallPydantic: field user_id"),
        (SmallPydantic, b'{"user_id":1', "the stored session does not fit SmallPydantic"),
    ],
)
def test_r6_a_payload_that_does_not_fit_is_named_by_field_and_never_by_value(
    model: Any, payload: bytes, message: str
) -> None:
    with pytest.raises(SerializationError) as caught:
        some(model).decode(payload)
    assert str(caught.value) == message
    assert caught.value.__context__ is None


@dataclass
class Broken:
    user_id: int = 0

    def __post_init__(self) -> None:
        raise RuntimeError(SECRET)


class BrokenPydantic(pydantic.BaseModel):
    user_id: int = 0

    @pydantic.model_validator(mode="before")
    @classmethod
    def check(cls, data: object) -> object:
        raise RuntimeError(SECRET)


@pytest.mark.parametrize("model", [Broken, BrokenPydantic])
def test_a_model_whose_own_code_raises_while_decoding_is_a_serialization_error(model: Any) -> None:
    with pytest.raises(SerializationError) as caught:
        some(model).decode(b'{"user_id":1}')
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("factory", [*STRUCTURED, PydanticSerializer])
def test_fields_of_a_newer_model_are_skipped_by_decode_and_kept_by_decode_fields(factory: SerializerFactory) -> None:
    serializer = factory(Item)
    payload = serializer.encode_fields({"name": "x", "price": 1.5, "colour": {"is": "new"}})
    assert serializer.decode(payload) == Item("x", 1.5)
    unknown = {name: value for name, value in serializer.decode_fields(payload).items() if name not in serializer.known}
    assert unknown == {"colour": {"is": "new"}}


@dataclass(frozen=True, order=True)
class Point:
    x: int
    y: int


@dataclass
class Sets:
    """Holds sets and no dicts: one pass encodes it."""

    mixed: set[int | str] = field(default_factory=set)
    points: frozenset[Point] = frozenset()


@dataclass
class SetsAndDicts:
    mixed: set[int | str] = field(default_factory=set)
    when: datetime.datetime | None = None
    raw: bytes = b""
    scores: dict[int, decimal.Decimal] = field(default_factory=dict)
    ids: dict[uuid.UUID, Colour] = field(default_factory=dict)


@pytest.mark.parametrize("factory", STRUCTURED)
def test_sets_of_comparable_members_are_sorted_and_others_still_survive(factory: SerializerFactory) -> None:
    serializer = factory(Sets)
    data = Sets(points=frozenset({Point(3, 1), Point(1, 2), Point(2, 0)}))
    fields: Any = serializer.decode_fields(serializer.encode(data))
    assert [point["x"] for point in fields["points"]] == [1, 2, 3]
    for model in (Sets, SetsAndDicts):
        mixed = model(mixed={1, "a", 2, "b"})
        assert factory(model).decode(factory(model).encode(mixed)) == mixed


def test_under_pydantic_members_of_several_types_are_sorted_as_text() -> None:
    serializer = PydanticSerializer(Sets)
    fields = serializer.decode_fields(serializer.encode(Sets(mixed={1, "a", 2, "b"})))
    assert fields["mixed"] == ["a", "b", 1, 2]


@pytest.mark.parametrize("factory", STRUCTURED)
def test_values_beyond_json_survive_beside_sets_and_dicts(factory: SerializerFactory) -> None:
    serializer = factory(SetsAndDicts)
    data = SetsAndDicts(
        mixed={2, 1},
        when=datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=datetime.UTC),
        raw=b"\xff\x00",
        scores={2: decimal.Decimal("1.50"), 1: decimal.Decimal(2)},
        ids={uuid.UUID(int=7): Colour.BLUE},
    )
    payload = serializer.encode(data)
    assert serializer.decode(payload) == data
    assert list(serializer.decode(payload).scores) == [2, 1]
    assert serializer.decode_fields(serializer.encode_fields(serializer.decode_fields(payload))) == (
        serializer.decode_fields(payload)
    )


def test_r37_a_pickle_is_refused_and_not_executed() -> None:
    touched: list[str] = []

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (exec, ("raise SystemExit",))

    for serializer in (JsonSerializer(PlainModel), MsgpackSerializer(PlainModel), PydanticSerializer(PlainModel)):
        with pytest.raises(SerializationError):
            serializer.decode(pickle.dumps(Trap()))
    assert touched == []


def test_importing_the_serializers_loads_neither_pydantic_nor_asyncio() -> None:
    program = "import sys, sojourn.serializers; print(sorted({'pydantic', 'asyncio', 'pickle'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_path_ends_even_in_data_that_contains_itself() -> None:
    assert failing_path(Cyclic, lambda _: True) == "[0]" * 32


@pytest.mark.parametrize(
    ("message", "path"),
    [
        ("Expected `int`, got `str` - at `$.a.b[1]`", "a.b[1]"),
        ("Expected `int`, got `str` - at `key` in `$.prefs`", "prefs"),
        ("Object missing required field `x`", "x"),
        ("Object missing required field `x` - at `$.items[0]`", "items[0].x"),
        ("Input data was truncated", ""),
    ],
)
def test_the_path_of_a_refused_payload_is_read_from_the_end_of_the_message(message: str, path: str) -> None:
    assert decoding_path(message) == path


@pytest.mark.parametrize(
    ("kept", "ordered", "expected"),
    [
        ({"b": 1, "a": 2}, {"a": 2, "b": 1}, ["b", "a"]),
        ({"b": 1}, {"a": 2}, ["a"]),
        ([{"b": 1, "a": 2}], [{"a": 2, "b": 1}, {}], [{}, {}]),
        (1, {"a": 1}, ["a"]),
    ],
)
def test_values_that_do_not_pair_keep_the_sorted_form(kept: object, ordered: Any, expected: list[object]) -> None:
    merged: Any = with_order_of(kept, ordered)
    assert merged == ordered
    assert len(list(merged)) == len(expected)
    if isinstance(merged, dict):
        assert list(merged) == expected


def test_only_lists_that_are_sets_are_sorted() -> None:
    plain = {"set": [3, 1], "list": [3, 1], "pairs": [[[2, 1], 5]], "leaf": 1}
    typed: Mapping[str, Sequence[object] | object] = {"set": {3, 1}, "list": [3, 1], "pairs": [({2, 1}, 5)], "leaf": 1}
    assert as_stored(plain, typed) == {"set": [1, 3], "list": [3, 1], "pairs": [[[1, 2], 5]], "leaf": 1}
