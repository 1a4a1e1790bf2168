"""Types for settings, as people write them in a variable: ``30m``, ``1h30m``, ``10ms``, ``off``, ``a,b``, ``["a", "b"]``.

No error message repeats the value, which may be a secret (SECURITY R6).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any, Final, cast

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, SecretStr
from pydantic_settings import NoDecode

from sojourn.binding import UNIX_PEER, parse_network

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PARTS: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|[smhdw]) *)+")
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[smhdw])")
_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_NAME: Final = re.compile(r"[a-z0-9]+(?:[-_.][a-z0-9]+)*")
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", re.IGNORECASE)

# Shorter durations are written in hours: people say 24h and 7d.
_DAYS_FROM: Final = timedelta(days=2)
HOW_TO_WRITE_A_DURATION: Final = "write a duration such as 30m, 24h, 1h30m, 10ms, 1800 (seconds) or PT30M"


def parse_duration(value: object) -> object:
    """Convert seconds or text like ``1h30m`` to a ``timedelta``; leave ISO 8601 (``PT30M``) to pydantic.

    Raises ``ValueError`` for anything else.
    """
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _of_seconds(float(value))
    if isinstance(value, str):
        text = value.strip().lower()
        if _NUMBER.fullmatch(text):
            return _of_seconds(float(text))
        if _PARTS.fullmatch(text):
            return _of_seconds(sum(float(amount) * _SECONDS[unit] for amount, unit in _PART.findall(text)))
        if text.startswith("p"):
            return text.upper()
    raise ValueError(HOW_TO_WRITE_A_DURATION)


def write_duration(value: timedelta) -> str:
    """Write a duration the way ``parse_duration`` reads it: ``1h30m``, ``10ms``."""
    milliseconds = round(value.total_seconds() * 1000)
    if milliseconds == 0:
        return "0s"
    parts: list[str] = []
    days = ("d",) if value >= _DAYS_FROM else ()
    for unit in (*days, "h", "m", "s", "ms"):
        size = round(_SECONDS[unit] * 1000)
        amount, milliseconds = divmod(milliseconds, size)
        if amount:
            parts.append(f"{amount}{unit}")
    return "".join(parts)


def _of_seconds(seconds: float) -> timedelta:
    if not math.isfinite(seconds):
        raise ValueError(HOW_TO_WRITE_A_DURATION)
    try:
        return timedelta(seconds=seconds)
    except OverflowError:
        raise ValueError(HOW_TO_WRITE_A_DURATION) from None


def _require(is_right: Callable[[Any], object], otherwise: str) -> AfterValidator:
    def check(value: Any) -> Any:
        if not is_right(value):
            raise ValueError(otherwise)
        return value

    return AfterValidator(check)


def _none_for(*words: str) -> Callable[[object], object]:
    def read(value: object) -> object:
        return None if isinstance(value, str) and value.strip().lower() in words else value

    return read


def _read_names(value: object) -> object:
    """Parse a JSON list, or names between commas."""
    if not isinstance(value, str) or value.lstrip().startswith("["):
        return _read_json_list(value)
    return [part.strip() for part in value.split(",") if part.strip()]


def _read_json_list(value: object) -> object:
    """Parse a JSON list; a list between commas is not accepted, because a passphrase may hold commas."""
    if not isinstance(value, str):
        return value
    try:
        parsed: Any = json.loads(value)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, list):
        raise ValueError('write a JSON list such as ["first", "second"]') from None  # noqa: TRY004 - pydantic's way
    return cast("list[object]", parsed)


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("names are written in lower case letters, digits and hyphens")
    return value


def _joined_names(value: str) -> str:
    return ",".join(_names(tuple(part.strip() for part in value.split(","))))


def _names(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_name(value) for value in values))


def _origins(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if not _ORIGIN.fullmatch(value):
            raise ValueError(
                "an origin is a scheme and a host, without a path: https://app.example or http://[::1]:8000"
            )
    return tuple(value.lower() for value in values)


def _networks(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if value != UNIX_PEER:
            parse_network(value)
    return values


def lower_case(value: object) -> object:
    """Lower the case of text, leave everything else."""
    return value.strip().lower() if isinstance(value, str) else value


def seconds(amount: float) -> timedelta:
    """Return a duration of *amount* seconds."""
    return timedelta(seconds=amount)


_OFF: Final = BeforeValidator(_none_for("none", "off"))
_AUTO: Final = BeforeValidator(_none_for("none", "auto"))
_READ: Final = BeforeValidator(parse_duration)
_READ_NAMES: Final = BeforeValidator(_read_names)

Duration = Annotated[timedelta, _require(lambda value: value > timedelta(), "it must be longer than zero"), _READ]
"""A time longer than zero."""
DurationOrZero = Annotated[timedelta, _require(lambda value: value >= timedelta(), "it must not be negative"), _READ]
"""A time that may be zero."""
OptionalDuration = Annotated[Duration | None, _OFF]
"""A time longer than zero, or ``off``."""
OptionalMoment = Annotated[AwareDatetime | None, _OFF]
"""A date and time with its zone, or ``off``."""
OptionalCount = Annotated[
    Annotated[int, _require(lambda value: value >= 1, "it must be at least 1, or off")] | None, _OFF
]
"""A whole number from 1, or ``off``."""
OptionalText = Annotated[str | None, BeforeValidator(_none_for("none"))]
"""Text, or ``none``."""
Name = Annotated[str, AfterValidator(_name), BeforeValidator(lower_case)]
"""The name of a store, serializer or cipher."""
JoinedNames = Annotated[str, AfterValidator(_joined_names), BeforeValidator(lower_case)]
"""A name, or several between commas, as one text."""
OptionalName = Annotated[Name | None, _OFF]
"""A name, or ``off``."""
Choice = Annotated[bool | None, _AUTO]
"""``true``, ``false``, or ``auto`` to leave it to the store."""
Names = Annotated[tuple[str, ...], NoDecode, AfterValidator(_names), _READ_NAMES]
"""Names between commas, or a JSON list."""
Networks = Annotated[tuple[str, ...], NoDecode, AfterValidator(_networks), _READ_NAMES]
"""Networks in CIDR form, between commas or as a JSON list."""
Origins = Annotated[tuple[str, ...], NoDecode, AfterValidator(_origins), _READ_NAMES]
"""Web origins, between commas or as a JSON list."""
SecretList = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_read_json_list)]
"""A JSON list of secrets."""
