"""What the core brings itself, by name; imported when it is named.

The one rule: a name that is not built in gives None, and the plugins are asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sojourn.plugins.discovery import BUILT_IN

if TYPE_CHECKING:
    from sojourn.crypto import Cipher
    from sojourn.metrics import Metrics
    from sojourn.serializers import Serializer, SerializerFactory
    from sojourn.settings import SessionSettings
    from sojourn.stores import Store


def store(name: str, settings: SessionSettings) -> Store | None:
    """Return a new store in memory for ``memory``."""
    if name != "memory":
        return None
    from sojourn.stores import MemoryStore

    return MemoryStore(max_sessions=settings.memory_max_sessions)


def serializer(name: str) -> SerializerFactory | None:
    """Return what makes ``json``, ``msgpack`` or ``pydantic`` from a model."""
    if name not in BUILT_IN["serializer"]:
        return None
    from sojourn.serializers import builtin_serializer

    def make(model: type[Any]) -> Serializer[Any]:
        made = builtin_serializer(name, model)
        assert made is not None, name  # noqa: S101 - the name was looked up above
        return made

    return make


def cipher(name: str) -> Cipher | None:
    """Return the suite of that name."""
    from sojourn.crypto import BUILTIN_CIPHERS

    return next((suite for suite in BUILTIN_CIPHERS if suite.name == name), None)


def metrics(name: str) -> Metrics | None:
    """Return the sink for ``null`` or ``log``."""
    from sojourn.metrics import LogMetrics, NullMetrics

    match name:
        case "null":
            return NullMetrics()
        case "log":
            return LogMetrics()
        case _:
            return None
