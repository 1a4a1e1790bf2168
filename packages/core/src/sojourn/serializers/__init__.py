"""Serializers, which turn a typed model into bytes and back: the protocol, and those that sojourn brings.

None uses pickle: stored bytes are never executed (SECURITY R37).
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from sojourn.errors import ConfigurationError
from sojourn.serializers.contract import ExactSerializer, Serializer, SerializerFactory
from sojourn.serializers.msgspec_models import (
    JsonSerializer,
    MsgpackSerializer,
    TypeLostError,
    model_class,
    model_name,
)
from sojourn.serializers.pydantic_models import PydanticSerializer

__all__ = [
    "ExactSerializer",
    "JsonSerializer",
    "MsgpackSerializer",
    "PydanticSerializer",
    "Serializer",
    "SerializerFactory",
    "builtin_serializer",
]


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
