"""The serializers over msgspec: JSON and MessagePack, for dataclass, Struct, TypedDict and attrs models.

Error messages name the field that failed, never a value (SECURITY R6, FAILURES F15).
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MemberDescriptorType
from typing import Any, ClassVar, Final, Generic, TypeAlias, TypeVar, cast, get_origin, get_type_hints

import msgspec
from msgspec import inspect

from sojourn.errors import ConfigurationError, SerializationError
from sojourn.merge import field_names, is_dict, is_list

T = TypeVar("T")

_DECLARE = "declare a dataclass, msgspec.Struct, TypedDict, attrs or pydantic model"
_DEEPEST = 32
"""The most steps of a path, so that data which contains itself comes to an end."""
_DECODE_PATH = re.compile(r"- at (?:`key` in )?`\$([^`]*)`\Z")
IsExact: TypeAlias = Callable[[Any], bool]
_KEPT: Final[dict[Any, type]] = {
    inspect.StrType: str,
    inspect.IntType: int,
    inspect.FloatType: float,
    inspect.BoolType: bool,
    inspect.NoneType: type(None),
}
_MISSING_FIELD = re.compile(r"\AObject missing required field `([^`]*)`")


def as_base(value: object) -> object:
    """Return a subclass of str, int or float as its base: what msgspec asks for a value that it does not know."""
    for base in (str, int, float):
        if isinstance(value, base):
            # The conversion of the base itself: a subclass may have a `__str__` of its own.
            return getattr(base, f"__{base.__name__}__")(value)
    raise TypeError(f"values of type {type(value).__name__} cannot be encoded")


class TypeLostError(ConfigurationError):
    """A type of the model would be lost or changed by the serializer; another serializer may keep it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format of msgspec: JSON or MessagePack."""

    name: str
    encode: Callable[[object], bytes]
    """Encodes sets in their own order."""
    encode_sorted: Callable[[object], bytes]
    """Encodes sets and the keys of dicts sorted."""
    decoder: Callable[[Any], Callable[[bytes], Any]]
    native: tuple[type, ...]
    """The types that the format supports beyond those of JSON."""
    finite_only: bool
    """Whether NaN and the infinities are encoded as null."""

    def cannot_encode(self, value: object) -> bool:
        """Return whether *value* cannot be encoded."""
        try:
            self.encode(value)
        except Exception:  # noqa: BLE001 - whatever it is, the value failed
            return True
        return False


JSON = Format(
    name="json",
    encode=msgspec.json.Encoder(enc_hook=as_base).encode,
    encode_sorted=msgspec.json.Encoder(enc_hook=as_base, order="deterministic").encode,
    decoder=lambda model: msgspec.json.Decoder(model).decode,
    native=(),
    finite_only=True,
)
MSGPACK = Format(
    name="msgpack",
    encode=msgspec.msgpack.Encoder(enc_hook=as_base).encode,
    encode_sorted=msgspec.msgpack.Encoder(enc_hook=as_base, order="deterministic").encode,
    decoder=lambda model: msgspec.msgpack.Decoder(model).decode,
    native=(bytes, bytearray, memoryview, datetime.datetime),
    finite_only=False,
)


class ModelSerializer(ABC, Generic[T]):
    """What all serializers of models have in common: the checks around encoding and decoding, and errors that name the field.

    What can be decided about a model is decided once, in the constructor, so that encoding takes about a microsecond.
    """

    name: str
    known: frozenset[str]
    _finite_only: bool
    """Whether a float that JSON cannot express would be written as null, which is not read back as it was."""
    _encode: Callable[[T], bytes]
    _decode: Callable[[bytes], T]

    def __init__(self, model: type[T], form: Format) -> None:
        self._model = model_name(model)
        self._class: type[Any] = model_class(model)
        self._is_dict = self._class is dict
        self._plain = PlainFields(form)

    def encode(self, data: T) -> bytes:
        """Return the bytes of *data*, the same for equal data; SerializationError names the field that failed."""
        if not isinstance(data, self._class):
            raise SerializationError(f"the session data is a {type(data).__name__}, not a {self._model}")
        if self._is_dict and not cast("dict[str, object]", data).keys() <= self.known:
            raise SerializationError(f"the session data has a key that {self._model} does not declare")
        try:
            payload = self._encode(data)
        except Exception:  # noqa: BLE001 - raised below, outside of the context of an error that may quote the value
            payload = None
        if payload is not None and not (self._finite_only and b"null" in payload and holds_not_finite(data)):
            return payload
        path = self._failing(data, None if payload is None else holds_not_finite)
        what = f"field {path} of " if path else ""
        raise SerializationError(f"{what}{self._model} cannot be kept as {self.name}", field=path)

    def decode(self, payload: bytes) -> T:
        """Return the model; fields it does not know are skipped. SerializationError when it does not fit."""
        try:
            return self._decode(payload)
        except Exception as error:  # noqa: BLE001 - a model's own __post_init__ or validators may raise anything
            path = self._misfit(error)
        what = f": field {path}" if path else ""
        raise SerializationError(f"the stored session does not fit {self._model}{what}", field=path)

    def encode_fields(self, fields: Mapping[str, object]) -> bytes:
        """Return the bytes of plain values by encoded name; SerializationError names the field that failed."""
        return self._plain.encode(fields)

    def decode_fields(self, payload: bytes) -> dict[str, object]:
        """Return the top-level fields as plain values by encoded name; SerializationError when it is no mapping."""
        return self._plain.decode(payload)

    @abstractmethod
    def _failing(self, data: T, fails: Callable[[object], bool] | None) -> str:
        """Return the path to what *fails*, by default to what cannot be encoded."""

    @abstractmethod
    def _misfit(self, error: Exception) -> str:
        """Return the path to what an *error* in decoding is about; "" where that is not known."""


class StructuredSerializer(ModelSerializer[T]):
    """What JSON and MessagePack have in common."""

    format: ClassVar[Format]

    def __init__(self, model: type[T]) -> None:
        form = self.format
        shape = inspect_model(model, form.name)
        super().__init__(model, form)
        self.name = form.name
        self.known = shape.known
        self._finite_only = form.finite_only and shape.holds_floats
        self._encode = form.encode
        if shape.holds_sets:
            self._encode = self._encode_with_sorted_sets if shape.holds_dicts else self._encode_sorted
        self._decode = form.decoder(model)
        # The capabilities `ExactSerializer` and `DirectSerializer`.
        self.is_exact = shape.is_exact
        self.direct_class: type[Any] | None = None if self._is_dict or self._finite_only else self._class
        self.encode_directly, self.decode_directly = self._encode, self._decode

    def _failing(self, data: T, fails: Callable[[object], bool] | None) -> str:
        fails = fails or self.format.cannot_encode
        # The keys of a TypedDict are names of fields.
        for name in sorted(self.known) if self._is_dict else ():
            value = cast("dict[str, object]", data).get(name)
            if fails(value):
                path = failing_path(value, fails)
                return f"{name}{path}" if not path or path.startswith("[") else f"{name}.{path}"
        return failing_path(data, fails)

    def _misfit(self, error: Exception) -> str:
        return decoding_path(str(error)) if isinstance(error, msgspec.ValidationError) else ""

    def _encode_sorted(self, data: object) -> bytes:
        try:
            return self.format.encode_sorted(data)
        except TypeError:
            # A set whose members cannot be compared keeps its own order.
            return self.format.encode(data)

    def _encode_with_sorted_sets(self, data: object) -> bytes:
        native, str_keys = self.format.native, self.format.finite_only
        kept = msgspec.to_builtins(data, builtin_types=native, str_keys=str_keys, enc_hook=as_base)
        try:
            ordered = msgspec.to_builtins(
                data, builtin_types=native, str_keys=str_keys, enc_hook=as_base, order="deterministic"
            )
        except TypeError:
            # As in _encode_sorted.
            ordered = kept
        return self.format.encode(with_order_of(kept, ordered))


class JsonSerializer(StructuredSerializer[T]):
    """The model as JSON, which every language reads; the default."""

    format = JSON


class MsgpackSerializer(StructuredSerializer[T]):
    """The model as MessagePack: smaller than JSON, and bytes stay bytes."""

    format = MSGPACK


class PlainFields:
    """Top-level fields by encoded name, without the model: other nodes' fields, migration."""

    def __init__(self, format: Format) -> None:
        self._format = format
        self._decode: Callable[[bytes], dict[str, object]] = format.decoder(dict[str, Any])

    def encode(self, fields: Mapping[str, object]) -> bytes:
        """Return the bytes of plain values by name; SerializationError names the field that failed."""
        for name in fields:
            if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise SerializationError(f"the names of session fields are str, not {type(name).__name__}")
        fails = self._format.cannot_encode
        try:
            payload = self._format.encode(dict(fields))
        except Exception:  # noqa: BLE001 - raised below, outside of the context of an error that may quote the value
            payload = None
        if payload is not None:
            if not (self._format.finite_only and b"null" in payload and holds_not_finite(fields)):
                return payload
            fails = holds_not_finite
        name = next((name for name, value in fields.items() if fails(name) or fails(value)), "")
        raise SerializationError(f"session field {name!a} cannot be kept as {self._format.name}")

    def decode(self, payload: bytes) -> dict[str, object]:
        """Return the plain values by name; SerializationError when *payload* is no mapping."""
        try:
            return self._decode(payload)
        except Exception:  # noqa: BLE001, S110 - as above
            pass
        raise SerializationError(f"the stored session is no {self._format.name} mapping")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What msgspec knows about a model."""

    known: frozenset[str]
    holds_sets: bool
    holds_dicts: bool
    holds_floats: bool
    is_exact: IsExact | None = dataclasses.field(repr=False)


def model_name(model: type[Any]) -> str:
    """Return the name of the model for messages."""
    return getattr(model, "__qualname__", None) or repr(model)


def model_class(model: type[Any]) -> type[Any]:
    """Return the class of instances: the origin of a generic model, ``dict`` for a TypedDict."""
    origin: Any = get_origin(model) or model
    if not isinstance(origin, type):
        raise ConfigurationError(f"{model_name(model)} is no session model; {_DECLARE}")
    kind: type[Any] = origin
    return dict if issubclass(kind, dict) else kind


def inspect_model(model: type[Any], format_name: str) -> Shape:
    """Return the shape of a dataclass, Struct, TypedDict or attrs model.

    Raise ConfigurationError when it is something else, when its annotations cannot be resolved, or when a type in it
    would be lost or changed.
    """
    try:
        found = inspect.type_info(model)
    except Exception as error:  # a model's annotations may be anything, and raise anything
        raise refusal(model, format_name, error, inspect.type_info) from error
    if not isinstance(found, inspect.DataclassType | inspect.StructType | inspect.TypedDictType):
        raise ConfigurationError(f"{model_name(model)} is no session model; {_DECLARE}")
    known = {field.encode_name for field in found.fields}
    if isinstance(found, inspect.StructType) and found.tag_field is not None:
        known.add(found.tag_field)
    nodes: list[msgspec.Struct] = []
    for path, node in _nodes(found, "", set()):
        _refuse_what_is_lost(model_name(model), path, node, format_name)
        nodes.append(node)
    anything = any(isinstance(node, inspect.AnyType | inspect.CustomType) for node in nodes)
    return Shape(
        known=frozenset(known),
        holds_sets=any(isinstance(node, inspect.SetType | inspect.FrozenSetType) for node in nodes),
        holds_dicts=anything or any(isinstance(node, inspect.DictType) for node in nodes),
        holds_floats=anything or any(isinstance(node, inspect.FloatType) for node in nodes),
        is_exact=_exact(found),
    )


def _nodes(node: msgspec.Struct, path: str, seen: set[int]) -> Iterator[tuple[str, msgspec.Struct]]:
    """Yield every type inside a type once, with the path that leads there; recursive models are handled."""
    if id(node) in seen:
        return
    seen.add(id(node))
    yield path, node
    if isinstance(node, inspect.Field):
        yield from _nodes(node.type, path, seen)
        return
    for name in node.__struct_fields__:
        value: Any = getattr(node, name)
        inside: list[Any] = [*value] if isinstance(value, tuple) else [value]
        for inner in inside:
            if isinstance(inner, inspect.Field):
                yield from _nodes(inner, f"{path}.{inner.name}", seen)
            elif isinstance(inner, inspect.Type):
                yield from _nodes(inner, path if isinstance(node, inspect.UnionType) else f"{path}[...]", seen)


def _refuse_what_is_lost(model: str, path: str, node: msgspec.Struct, format_name: str) -> None:
    """Raise the error of a type that msgspec would lose or change, or that an older node would damage."""
    place = f"field {path.removeprefix('.')} of the session model {model}" if path else f"the session model {model}"
    match node:
        case inspect.CustomType() if node.cls is not object:
            raise TypeLostError(f"{place} has the type {type_name(node.cls)}, which {format_name} cannot keep")
        case inspect.StructType(array_like=True):
            raise ConfigurationError(f"{place} is array_like; its fields have no names")
        case inspect.StructType(forbid_unknown_fields=True):
            raise ConfigurationError(
                f"{place} has forbid_unknown_fields=True: this node could not read the session any more once a newer "
                f"one adds a field to {type_name(node.cls)}; leave it out"
            )
        case inspect.DataclassType():
            for attribute in getattr(node.cls, "__attrs_attrs__", ()):
                if attribute.name.startswith("_"):
                    raise TypeLostError(
                        f"field {f'{path}.{attribute.name}'.removeprefix('.')} of the session model {model} would be "
                        f"lost: {format_name} leaves the private names of attrs classes out; give it a public name"
                    )
        case _:
            pass


def _kept_classes(node: msgspec.Struct) -> frozenset[type]:
    """Return the classes of what a type without parts may hold; nothing where a value of them might not come back."""
    if isinstance(node, inspect.UnionType):
        found = [_kept_classes(each) for each in node.types]
        return frozenset[type]().union(*found) if all(found) else frozenset()
    kind = _KEPT.get(type(node))
    # One with limits differs from a plain one; only the decoder looks at those.
    return frozenset((kind,)) if kind is not None and node == type(node)() else frozenset()


def _exact(node: msgspec.Struct, around: tuple[msgspec.Struct, ...] = ()) -> IsExact | None:
    """Return what tells of a value that it is exactly of the type *node* and comes back as it is; None: nothing does."""
    classes = _kept_classes(node)
    if classes:
        return lambda value: type(value) in classes
    if isinstance(node, inspect.ListType) and node.min_length is node.max_length is None:
        item = _exact(node.item_type, around)
        return item and (lambda value: value.__class__ is list and all(map(item, value)))
    if not isinstance(node, inspect.DataclassType | inspect.StructType) or any(each is node for each in around):
        return None
    checks = [(each.name, _kept_classes(each.type), _exact(each.type, (*around, node))) for each in node.fields]
    if not _only_holds(node) or any(inside is None for _, _, inside in checks):
        return None
    kind: type[Any] = node.cls
    scalars = [(name, next(iter(classes))) for name, classes, _ in checks if len(classes) == 1]
    lists = [
        (each.name, classes)
        for each in node.fields
        if isinstance(each.type, inspect.ListType) and (classes := _kept_classes(each.type.item_type))
    ]
    alone = {name for name, _ in (*scalars, *lists)}
    deeper = [(name, inside) for name, _, inside in checks if inside is not None and name not in alone]

    def is_exact(value: Any) -> bool:
        if type(value) is not kind:
            return False
        for name, expected in scalars:
            if type(getattr(value, name)) is not expected:
                return False
        for name, classes in lists:
            items = getattr(value, name)
            if items.__class__ is not list or not classes.issuperset(map(type, items)):
                return False
        for name, inside in deeper:  # noqa: SIM110 - a generator costs as much as five fields
            if not inside(getattr(value, name)):
                return False
        return True

    return is_exact


def _only_holds(node: inspect.DataclassType | inspect.StructType) -> bool:
    """Return whether the class has no hand in how its objects are made, and makes nothing else of what is assigned."""
    kind: Any = node.cls
    if not isinstance(kind, type) or any(hasattr(kind, name) for name in ("__post_init__", "__attrs_attrs__")):
        return False  # an alias, that of a generic, among them
    names = [each.name for each in node.fields]
    own = [vars(base)[name] for base in kind.__mro__ for name in names if name in vars(base)]
    return not any(name[0] == "_" for name in names) and not any(
        hasattr(each, "__set__") and not isinstance(each, MemberDescriptorType) for each in own
    )


def refusal(model: type[Any], serializer: str, error: Exception, check: Callable[[Any], object]) -> ConfigurationError:
    """Return the error of a model that a library refused with *error*: with the field of which *check* raises as well."""
    hints: dict[str, Any] = {}
    with suppress(Exception):  # annotations that cannot be resolved are the cause, then
        hints = get_type_hints(get_origin(model) or model)
    for name, hint in hints.items():
        try:
            check(hint)
        except Exception:  # noqa: BLE001 - as above
            place = f"field {name} of the session model {model_name(model)}"
            reason = str(error).partition("\n")[0]
            return TypeLostError(f"{place} has the type {type_name(hint)}, which {serializer} cannot keep ({reason})")
    return ConfigurationError(f"the session model {model_name(model)} cannot be kept as {serializer}: {error}")


def type_name(hint: Any) -> str:
    """Return the name of a type for messages: as an annotation writes it, with the module of a class."""
    if not isinstance(hint, type) or get_origin(hint) is not None:
        return repr(hint).replace("typing.", "")
    return hint.__qualname__ if hint.__module__ == "builtins" else f"{hint.__module__}.{hint.__qualname__}"


def with_order_of(kept: Any, ordered: Any) -> Any:
    """Return *ordered* with its dicts in the key order of *kept*; both are plain forms of the same data.

    So sets come sorted, and equal data gives equal bytes, while dicts keep the order that the application gave them.
    """
    if is_dict(kept) and is_dict(ordered):
        if kept.keys() == ordered.keys():
            return {key: with_order_of(inner, ordered[key]) for key, inner in kept.items()}
    elif is_list(kept) and is_list(ordered) and len(kept) == len(ordered):
        return list(map(with_order_of, kept, ordered))
    return ordered


def children(value: object) -> Iterator[tuple[str, object]]:
    """Yield each value directly inside *value* with its step of the path; nothing for a leaf.

    A step holds names of fields and positions in lists, never a key of a mapping nor a value (SECURITY R6).
    """
    if isinstance(value, Mapping):
        for inner in cast("Mapping[object, object]", value).values():
            yield "[...]", inner
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(cast("list[object]", value)):
            yield f"[{index}]", inner
    elif isinstance(value, set | frozenset):
        for inner in cast("set[object]", value):
            yield "[...]", inner
    else:
        for name in field_names(type(value)):
            yield f".{name}", getattr(value, name, None)


def failing_path(value: object, fails: Callable[[object], bool]) -> str:
    """Return the path to the innermost value for which *fails* is true, such as ``cart[3].price``; "" for *value*."""
    steps: list[str] = []
    while len(steps) < _DEEPEST:
        found = next(((step, inner) for step, inner in children(value) if fails(inner)), None)
        if found is None:
            break
        steps.append(found[0])
        value = found[1]
    return "".join(steps).removeprefix(".")


def holds_not_finite(value: object) -> bool:
    """Return whether *value* is or contains a float that JSON cannot express: NaN or an infinity."""
    if isinstance(value, float):
        return not math.isfinite(value)
    return any(holds_not_finite(inner) for _, inner in children(value))


def decoding_path(message: str) -> str:
    """Return the path that an error message of msgspec names; "" when it is about the whole payload."""
    at = _DECODE_PATH.search(message)
    path = at.group(1) if at else ""
    missing = _MISSING_FIELD.match(message)
    return (f"{path}.{missing.group(1)}" if missing else path).removeprefix(".")
