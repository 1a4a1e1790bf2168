"""The contract of a serializer, which turns a typed model into bytes and back.

A serializer never executes what was stored (SECURITY R37), and its errors name the field that failed, never the value
(SECURITY R6, FAILURES F15).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

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


SerializerFactory = Callable[[type[Any]], Serializer[Any]]
"""What a plugin offers: returns the serializer of a model; raises ConfigurationError when the model does not suit."""
