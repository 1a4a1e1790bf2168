"""What the manager knows of the application's model: how to make, encode, decode, compare and merge it.

What is stored comes back equal, or is refused by name. What another model wrote goes through `migrate` first, and fields
that this node's model does not know are carried through every write, nested ones included.
"""

from __future__ import annotations

import datetime
import enum
import hashlib
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Collection, Container, Iterator, Mapping
from contextlib import suppress
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar, cast, get_args, get_origin

import msgspec
from msgspec.structs import replace

from sojourn.errors import ConfigurationError, SerializationError
from sojourn.merge import carry, field_types, field_values, is_dict, is_list, merge_models, merge_rules
from sojourn.serializers import DirectSerializer, ExactSerializer, Serializer, SerializerFactory, builtin_serializer
from sojourn.session.payload import Payload

T = TypeVar("T")

Migrate = Callable[[dict[str, object]], dict[str, object]]

_ID_BYTES: Final = 8
_CARRIES: Final = b"+"
"""Follows the fingerprint of the model that wrote data in which it carried fields of another."""
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")
_STEP: Final = re.compile(r"\.?([^.\[\]]+)|\[(\d+|\.\.\.)\]")


class Model(Generic[T]):
    """A model, its factory, its serializer and its merge rules, bound together."""

    def __init__(
        self,
        model: type[T],
        *,
        new: Callable[[], T],
        serializer: Serializer[T],
        migrate: Migrate | None = None,
        check_round_trip: bool = False,
        readers: Mapping[str, SerializerFactory] = MappingProxyType({}),
    ) -> None:
        self.model = model
        self.name: str = getattr(model, "__name__", repr(model))
        self.new = new
        self.serializer = serializer
        self.encode = self._encode_declared if check_round_trip else serializer.encode
        self.decode = serializer.decode
        """Decode data that this model wrote, or that it can read as it is. Raise SerializationError."""
        direct = serializer if isinstance(serializer, DirectSerializer) else None
        self.direct_class = None if direct is None or check_round_trip else direct.direct_class
        self.encode_directly: Callable[[T], bytes] = self.encode if direct is None else direct.encode_directly
        self.decode_directly: Callable[[bytes], T] = self.decode if direct is None else direct.decode_directly
        """As `encode` and `decode`, which say what is wrong where these raise anything at all."""
        self.written_by = None if serializer.name == "json" else serializer.name
        """What the payload says of the serializer."""
        self._readers = readers
        """Serializers of plugins that open what they wrote, by name."""
        self.schema_id = schema_id(model, serializer.name)
        """Tells this model, with this serializer, from every other one."""
        self.migrate = migrate
        """What the application does to fields that another model wrote; None leaves them as they are."""
        self._checks_types = check_round_trip
        """Whether every write compares types as well; otherwise only where the data is not equal."""
        self._is_exact = serializer.is_exact if isinstance(serializer, ExactSerializer) else None
        self._rules = merge_rules(model)
        self._others: dict[str, Serializer[T] | None] = {}
        self._refuse_a_model_that_does_not_survive()

    def _refuse_a_model_that_does_not_survive(self) -> None:
        name = self.name
        try:
            fresh = self.new()
        except Exception as error:
            msg = f"cannot make a new {name}: {error}; give every field a default, or pass new=... to the manager"
            raise ConfigurationError(msg) from error
        try:
            again = self.serializer.decode(self.encode(fresh))
        except SerializationError as error:
            reason = self._refusal(fresh, error)
            msg = f"a new {name} does not survive the serializer {self.serializer.name!r}: {reason}"
            raise ConfigurationError(msg) from error
        found = difference(fresh, again, self.serializer.known)
        if found is not None:
            msg = f"a new {name} does not survive the serializer {self.serializer.name!r}: {self._change(fresh, found)}"
            raise ConfigurationError(msg)

    # -- from and to a payload ---------------------------------------------------------------------------------

    def load(self, payload: Payload) -> T:
        """Decode the data of a payload; raise SerializationError.

        Fields that another model wrote go through ``migrate`` before a default fills anything, and so do those that no
        longer fit.
        """
        if payload.model == self.schema_id:
            try:
                return self.decode(payload.data)
            except SerializationError:
                pass
        return self._read(payload)[0]

    def _read(self, payload: Payload) -> tuple[T, bytes]:
        """Return the data, and the bytes that it was decoded from: those stored, or what ``migrate`` made of them."""
        stored, migrate, by = payload.data, self.migrate, payload.model
        if migrate is None:
            return self.decode(stored), stored
        if by is not None and by[:_ID_BYTES] == self.schema_id:
            with suppress(SerializationError):
                return self.decode(stored), stored
        fields = self.serializer.decode_fields(stored)
        try:
            fields = migrate(fields)
        except Exception as error:
            raise SerializationError(f"migrate() failed with {type(error).__name__}") from error
        stored = self.serializer.encode_fields(fields)
        return self.decode(stored), stored

    def translated(self, payload: Payload) -> Payload | None:
        """Return the payload with its data as this node's serializer would have written it; None where nobody reads that.

        Raise SerializationError. A built-in serializer reads what it wrote, and one of a plugin that the settings name
        (SECURITY R55). Fields that this node's model does not know are carried along.
        """
        other = self._other(payload.serializer or "json")
        if other is None:
            return None
        serializer, by = self.serializer, payload.model
        is_of_this_model = by is not None and by[:_ID_BYTES] == schema_id(self.model, other.name)
        if self.migrate is not None and not is_of_this_model:
            # what migrate() is given are the fields as they were written
            return replace(
                payload,
                data=serializer.encode_fields(other.decode_fields(payload.data)),
                serializer=self.written_by,
            )
        data, found = other.decode(payload.data), list[str]()
        plain = other.encode(data)
        try:
            encoded = serializer.encode(data)
        except SerializationError:
            return None  # a value that this node's serializer cannot keep: nothing is lost as long as it is left alone
        if plain != payload.data:
            before, after = other.decode_fields(plain), serializer.decode_fields(encoded)
            fields = carry(other.decode_fields(payload.data), before, after, found)
            encoded = serializer.encode_fields(fields) if found else encoded
        by = self.schema_id + (_CARRIES if found else b"")
        return replace(payload, data=encoded, model=by, serializer=self.written_by)

    def settle(self, base: Payload | None, data: T, encoded: bytes | None = None) -> tuple[bytes, bytes | None]:
        """Return the bytes to store for *data*, which was loaded from *base*, and the id of the model that they are of.

        They are those of *base* when nothing but order or added defaults differs (DESIGN 3, step 6); otherwise what
        the fields of another model hold beyond this one is carried along. *encoded* spares encoding *data* again. Raise
        SerializationError naming a field that would not come back.
        """
        stored = plain = b""
        if encoded is None:
            encoded = self._encoded(data)
        if base is not None:
            if encoded == base.data:
                return encoded, base.model
            # Of what this model wrote every byte came from this encoder, so no other node's fields can be in it.
            if base.model != self.schema_id:
                before, stored = self._read(base)
                plain = self.encode(before)
                if plain == encoded:
                    return base.data, base.model
        try:
            is_exact = self._is_exact is not None and self._is_exact(data)
        except Exception:  # noqa: BLE001 - of a half-made object; the comparison says why
            is_exact = False
        if not is_exact:
            self._require_return(data, encoded)
        return (encoded, self.schema_id) if stored == plain else self._with_others(stored, plain, encoded)

    def merge(self, base: Payload | None, ours: T, theirs: Payload | None) -> tuple[bytes, bytes | None]:
        """Merge three ways; return bytes and id as `settle` does. None stands for the payload of a new session."""
        before = self.new() if base is None else self.load(base)
        if theirs is None:
            return self.settle(None, merge_models(before, ours, self.new(), self._rules))
        others, stored = self._read(theirs)
        merged, by = self.settle(None, merge_models(before, ours, others, self._rules))
        # Of what this model wrote nothing can be unknown here, as in `settle`.
        if theirs.model == self.schema_id and stored is theirs.data:
            return merged, by
        return self._with_others(stored, self.encode(others), merged)

    def _with_others(self, stored: bytes, plain: bytes, encoded: bytes) -> tuple[bytes, bytes]:
        """Return *encoded* with what *stored* holds beyond *plain*, its encoding by this model."""
        if stored == plain:
            return encoded, self.schema_id
        serializer = self.serializer
        before, after = serializer.decode_fields(plain), serializer.decode_fields(encoded)
        found: list[str] = []
        fields = carry(serializer.decode_fields(stored), before, after, found)
        if not found:
            # An older node's: nothing in it is unknown here, and the defaults may be stored.
            return encoded, self.schema_id
        return serializer.encode_fields(fields), self.schema_id + _CARRIES

    # -- what does not come back -------------------------------------------------------------------------------

    def _encode_declared(self, data: T) -> bytes:
        """Encode *data*; raise SerializationError for an attribute that is no field, since nothing would be stored of it."""
        encoded = self.serializer.encode(data)
        found = [*_undeclared(data)]
        # What `__post_init__` sets is there again.
        lost = [name for name in found if name not in {*_undeclared(self.decode(encoded))}] if found else []
        if lost:
            raise SerializationError(
                f"{self.name} has no field {lost[0]}, so what was assigned to it is not stored: declare the field, or begin "
                "the name with an underscore if it shall not be"
            )
        return encoded

    def _encoded(self, data: T) -> bytes:
        """Encode *data*; raise SerializationError naming field, type and what to do."""
        try:
            return self.encode(data)
        except SerializationError as error:
            reason = self._refusal(data, error)
        raise SerializationError(reason)

    def _require_return(self, data: T, encoded: bytes) -> None:
        """Require that *encoded* decodes to equal data; raise SerializationError naming the field otherwise.

        Serializers need not check types on the way out, and a value that does not come back would only be found when it is
        too late (FAILURES F15).
        """
        try:
            again = self.decode(encoded)
        except SerializationError as error:
            field = error.field or self._misfit(encoded)
            reason = self._refusal(data, SerializationError(str(error), field=field))
        else:
            if not self._checks_types and _is_equal(again, data):
                return
            found = difference(data, again, self.serializer.known, types=self._checks_types)
            if found is None:
                return
            reason = self._change(data, found)
        raise SerializationError(reason)

    def _misfit(self, encoded: bytes) -> str:
        """Return the field that a new session cannot be decoded with; "" where none alone is the cause."""
        serializer = self.serializer
        with suppress(Exception):  # of plugins and new() as well; then nobody knows
            plain, fields = serializer.decode_fields(self.encode(self.new())), serializer.decode_fields(encoded)
            for name, value in fields.items():
                try:
                    serializer.decode(serializer.encode_fields({**plain, name: value}))
                except SerializationError:
                    return name
        return ""

    def _refusal(self, data: T, error: SerializationError) -> str:
        """Return why *data* cannot be stored, by field and type."""
        if not error.field:
            return str(error)
        declared, value = _at(self.model, data, error.field)
        what = f"{declared}holds {_a(value)} that {self.serializer.name} cannot keep"
        return f"field {error.field} of {self.name}{what}{self._advice(data)}"

    def _change(self, data: T, found: tuple[str, object, object]) -> str:
        path, value, again = found
        path = path.removeprefix(".")
        declared, _ = _at(self.model, data, path)
        back = _a(again) if type(again) is not type(value) else "another value"
        what = f"{declared}holds {_a(value)} that {self.serializer.name} brings back as {back}"
        return f"{f'field {path} of ' if path else ''}{self.name}{what}{self._advice(data)}"

    def _advice(self, data: T) -> str:
        """Return what to do about data that does not come back."""
        for name in ("msgpack", "pydantic", "json"):
            other = self._other(name) if name != self.serializer.name else None
            with suppress(Exception):  # whatever it is, that serializer is no way out
                if other and difference(data, other.decode(other.encode(data)), self.serializer.known) is None:
                    return f"; set SOJOURN_SERIALIZER={name}, or store what the field declares"
        return "; store what the field declares, or declare the type that it holds"

    def _other(self, name: str) -> Serializer[T] | None:
        """Return the serializer *name*, built-in or a plugin's that is to be read, made once and not before it is needed.

        None: it is none of them, or not for this model.
        """
        if name not in self._others:
            self._others[name] = None
            with suppress(ConfigurationError, ImportError):
                factory = self._readers.get(name)
                self._others[name] = builtin_serializer(name, self.model) if factory is None else factory(self.model)
        return self._others[name]


