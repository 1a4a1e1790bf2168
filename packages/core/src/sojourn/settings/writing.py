"""Write values the way variables hold them, for people who look at settings.

A secret is written as "(set)" (SECURITY R6).
"""

from __future__ import annotations

from datetime import timedelta
from typing import cast, get_args

from pydantic_settings import BaseSettings

from sojourn.settings.sources import is_secret
from sojourn.settings.types import write_duration

UNSET = "-"


def write_value(model: type[BaseSettings], name: str, value: object) -> str:
    """Write *value* of the field *name*: ``30m``, ``true``, ``a,b``, ``auto``, ``off``, ``-`` when it is not set."""
    if value is None:
        return _word_for_none(model, name)
    members = _members(value)
    if is_secret(model, name):
        return "(set)" if members is None else f"({len(members)} set)" if members else UNSET
    if members is not None:
        return ",".join(map(str, members)) or UNSET
    match value:
        case bool():
            return "true" if value else "false"
        case timedelta():
            return write_duration(value)
        case _:
            return str(value)


def _members(value: object) -> tuple[object, ...] | None:
    return cast("tuple[object, ...]", value) if isinstance(value, tuple) else None


def _word_for_none(model: type[BaseSettings], name: str) -> str:
    """Return the word that reads as None: a choice is left to the store, a limit is off, text is not set."""
    choices = str(get_args(model.model_fields[name].annotation))
    if "bool" in choices:
        return "auto"
    return "off" if "timedelta" in choices or "int" in choices else UNSET
