"""What is stored comes back equal and of its type, or is refused by name: types x models x serializers.

A cell of the table is decided by the examples of its row; the property test draws more. The table on
docs/serializers.md is this one: a test fails where the page says something else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import decimal
import enum
import fractions
import ipaddress
import pathlib
import re
import uuid
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Generic, Literal, NamedTuple, NewType, TypeVar

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import TypedDict

from sojourn import Merge
from sojourn.errors import ConfigurationError, SerializationError
from sojourn.serializers import builtin_serializer
from sojourn.session.model import Model, difference
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock
from tests.core.models import make_manager

PAGE = Path(__file__).parents[2] / "docs" / "serializers.md"
T = TypeVar("T")
KEY = "d2hhdCBhIHRlc3Qgc2VhbHMgd2l0aCBpcyBubyBzZWM"


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Word(enum.StrEnum):
    YES = "yes"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Ratio(enum.Enum):
    HALF = 0.5
    PAIR = (1, 2)


class Markup(str):
    """As markupsafe has it: a str whose methods answer with others."""

    __slots__ = ()

    def __str__(self) -> str:
        return self


class Cents(int):
    pass


class Metres(float):
    pass


class Custom:
    pass


class Pair(NamedTuple):
    x: int = 0
    y: str = ""


@dataclass
class Item:
    name: str = ""
    seen: datetime.date | None = None


@dataclass
class Other:
    size: int


@dataclass(frozen=True, order=True)
class Point:
    x: int = 0


@dataclass
class Box(Generic[T]):
    value: T


@dataclass
class Tree:
    children: list[Tree] = field(default_factory=list)


class Small(msgspec.Struct):
    n: int = 0


@attrs.define
class Bag:
    n: int = 0


class Address(pydantic.BaseModel):
    city: str = ""


class Facts(TypedDict, total=False):
    n: int


UserId = NewType("UserId", int)
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
ODD = datetime.timezone(datetime.timedelta(minutes=19, seconds=32))
TODAY = datetime.date(2026, 2, 28)
NOON = datetime.datetime(2026, 2, 28, 12, 30, 15, 123456, tzinfo=datetime.UTC)
TWICE = datetime.datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN)

floats = st.floats(allow_nan=False, allow_infinity=False)
zones = st.sampled_from([datetime.UTC, BERLIN, datetime.timezone(datetime.timedelta(hours=-9, minutes=-30))])
texts = st.text(max_size=5)
plain_json = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | floats | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


@dataclass(frozen=True)
class Row:
    """A kind of field: its annotation, values that decide what the table says, and more to draw from."""

    name: str
    hint: Any
    examples: tuple[Any, ...]
    more: st.SearchStrategy[Any] = dataclasses.field(default_factory=st.nothing)

    @property
    def values(self) -> st.SearchStrategy[Any]:
        return st.sampled_from(self.examples) | self.more


ROWS: Final = (
    Row("`bool`", bool, (True, False)),
    Row("`int`, up to 64 bits", int, (0, -(2**63), 2**64 - 1), st.integers(-(2**63), 2**64 - 1)),
    Row("`int`, larger", int, (2**64, -(2**70)), st.integers(2**64, 2**90)),
    Row("`int` that holds `True`", int, (True, False)),
    Row("`int` that holds a subclass (`IntEnum`)", int, (Level.HIGH, Cents(7)), st.builds(Cents, st.integers(0, 99))),
    Row("`float`", float, (0.0, -0.0, 1.5, 1e300), floats),
    Row("`float`: NaN, infinite", float, (float("nan"), float("inf"))),
    Row(
        "`float` that holds an `int`, a subclass",
        float,
        (3, Metres(2.5)),
        st.integers(-9, 9) | st.builds(Metres, floats),
    ),
    Row("`str`", str, ("", "é\u2028\0", "null"), texts),
    Row("`str` that holds a subclass (`Markup`, `StrEnum`)", str, (Markup("<b>"), Word.YES), st.builds(Markup, texts)),
    Row("`bytes` that are UTF-8", bytes, (b"", b"ab"), texts.map(str.encode)),
    Row(
        "other `bytes`", bytes, (b"\xff\0", b"\x80"), st.binary(min_size=1, max_size=4).map(lambda some: b"\xff" + some)
    ),
    Row("`bytearray`", bytearray, (bytearray(b"\xffa"),), st.binary(max_size=5).map(bytearray)),
    Row(r"`int \| None`", int | None, (None, 0), st.none() | st.integers(0, 9)),
    Row(r"`int \| str`", int | str, (1, "1", ""), st.integers(0, 9) | texts),
    Row(r"`date \| str`", datetime.date | str, (TODAY, "2026-01-02", "x"), st.dates() | texts),
    Row("`Literal`", Literal["a", "b"], ("a", "b")),
    Row("`Enum`, `IntEnum` of `str` or `int`", Colour | None, (Colour.RED, None)),
    Row("`Enum` of other values", Ratio, (Ratio.HALF, Ratio.PAIR)),
    Row("`Flag`", Right, (Right.READ, Right.READ | Right.WRITE)),
    Row("`NewType`", UserId, (UserId(7),)),
    Row("`Annotated`", Annotated[int, Merge.counter], (7,)),
    Row("`date`", datetime.date, (TODAY, datetime.date.min), st.dates()),
    Row(
        "`datetime` without a zone",
        datetime.datetime,
        (NOON.replace(tzinfo=None), NOON.replace(year=1, tzinfo=None)),
        st.datetimes(),
    ),
    Row(
        "`datetime` with a zone",
        datetime.datetime,
        (NOON, TWICE, TWICE.replace(fold=1)),
        st.datetimes(
            min_value=NOON.replace(year=1970, tzinfo=None),
            max_value=NOON.replace(year=2200, tzinfo=None),
            timezones=zones,
        ),
    ),
    Row("`datetime`, an offset with seconds", datetime.datetime, (datetime.datetime(1900, 1, 1, tzinfo=ODD),)),
    Row("`time`", datetime.time, (datetime.time(1, 2, 3, 4), datetime.time(1, tzinfo=datetime.UTC)), st.times()),
    Row("`timedelta`", datetime.timedelta, (datetime.timedelta(-1, 1, 1), datetime.timedelta.max), st.timedeltas()),
    Row(
        "`Decimal`",
        decimal.Decimal,
        (decimal.Decimal("1.50"), decimal.Decimal("-0")),
        st.decimals(allow_nan=False, allow_infinity=False),
    ),
    Row("`Decimal`: NaN", decimal.Decimal, (decimal.Decimal("NaN"),)),
    Row("`UUID`", uuid.UUID, (uuid.UUID(int=7),), st.uuids()),
    Row("`Fraction`, `complex`", fractions.Fraction, (fractions.Fraction(1, 3),), st.fractions()),
    Row("`Path`", pathlib.Path | None, (pathlib.Path("/a/b"), None)),
    Row("`IPv4Address`", ipaddress.IPv4Address, (ipaddress.IPv4Address("10.0.0.1"),), st.ip_addresses(v=4)),
    Row(r"`IPv4Address \| None`", ipaddress.IPv4Address | None, (None, ipaddress.IPv4Address("10.0.0.1"))),
    Row("`re.Pattern` without flags", re.Pattern[str], (re.compile("a+"),)),
    Row("`re.Pattern` with flags", re.Pattern[str], (re.compile("a+", re.IGNORECASE),)),
    Row(
        "pydantic's `SecretStr`, `SecretBytes`",
        pydantic.SecretStr,
        (pydantic.SecretStr("hunter2"), pydantic.SecretStr("")),
        st.builds(pydantic.SecretStr, texts),
    ),
    Row("pydantic's `Secret[date]`", pydantic.Secret[datetime.date], (pydantic.Secret[datetime.date](TODAY),)),
    Row(
        "`list`, nested",
        list[list[int]],
        ([], [[1], []]),
        st.lists(st.lists(st.integers(0, 9), max_size=3), max_size=3),
    ),
    Row("`list` that holds a tuple", list[int], ((1, 2),)),
    Row("`tuple[int, str]`", tuple[int, str], ((1, "a"),)),
    Row("`tuple[int, ...]`", tuple[int, ...], ((), (1, 2))),
    Row("`NamedTuple`", Pair, (Pair(1, "a"),), st.builds(Pair, st.integers(0, 9), texts)),
    Row("`set`, `frozenset`", set[str], (set(), {"a", "b"}), st.sets(texts, max_size=4)),
    Row("`frozenset` of dataclasses", frozenset[Point], (frozenset({Point(1), Point(2)}),)),
    Row("`dict[str, int]`", dict[str, int], ({}, {"a": 1}), st.dictionaries(texts, st.integers(0, 9), max_size=4)),
    Row(
        "`dict[int, str]`, `dict[UUID, ...]`",
        dict[int, str],
        ({1: "a"},),
        st.dictionaries(st.integers(0, 9), texts, max_size=4),
    ),
    Row(
        "`dict` of sets",
        dict[str, set[int]],
        ({"a": {2, 1}},),
        st.dictionaries(texts, st.sets(st.integers(0, 9)), max_size=3),
    ),
    Row("`dict` that holds a subclass (`Counter`)", dict[str, int], (Counter("aab"), OrderedDict(a=1))),
    Row("`dict` with other keys (`tuple`)", dict[tuple[int, int], str], ({(1, 2): "a"},)),
    Row("`Mapping` that holds a `dict`", Mapping[str, int], ({"a": 1},)),
    Row("`Sequence` that holds a `list`", Sequence[int], ([1, 2],)),
    Row("`Sequence` that holds a `tuple`", Sequence[int], ((1, 2),)),
    Row("`collections.abc.Set`", AbstractSet[int], ({1}, frozenset({1}))),
    Row("`deque`", deque[int], (deque([1, 2]),)),
    Row("`OrderedDict`", OrderedDict[str, int], (OrderedDict(b=1, a=2),)),
    Row("`defaultdict`", defaultdict[str, int], (defaultdict(int, a=1),)),
    Row("`Counter`", Counter[str], (Counter("aab"),)),
    Row("a dataclass", Item, (Item("a", TODAY),), st.builds(Item, texts, st.none() | st.dates())),
    Row("a union of dataclasses", Item | Other, (Item("a"), Other(3))),
    Row("a recursive dataclass", Tree, (Tree([Tree(), Tree([Tree()])]),)),
    Row("a generic dataclass", Box[int], (Box(3),)),
    Row("a `msgspec.Struct`", Small, (Small(3),)),
    Row("a `TypedDict`", Facts, (Facts(n=1), Facts())),
    Row("a `TypedDict` with an undeclared key", Facts, ({"n": 1, "more": 2},)),
    Row("an attrs class", Bag, (Bag(3),)),
    Row("a pydantic model", Address, (Address(city="Bonn"),)),
    Row("`Any`: what JSON knows", Any, (None, 1, 1.0, "a", [1, {"a": [True]}]), plain_json),
    Row(
        "`Any`: a date, an UUID",
        dict[str, Any],
        ({"a": TODAY}, {"b": uuid.UUID(int=7)}),
        st.dictionaries(texts, st.dates(), min_size=1),
    ),
    Row("`Any`: a `datetime` with a zone", dict[str, Any], ({"a": NOON},)),
    Row("`Any`: bytes", Any, (b"a", b"\xff")),
    Row("`Any`: a tuple, a set", Any, ((1, 2), {1}, [(1,)])),
    Row("`Any`: a model", Any, (Item("a"), [Small(1)])),
    Row("`object`", object, (1, "a"), plain_json),
    Row("a class of one's own", Custom, (Custom(),)),
    Row("`list` of a class of one's own", list[Custom], ([], [Custom()])),
    Row("`Callable`, `type`, iterators", Callable[[], int], (len,)),
    Row("`range`, `ZoneInfo`", range, (range(3),)),
    Row("a value of another type (`int` holds `'5'`)", int, ("5", None, [])),
    Row("a value of another type (`str` holds a date)", str, (TODAY, NOON, uuid.UUID(int=7), Colour.RED)),
)
ROW_OF: Final = {row.name: row for row in ROWS}
SERIALIZERS: Final = ("json", "msgpack", "pydantic")


def _typed_dict(name: str, hint: Any) -> Any:
    return TypedDict(name, {"value": hint})  # type: ignore[operator]


MODELS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "dataclass": lambda name, hint: dataclasses.make_dataclass(name, [("value", hint)]),
    "Struct": lambda name, hint: msgspec.defstruct(name, [("value", hint)]),
    "TypedDict": _typed_dict,
    "attrs": lambda name, hint: attrs.make_class(name, {"value": attrs.field(type=hint)}),
    "BaseModel": lambda name, hint: pydantic.create_model(name, value=(hint, ...)),
}


def make(model: Any, value: object) -> Any:
    """Return an instance that holds *value*, unchecked, as an assignment leaves it."""
    if hasattr(model, "model_construct"):
        return model.model_construct(value=value)
    return model(value=value)


class Unchecked(Model[Any]):
    """A model whose new session holds nothing that could fail: each value decides by itself."""

    __slots__ = ()

    def _refuse_a_model_that_does_not_survive(self) -> None: ...


@cache
def start(row: str, kind: str, serializer: str, *, check: bool = True) -> tuple[Any, Model[Any] | str]:
    """Return the class and the model of a cell, or how start-up refused it."""
    try:
        cls = MODELS[kind]("Kept", ROW_OF[row].hint)
    except pydantic.errors.PydanticSchemaGenerationError as error:
        return None, f"pydantic refuses the class where it is declared: {type(error).__name__}"
    try:
        made = builtin_serializer(serializer, cls)
        assert made is not None
        return cls, Unchecked(cls, new=cls, serializer=made, check_round_trip=check)
    except ConfigurationError as error:
        return cls, str(error)


def outcome(row: str, kind: str, serializer: str, value: object) -> str:
    """Store *value* and read it back; return whether it is equal or refused, and assert that the refusal names it."""
    cls, model = start(row, kind, serializer)
    if isinstance(model, str):
        if cls is not None:
            assert "Kept" in model
            assert "field value" in model or REFUSED_MODELS[kind] == serializer, model
        return "start-up"
    data = make(cls, value)
    try:
        stored, _ = model.settle(None, data)
    except SerializationError as error:
        refused = error
    else:
        assert difference(data, model.decode(stored), {"value"}) is None
        return "equal"
    assert REFUSAL.match(str(refused)), str(refused)
    assert refused.__context__ is None
    found = re.search(r"set SOJOURN_SERIALIZER=(\w+)", str(refused))
    assert found is None or outcome(row, kind, found.group(1), value) == "equal"
    return "commit"


REFUSAL: Final = re.compile(
    r"field value\S* of Kept, declared as .+, holds an? \w+ that \w+ (cannot keep|brings back as (an? \w+|another value)); "
)
REFUSED_MODELS: Final = {
    "BaseModel": "msgpack",
    "Struct": "pydantic",
    "attrs": "pydantic",
    "dataclass": "",
    "TypedDict": "",
}
"""The serializer that does not take a kind of model, whatever its fields."""
KINDS_OF: Final = {
    "json": ("dataclass", "Struct", "TypedDict", "attrs"),
    "msgpack": ("dataclass", "Struct", "TypedDict", "attrs"),
    "pydantic": ("dataclass", "TypedDict", "BaseModel"),
}
"""The models that the table is about, for each serializer."""


@cache
def cell(row: str, serializer: str) -> str:
    """Return what the table says; it is the same for all kinds of models that the serializer takes."""
    found = {
        kind: {outcome(row, kind, serializer, value) for value in ROW_OF[row].examples} for kind in KINDS_OF[serializer]
    }
    said = {kind: min(outcomes, key=["start-up", "commit", "equal"].index) for kind, outcomes in found.items()}
    assert len(set(said.values())) == 1, said
    return said["dataclass"]


WORDS: Final = {"equal": "equal", "commit": "refused at the commit", "start-up": "refused at start-up"}


def table() -> list[str]:
    """Return the lines of the table on the page."""
    lines = [f"| a field that is declared | {' | '.join(f'`{name}`' for name in SERIALIZERS)} |", "|---|---|---|---|"]
    rows = (f"| {row.name} | {' | '.join(WORDS[cell(row.name, name)] for name in SERIALIZERS)} |" for row in ROWS)
    return [*lines, *rows]


@pytest.mark.slow
def test_the_page_of_serializers_has_the_table_that_the_serializers_make() -> None:
    # `python -m tests.core.test_fidelity` prints it.
    assert [line for line in PAGE.read_text().splitlines() if line.startswith("|")][: len(ROWS) + 2] == table()


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_a_serializer_takes_a_kind_of_model_or_refuses_all_of_its_kind(serializer: str, kind: str) -> None:
    refused = {isinstance(start(row.name, kind, serializer)[1], str) for row in ROWS}
    assert (refused == {True}) is (REFUSED_MODELS[kind] == serializer)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@given(data=st.data())
def test_a_value_comes_back_equal_and_of_its_type_or_is_refused_by_name(row: Row, data: st.DataObject) -> None:
    kind, serializer = data.draw(st.sampled_from(sorted(MODELS))), data.draw(st.sampled_from(SERIALIZERS))
    value = data.draw(row.values)
    said = outcome(row.name, kind, serializer, value)
    if kind in KINDS_OF[serializer]:
        # What the table calls equal is equal for all values, and what it calls refused at start-up for none.
        allowed = {"equal": {"equal"}, "start-up": {"start-up"}, "commit": {"commit", "equal"}}
        assert said in allowed[cell(row.name, serializer)]
    # In production types are not compared: what comes back is equal all the same.
    cls, model = start(row.name, kind, serializer, check=False)
    if isinstance(model, str):
        assert said == "start-up"
        return
    stored = None
    with contextlib.suppress(SerializationError):
        stored, _ = model.settle(None, make(cls, value))
    assert stored is not None or said == "commit"
    if stored is not None:
        before, again = make(cls, value), model.decode(stored)
        assert again == before or difference(before, again, {"value"}) is None


# -- one by one, through a manager ---------------------------------------------------------------------------------


@dataclass
class Visit:
    count: int = 0
    score: float = 0.0
    name: str = ""
    prefs: dict[str, Any] = field(default_factory=dict)
    items: list[Item] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    facts: Facts = field(default_factory=Facts)


class CamelVisit(msgspec.Struct, rename="camel"):
    user_name: str = ""


class Dated(TypedDict, total=False):
    when: datetime.date
    prefs: dict[str, Any]


class Token(pydantic.BaseModel):
    token: pydantic.SecretStr | None = None
    raw: pydantic.SecretBytes | None = None
    inner: list[pydantic.SecretStr] = []


def keep(data: Any, *, preset: str = "testing", **parts: Any) -> Any:
    """Store *data* with one manager and return what another session of it finds."""
    clock = FakeClock()
    manager = make_manager(
        MemoryStore(clock=clock), clock=clock, new=lambda: data, settings={"preset": preset, "secret": KEY}, **parts
    ).blocking
    session = manager.open(None)
    session.login("7")
    return manager.open(manager.commit(session).token).data


@pytest.mark.parametrize("preset", ["testing", "production"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"count": "5"},
            "field count of Visit, declared as int, holds a str that json cannot keep; store what the field declares, "
            "or declare the type that it holds",
        ),
        (
            {"count": True},
            "field count of Visit, declared as int, holds a bool that json cannot keep; "
            "set SOJOURN_SERIALIZER=pydantic, or store what the field declares",
        ),
        (
            {"prefs": {"hunter2": [TODAY]}},
            "field prefs[...][0] of Visit, declared as dict[str, Any], holds a date that json brings back as a str; "
            "store what the field declares, or declare the type that it holds",
        ),
        (
            {"prefs": {"a": b"x"}},
            "field prefs[...] of Visit, declared as dict[str, Any], holds a bytes that json brings back as a str; "
            "set SOJOURN_SERIALIZER=msgpack, or store what the field declares",
        ),
        (
            {"items": [Item(), Item(seen="hunter2")]},  # type: ignore[arg-type]
            "field items[1].seen of Visit, declared as date | None, holds a str that json cannot keep; store what the "
            "field declares, or declare the type that it holds",
        ),
        (
            {"name": TODAY},
            "field name of Visit, declared as str, holds a date that json brings back as a str; store what the field "
            "declares, or declare the type that it holds",
        ),
        (
            {"facts": {"n": 1, "hunter2": 2}},
            "field facts of Visit, declared as Facts, holds a dict that json brings back as another value; store what "
            "the field declares, or declare the type that it holds",
        ),
        (
            {"score": float("nan")},
            "field score of Visit, declared as float, holds a float that json cannot keep; "
            "set SOJOURN_SERIALIZER=msgpack, or store what the field declares",
        ),
    ],
    ids=["wrong type", "bool", "date in Any", "bytes in Any", "nested", "date in str", "undeclared key", "nan"],
)
def test_what_a_commit_refuses_is_named_with_its_type_and_what_to_do(
    preset: str, value: dict[str, Any], message: str
) -> None:
    clock = FakeClock()
    settings = {"preset": preset, "secret": KEY}
    manager = make_manager(MemoryStore(clock=clock), clock=clock, model=Visit, settings=settings).blocking
    session = manager.open(None)
    session.data = Visit(**value)
    for attempt in (session, None):
        if attempt is None:
            # A session that is stored already, which is written by another way.
            attempt = manager.open(None)  # noqa: PLW2901
            attempt.login("7")
            attempt = manager.open(manager.commit(attempt).token)  # noqa: PLW2901
            attempt.data = Visit(**value)
        with pytest.raises(SerializationError) as refused:
            manager.commit(attempt)
        assert str(refused.value) == message


def test_a_field_of_a_struct_is_named_as_python_has_it_and_that_of_a_typed_dict_by_its_key() -> None:
    with pytest.raises(
        ConfigurationError, match="field user_?[nN]ame of CamelVisit, declared as str, holds an int that"
    ):
        keep(CamelVisit(user_name=7), model=CamelVisit)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="field when of Dated, declared as date, holds a str that json cannot"):
        keep({"when": "hunter2"}, model=Dated)
    with pytest.raises(ConfigurationError, match=r"field prefs\[...\] of Dated, .* holds a date that json brings back"):
        keep({"prefs": {"hunter2": TODAY}}, model=Dated)


class Sloppy:
    """A serializer of a plugin, which changes what is too large and names no field in its errors."""

    name = "sloppy"
    known = frozenset({"name"})

    def encode(self, data: Other) -> bytes:
        if -100 < data.size < 0:
            raise SerializationError("too small", field="nowhere" if data.size < -1 else "")
        return str(data.size).encode()

    def decode(self, payload: bytes) -> Other:
        if int(payload) < 0:
            raise SerializationError("the session data does not fit")
        return Other(min(100, int(payload)))

    def encode_fields(self, fields: Mapping[str, object]) -> bytes:
        return str(fields["size"]).encode()

    def decode_fields(self, payload: bytes) -> dict[str, object]:
        raise SerializationError("it is no mapping")


def lists_of_depth(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


class Nested(pydantic.BaseModel):
    name: str = ""
    value: Any = None


class Even(pydantic.BaseModel):
    left: int = 0
    right: int = 0

    @pydantic.model_validator(mode="after")
    def check(self) -> Even:
        if self.left and self.right:
            raise ValueError
        return self


@pytest.mark.parametrize(
    ("model", "values", "message"),
    [
        (Nested, {"value": lists_of_depth(250)}, "field value of Nested, declared as Any, holds a list that pydantic"),
        # No field alone is wrong.
        (Even, {"left": 1, "right": 1}, "the stored session does not fit Even"),
        (Other, {"size": 101}, "field size of Other, declared as int, holds an int that sloppy brings back as"),
        (Other, {"size": -101}, "the session data does not fit"),
    ],
)
def test_a_field_is_named_also_where_the_error_of_a_library_names_none(
    model: Any, values: dict[str, Any], message: str
) -> None:
    new = (lambda: Other(1)) if model is Other else model
    manager = make_manager(model=model, new=new, serializer=Sloppy() if model is Other else "pydantic").blocking
    session = manager.open(None)
    for name, value in values.items():
        setattr(session.data, name, value)
    with pytest.raises(SerializationError, match=message):
        manager.commit(session)


@pytest.mark.parametrize("preset", ["testing", "production"])
def test_a_subclass_of_str_is_kept_as_its_base_under_every_serializer(preset: str) -> None:
    for serializer in SERIALIZERS:
        found = keep(Visit(name=Markup("<b>"), count=Cents(3)), preset=preset, model=Visit, serializer=serializer)
        assert (found.name, type(found.name), type(found.count)) == ("<b>", str, int)


@pytest.mark.parametrize("preset", ["testing", "production"])
def test_secrets_come_back_as_they_were(preset: str) -> None:
    data = Token(token="hunter2", raw=b"hunter3", inner=["a", "b"])  # type: ignore[arg-type, list-item]
    found = keep(data, preset=preset, model=Token)
    assert (found.token.get_secret_value(), found.raw.get_secret_value()) == ("hunter2", b"hunter3")
    assert found == data
    with pytest.raises(
        ConfigurationError, match="field raw of Token, declared as SecretBytes . None, holds a SecretBytes that"
    ):
        keep(Token(raw=b"\xff"), preset=preset, model=Token)  # type: ignore[arg-type]


def visiting(preset: str) -> Any:
    clock = FakeClock()
    settings = {"preset": preset, "secret": KEY}
    return make_manager(MemoryStore(clock=clock), clock=clock, model=Visit, settings=settings).blocking


def test_types_are_compared_in_development_and_testing_and_values_everywhere() -> None:
    for preset in ("development", "testing"):
        with pytest.raises(
            ConfigurationError, match="field prefs of Visit, .* holds a Counter that json brings back as a dict"
        ):
            keep(Visit(prefs=Counter("a")), preset=preset, model=Visit)
        manager = visiting(preset)
        session = manager.open(None)
        session.data.prefs = Counter("a")
        with pytest.raises(SerializationError, match="holds a Counter that json brings back as a dict"):
            manager.commit(session)
    manager = visiting("production")
    session = manager.open(None)
    session.data.prefs = Counter("a")
    manager.commit(session)
    session.data.numbers = (1, 2)
    with pytest.raises(
        SerializationError, match=r"field numbers of Visit, declared as list\[int\], holds a tuple that"
    ):
        manager.commit(session)


@attrs.define(slots=False)
class Residence:
    street: str = ""

    @cached_property
    def line(self) -> str:
        return self.street.upper()


@dataclass
class NoFields:
    pass


@dataclass
class Misspelt:
    currency: ClassVar[str] = "EUR"
    home: Residence = field(default_factory=Residence)
    homes: dict[str, list[Residence]] = field(default_factory=lambda: {"all": [Residence()]})

    def __post_init__(self) -> None:
        self.memo = len(self.homes)
        self._cache: dict[str, str] = {}


@pytest.mark.parametrize(
    ("assign", "path"),
    [
        (lambda data: setattr(data, "hme", 1), "hme"),
        (lambda data: setattr(data, "currency", "USD"), "currency"),
        (lambda data: setattr(data.home, "stret", "Main St"), "home.stret"),
        (lambda data: setattr(data.homes["all"][0], "stret", "Main St"), r"homes\[...\]\[...\].stret"),
    ],
    ids=["at the top", "of the class", "nested", "in a list"],
)
def test_what_is_assigned_to_no_field_is_named_in_development_instead_of_lost(
    assign: Callable[[Any], None], path: str
) -> None:
    manager = make_manager(model=Misspelt).blocking
    session = manager.open(None)
    session.touch()
    token = manager.commit(session).token
    session = manager.open(token)
    assign(session.data)
    with pytest.raises(
        SerializationError, match=f"Misspelt has no field {path}, so what was assigned to it is not stored"
    ):
        manager.commit(session)


def test_a_model_without_fields_names_what_is_assigned_to_it_too() -> None:
    manager = make_manager(model=NoFields).blocking
    session = manager.open(None)
    session.touch()
    session.data.user_id = 7
    with pytest.raises(SerializationError, match="NoFields has no field user_id"):
        manager.commit(session)


def test_what_an_object_works_out_for_itself_is_no_misspelt_field() -> None:
    manager = make_manager(model=Misspelt).blocking
    session = manager.open(None)
    session.data.home.street = "Main St"
    assert session.data.home.line == "MAIN ST"
    session.data._cache["a"] = "b"
    session = manager.open(manager.commit(session).token)
    assert (session.data.home.street, session.data.memo) == ("Main St", 1)


@dataclass
class Clamped:
    value: int = 0

    def __post_init__(self) -> None:
        self.value = min(self.value, 10)


class Shout:
    """A field that keeps another value than it was given."""

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        return 0 if owner is None else owner.__dict__["value"]

    def __set__(self, owner: Any, value: Any) -> None:
        owner.__dict__["value"] = min(value, 10)


@dataclass
class Described:
    value: int = Shout()  # type: ignore[assignment]


@dataclass
class Limited:
    value: Annotated[int, msgspec.Meta(le=10)] = 0


@dataclass
class Around:
    inner: list[Clamped] = field(default_factory=list)


@pytest.mark.parametrize("serializer", ["json", "msgpack"])
@pytest.mark.parametrize("kind", [Clamped, Described, Limited])
def test_a_class_that_has_a_hand_in_its_values_is_compared_at_each_write(kind: Any, serializer: str) -> None:
    made = builtin_serializer(serializer, kind)
    assert made is not None
    data = kind()
    data.__dict__["value"] = 11  # as a library may do it
    model = Model(kind, new=kind, serializer=made)
    with pytest.raises(SerializationError, match="field value of"):
        model.settle(None, data)


def test_a_class_with_a_hand_in_its_values_is_compared_inside_others_too() -> None:
    made = builtin_serializer("json", Around)
    assert made is not None
    data = Around([Clamped(3)])
    data.inner[0].value = 11
    with pytest.raises(SerializationError, match=r"field inner\[0\].value of Around"):
        Model(Around, new=Around, serializer=made).settle(None, data)


@attrs.define
class Private:
    _token: str = ""


@dataclass
class HoldsPrivate:
    inner: list[Private] = field(default_factory=list)


@dataclass
class Excluding:
    value: int = field(default=0, init=False)


class Excluded(pydantic.BaseModel):
    value: int = pydantic.Field(default=0, exclude=True)


class Tokens(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    inner: dict[str, list[Custom]] = {}


@dataclass
class Homes:
    homes: list[ipaddress.IPv4Address | None] = field(default_factory=list)


@dataclass
class Customs:
    inner: dict[str, list[Custom]] = field(default_factory=dict)


@dataclass
class Ratios:
    ratio: Ratio = Ratio.HALF


@dataclass
class Either:
    either: Item | Other = field(default_factory=Item)


@pytest.mark.parametrize(
    ("model", "serializer", "message"),
    [
        (Private, "json", "field _token of the session model Private would be lost: json leaves the private names"),
        (HoldsPrivate, "msgpack", "field inner[...]._token of the session model HoldsPrivate would be lost: msgpack"),
        (Excluding, "pydantic", "field value of the session model Excluding would be lost: pydantic does not read fields with init=False; set SOJOURN_SERIALIZER=msgpack"),
        (Excluded, "json", "field value of the session model Excluded would be lost: it has exclude=True"),
        (Tokens, "json", "field inner[...][...] of the session model Tokens has the type tests.core.test_fidelity.Custom, which pydantic cannot keep; no built-in serializer does; declare another type"),
        (Homes, "json", "field homes[...] of the session model Homes has the type ipaddress.IPv4Address, which json cannot keep; set SOJOURN_SERIALIZER=pydantic"),
        (Customs, "msgpack", "field inner[...][...] of the session model Customs has the type tests.core.test_fidelity.Custom, which msgpack cannot keep; no built-in"),
        (Ratios, "json", "field ratio of the session model Ratios has the type tests.core.test_fidelity.Ratio, which json cannot keep ("),
        (Either, "json", "field either of the session model Either has the type "),
        (Either, "json", "; set SOJOURN_SERIALIZER=pydantic"),
        (Bag, "pydantic", "the session model Bag is of a kind (attrs class) that pydantic does not know; set SOJOURN_SERIALIZER=json"),
    ],
)  # fmt: skip
def test_what_start_up_refuses_is_named_with_its_type_and_the_serializer_that_keeps_it(
    model: Any, serializer: str, message: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        make_manager(model=model, serializer=serializer)
    assert message in str(refused.value)


def validated(value: object) -> Custom:
    return value if isinstance(value, Custom) else Custom()


class Validated(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    value: Annotated[
        Custom | None, pydantic.BeforeValidator(validated), pydantic.PlainSerializer(lambda value: "custom")
    ] = None


def test_a_class_that_the_model_itself_writes_and_reads_is_compared_by_value() -> None:
    with pytest.raises(
        ConfigurationError, match="field value of Validated, declared as Custom . None, holds a Custom that"
    ):
        keep(Validated(value=Custom()), model=Validated)


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")


class Odd:
    """Compares as badly as a class can."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("value", "again", "path"),
    [
        ({"a": 1}, {"b": 1}, ""),
        ([1], [1, 2], ""),
        ([(1, [2.0])], [(1, [3.0])], "[0][1][0]"),
        (1, True, ""),
        (True, 1, None),
        (3, 3.0, None),
        (3, 4.0, ""),
        (Odd(), Odd(), ""),
        (Item("a"), Item("b"), ".name"),
        (float("nan"), float("nan"), None),
        (float("nan"), 1.0, ""),
        ("1", 1, ""),
        (NOON, NOON.replace(tzinfo=None), ""),
        (Open(a=1), Open(b=1), ""),  # type: ignore[call-arg]
        (Open(a=1), Open(a=2), ".a"),  # type: ignore[call-arg]
    ],
)
def test_a_difference_is_found_where_it_is(value: object, again: object, path: str | None) -> None:
    found = difference(value, again)
    assert (found if found is None else found[0]) == path


def test_without_types_what_is_equal_is_no_difference_and_what_cannot_be_compared_is_one() -> None:
    assert difference({"a": Counter("a")}, {"a": {"a": 1}}, types=False) is None
    found = difference([Counter("a"), Odd()], [{"a": 1}, Odd()], types=False)
    assert found is not None
    assert found[0] == "[1]"


def test_what_a_serializer_of_a_plugin_changes_is_refused_as_well() -> None:
    manager = make_manager(model=Other, new=lambda: Other(1), serializer=Sloppy()).blocking
    session = manager.open(None)
    session.data.size = 101
    with pytest.raises(
        SerializationError,
        match="field size of Other, declared as int, holds an int that sloppy brings back as another value; set SOJOURN_SERIALIZER=msgpack",
    ):
        manager.commit(session)
    session.data.size = -1
    with pytest.raises(SerializationError, match="too small"):
        manager.commit(session)
    session.data.size = -2
    with pytest.raises(SerializationError, match="field nowhere of Other holds an Other that sloppy cannot keep; set"):
        manager.commit(session)


if __name__ == "__main__":
    print("\n".join(table()))