def _is_equal(one: object, other: object) -> bool:
    """Return whether two models are equal by their own ``==``, which may be anything."""
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001 - then they are compared field by field
        return False


def difference(
    value: Any, again: Any, names: Container[str] = (), *, types: bool = True
) -> tuple[str, object, object] | None:
    """Return the path to the first value that did not come back as it was, that value and what came; None if all did.

    Types count: a list for a tuple is a difference. A subclass of str, int or float may come back as its base, an int
    as an equal float, and a time with a zone under the offset of that zone (DESIGN 4). Without *types* what is equal by its
    own ``==`` is no difference either. A path holds no key of a mapping
    (SECURITY R6) but those in *names*, the fields of a TypedDict.
    """
    if not types and _is_equal(value, again):
        return None
    base = _base_of(value)
    if base is not None and type(again) in {base, float, type(value)}:
        return None if value == again or (_is_nan(value) and _is_nan(again)) else ("", value, again)
    if type(value) is not type(again):
        return "", value, again
    if is_dict(value):
        if value.keys() != again.keys():
            return "", value, again
        entries = value.items()
        pairs = [(f".{key}" if key in names else "[...]", inner, again[key]) for key, inner in entries]
    elif is_list(value):
        if len(value) != len(again):
            return "", value, again
        pairs = [(f"[{index}]", *pair) for index, pair in enumerate(zip(value, again, strict=True))]
    elif fields := field_values(value):
        others = field_values(again)
        if fields.keys() != others.keys():
            return "", value, again
        pairs = [(f".{name}", inner, others[name]) for name, inner in fields.items()]
    else:
        return None if _is_same_leaf(value, again) else ("", value, again)
    for step, inner, other in pairs:
        found = difference(inner, other, types=types)
        if found is not None:
            return step + found[0], found[1], found[2]
    return None


