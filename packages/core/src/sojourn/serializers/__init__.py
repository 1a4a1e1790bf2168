"""Serializers, which turn a typed model into bytes and back: the contract, and those that sojourn brings.

A serializer never executes what was stored (SECURITY R37), and its errors name the field that failed, never the value
(SECURITY R6, FAILURES F15).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol, TypeVar, runtime_checkable

from sojourn.errors import ConfigurationError
from sojourn.serializers.msgspec_models import JsonSerializer, MsgpackSerializer, TypeLostError, model_class, model_name
from sojourn.serializers.pydantic_models import PydanticSerializer

__all__ = [
    "DirectSerializer",
    "ExactSerializer",
    "JsonSerializer",
    "MsgpackSerializer",
    "PydanticSerializer",
    "Serializer",
    "SerializerFactory",
    "builtin_serializer",
]

T = TypeVar("T")


@runtime_checkable
class Serializer(Protocol[T]):
    """Turns a model into bytes and back; the manager keeps one for each model and shares it between threads."""

    name: str
    """The name that settings know it by, such as ``"json"``."""
    known: frozenset[str]
    """The encoded names of the model's top-level fields; other fields are another node's and are preserved."""

    def encode(self, data: T) -> bytes:
        """Return the bytes of *data*, the same for equal data; SerializationError names the field that failed."""
        ...

    def decode(self, payload: bytes) -> T:
        """Return the model; fields it does not know are skipped. SerializationError when it does not fit."""
        ...

    def encode_fields(self, fields: Mapping[str, object]) -> bytes:
        """Return the bytes of plain values by encoded name; SerializationError names the field that failed."""
        ...

    def decode_fields(self, payload: bytes) -> dict[str, object]:
        """Return the top-level fields as plain values by encoded name; SerializationError when it is no mapping."""
        ...


@runtime_checkable
class ExactSerializer(Protocol):
    """A serializer that knows of most data that they come back as they are; a write then need not decode them to see."""

    is_exact: Callable[[Any], bool] | None
    """Tells whether all of the data is exactly of the types that the model declares, none of which changes on the way. False
    says nothing, and what it raises counts as False. None: it knows of no data of this model."""


@runtime_checkable
class DirectSerializer(Protocol):
    """A serializer whose library may be called directly; what that raises, `encode` and `decode` are asked for the reason of."""

    direct_class: type[Any] | None
    """Data of exactly this class may be given to `encode_directly`; None: none may."""
    encode_directly: Callable[[Any], bytes]
    decode_directly: Callable[[bytes], Any]


SerializerFactory = Callable[[type[Any]], Serializer[Any]]
"""What a plugin offers: returns the serializer of a model; raises ConfigurationError when the model does not suit."""


def builtin_serializer(name: str, model: type[Any]) -> Serializer[Any] | None:
    """Return the built-in serializer *name* (auto, json, msgpack, pydantic) for *model*; None for another name.

    A pydantic BaseModel is serialized by pydantic under ``auto`` and ``json`` alike. Raise ConfigurationError when the
    model does not suit the serializer: it names the field, its type, and the built-in serializer that keeps it.
    """
    try:
        return _make(name, model)
    except TypeLostError as error:
        raise ConfigurationError(f"{error}; {_advice(name, model)}") from error


def _advice(name: str, model: type[Any]) -> str:
    """Return what to do about a type that the serializer *name* does not keep."""
    for other in ("pydantic", "msgpack", "json"):
        if other != name:
            with suppress(ConfigurationError, ImportError):
                _make(other, model)
                return f"set SOJOURN_SERIALIZER={other}"
    return "no built-in serializer does; declare another type"


def _make(name: str, model: type[Any]) -> Serializer[Any] | None:
    """Return the built-in serializer *name* for *model*; None for another name."""
    is_pydantic = hasattr(model_class(model), "__pydantic_fields__")
    match name:
        case "pydantic":
            return PydanticSerializer(model)
        case "auto" | "json":
            return PydanticSerializer(model) if is_pydantic else JsonSerializer(model)
        case "msgpack" if is_pydantic:
            raise ConfigurationError(
                f"the pydantic model {model_name(model)} cannot be kept as msgpack; set SOJOURN_SERIALIZER=json"
            )
        case "msgpack":
            return MsgpackSerializer(model)
        case _:
            return None
