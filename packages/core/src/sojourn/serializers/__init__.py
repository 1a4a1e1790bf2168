"""Serializers, which turn a typed model into bytes and back: the protocol, and those that sojourn brings.

None uses pickle: stored bytes are never executed (SECURITY R37).
"""

from __future__ import annotations

from typing import Any

from sojourn.errors import ConfigurationError
from sojourn.serializers.contract import Serializer, SerializerFactory
from sojourn.serializers.msgspec_models import JsonSerializer, MsgpackSerializer, model_class, model_name
from sojourn.serializers.pydantic_models import PydanticSerializer

__all__ = [
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
    model does not suit the serializer.
    """
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