def _undeclared(value: Any, path: str = "") -> Iterator[str]:
    """Yield the path of each attribute that is no field and was assigned to an object; private and cached ones are not."""
    if isinstance(value, list | tuple | set | frozenset):
        for inner in cast("Collection[object]", value):
            yield from _undeclared(inner, f"{path}[...]")
    elif (fields := field_values(value)) or not path:
        for name in getattr(value, "__dict__", ()):
            if not (name in fields or name.startswith("_") or _works_out(value, name)):
                yield f"{path}.{name}".removeprefix(".")
        for name, inner in fields.items():
            yield from _undeclared(inner, f"{path}[...]" if is_dict(value) else f"{path}.{name}")


def _works_out(value: object, name: str) -> bool:
    """Return whether a class has something of that name that works a value out, as a cached property does."""
    return hasattr(inspect.getattr_static(type(value), name, None), "__get__")


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _base_of(value: object) -> type | None:
    return next((kind for kind in (str, int, float) if isinstance(value, kind)), None)


def _is_same_leaf(value: Any, again: Any) -> bool:
    try:
        if isinstance(value, datetime.datetime) and value.tzinfo is not None and again.tzinfo is not None:
            # An hour that a zone has twice never equals itself under another offset (PEP 495).
            return bool(value.astimezone(datetime.UTC) == again.astimezone(datetime.UTC))
        if isinstance(value, Decimal) and value.is_nan():
            return bool(again.is_nan())
        return bool(value == again)
    except Exception:  # noqa: BLE001 - a class of the application may raise anything
        return False


def _a(value: object) -> str:
    """Return the type of a value with its article."""
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _at(model: Any, data: Any, path: str) -> tuple[str, object]:
    """Return ", declared as X, " of the field at the end of *path*, " " when unknown, and the value there."""
    owner, hint, value = model, None, data
    with suppress(Exception):  # a step into what is not there ends at what was found
        for name, index in _STEP.findall(path):
            if index == "...":
                break
            if index:
                value = value[int(index)]
            else:
                kind = cast("Any", type(value))
                attribute: Any = _encoded_names(kind).get(name) or name
                hint = field_types(owner if value is data else kind).get(attribute)
                value = value[attribute] if is_dict(value) else getattr(value, attribute)
    if hint is None:
        return " ", value
    return f", declared as {_written(hint)}, ", value


def _encoded_names(model: Any) -> dict[str, str]:
    """Return the Python name of each field of a Struct by its name in the encoding; nothing for other models."""
    names: tuple[str, ...] = getattr(model, "__struct_fields__", ())
    return dict(zip(getattr(model, "__struct_encode_fields__", ()), names, strict=True))


def _written(hint: Any) -> str:
    """Return an annotation as it is written, without the metadata of Annotated and the names of modules."""
    if get_origin(hint) is typing.Annotated:
        return _written(hint.__origin__)
    if isinstance(hint, type) and get_origin(hint) is None:
        return hint.__qualname__
    return re.sub(r"\b(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_])|<locals>\.", "", repr(hint))


# -- the fingerprint ---------------------------------------------------------------------------------------------


def schema_id(model: type[Any], serializer: str) -> bytes:
    """Return 8 bytes that change with any field, type or simple default of the model and of the models inside it.

    Two processes that run the same code get the same ones.
    """
    described = "".join(_described(model, set()))
    return hashlib.sha256(f"{serializer}:{described}".encode()).digest()[:_ID_BYTES]


def _described(hint: Any, seen: set[Any]) -> Iterator[str]:
    """Yield the text that describes a type: for a model its fields, once."""
    origin = get_origin(hint)
    if origin is typing.Annotated:
        yield from _described(hint.__origin__, seen)
        yield _plain(hint.__metadata__)
    elif origin is typing.Literal:
        yield repr(hint)
    elif origin is typing.Union or origin is types.UnionType:
        yield "|"
        for inner in get_args(hint):
            yield from _described(inner, seen)
            yield ","
    elif origin is not None:
        yield from _described(origin, seen)
        yield "["
        for inner in get_args(hint):
            yield from _described(inner, seen)
            yield ","
        yield "]"
    elif hasattr(hint, "__supertype__"):
        yield from _described(hint.__supertype__, seen)
    elif hasattr(hint, "__value__"):
        yield _plain(hint)
        if hint not in seen:
            seen.add(hint)
            yield from _described(hint.__value__, seen)
    elif isinstance(hint, type):
        yield f"{hint.__module__}.{hint.__qualname__}"
        if hint in seen:
            return
        seen.add(hint)
        kind: Any = hint
        if issubclass(kind, enum.Enum):
            yield _plain([(member.name, member.value) for member in kind])
        else:
            yield from _described_fields(kind, seen)
    else:
        yield _plain(hint)


def _described_fields(model: type[Any], seen: set[Any]) -> Iterator[str]:
    hints: dict[str, Any] = {}
    with suppress(Exception):  # of a class that is no model nobody knows the annotations
        hints = field_types(model)
    encoded = {name: encoded for encoded, name in _encoded_names(model).items()}
    defaults = _defaults(model)
    yield f"{_plain(getattr(getattr(model, '__struct_config__', None), 'tag', None))}{{"
    for name, hint in hints.items():
        yield f"{encoded.get(name, name)}:"
        yield from _described(hint, seen)
        default = defaults.get(name, ...)
        yield f"={default!r};" if default is None or isinstance(default, bool | int | float | str) else ";"
    yield "}"


def _defaults(model: Any) -> dict[str, object]:
    """Return the default of each field, in the form that the model's library has it."""
    if issubclass(model, msgspec.Struct):
        return {found.name: found.default for found in msgspec.structs.fields(model)}
    attributes: tuple[Any, ...] = getattr(model, "__attrs_attrs__", ())
    fields: dict[str, Any] = {
        **{attribute.name: attribute for attribute in attributes},
        **getattr(model, "__dataclass_fields__", {}),
        **getattr(model, "__pydantic_fields__", {}),
    }
    return {name: found.default for name, found in fields.items()}


def _plain(value: object) -> str:
    """Return the text of a value without its place in memory, which differs in every process."""
    return _ADDRESS.sub("", repr(value))
