"""Messages for the next request that reads them.

Reading a message consumes it, exactly once; a request that reads none changes nothing.
"""

from __future__ import annotations

import math
from collections import UserDict
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from operator import is_
from typing import Any, Final, cast

from sojourn.errors import SerializationError, SessionTooLargeError
from sojourn.merge import is_dict

MAX_MESSAGES: Final = 32
"""The most messages that may be pending."""
_STR: Final = frozenset((str,))
_DEEPEST: Final = 64
"""The most levels of a JSON value, so that one which contains itself is refused."""


def json_copy(value: object, what: str) -> Any:
    """Return a deep copy of a JSON value: str, int of 64 bits, finite float, bool, None, list, dict with str keys.

    A tuple becomes a list. Anything else raises SerializationError, which names *what* and never the value (FAILURES F15).
    """
    return _copy(value, what, 0)


def json_value(value: object, what: str) -> Any:
    """Return *value* as it is read after a round trip: itself where nothing changes, so that changes in place are seen."""
    return value if is_json(value) else _copy(value, what, 0, keeps=True)


def is_json(value: object) -> bool:
    """Tell whether *value* and all inside it are of the very types that JSON has: a round trip leaves it as it is."""
    return _is_exact((value,), 0)


class FlashNow(UserDict[str, Any]):
    """Messages for this request alone; reading does not consume them, and they are never stored."""

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(_checked_key(key), json_copy(value, f"flash message {key!a}"))

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self.data))

    def __repr__(self) -> str:
        return f"<FlashNow: {len(self)} messages>"


class _Message:
    """A descriptor for the message of a usual name as an attribute of Flash; reading it consumes it."""

    def __set_name__(self, owner: type[Flash], name: str) -> None:
        self._name = name

    def __get__(self, flash: Flash, owner: type[Flash]) -> Any:
        return flash.get(self._name)

    def __set__(self, flash: Flash, value: Any) -> None:
        flash[self._name] = value


class Flash(MutableMapping[str, Any]):
    """The messages of one session, as a mapping; does no I/O.

    ``flash["notice"] = "Welcome"`` is kept until a request reads it, which may be this one. What was read stays readable
    for the rest of the request. ``in``, ``len``, ``iter``, ``keys`` and ``==`` do not read. Values must be JSON
    (SerializationError names the key); a 33rd pending message raises SessionTooLargeError.

    *stored* are the messages of earlier requests. *on_write* is called before any change of ``pending()`` and may raise.
    """

    __slots__ = ("_kept", "_now", "_on_write", "_pending", "_seen")
    __hash__ = None  # type: ignore[assignment] # compares by content, as every mapping

    notice = _Message()
    alert = _Message()
    error = _Message()
    success = _Message()
    warning = _Message()
    info = _Message()

    def __init__(self, stored: Mapping[str, Any] | None = None, *, on_write: Callable[[], None] | None = None) -> None:
        self._pending: dict[str, Any] = dict(stored or {})
        self._seen: dict[str, Any] = {}
        self._kept: set[str] = set()
        self._now = FlashNow()
        self._on_write = on_write

    @property
    def now(self) -> FlashNow:
        """Messages for this request alone; they hide stored ones of the same name without consuming them."""
        return self._now

    def pending(self) -> dict[str, Any]:
        """Return the messages to store at commit: those that were not read, and those kept."""
        return dict(self._pending)

    def keep(self, key: str) -> None:
        """Keep the message for the next request that reads it, whether or not this one reads it.

        A message of ``now`` is stored too; a message that does not exist is ignored.
        """
        if key in self._pending:
            if key not in self._kept:
                self._seen[key] = json_copy(self._pending[key], f"flash message {key!a}")
        elif key in self:
            value = self._now[key] if key in self._now else self._seen[key]
            kept = json_copy(value, f"flash message {key!a}")
            self._about_to_write(key)
            self._seen[key] = value
            self._pending[key] = kept
        else:
            return
        self._kept.add(key)

    def keep_all(self) -> None:
        """Keep every message, those of ``now`` included."""
        for key in self:
            self.keep(key)

    def discard(self, key: str) -> None:
        """Consume the message without reading it; it stays readable for the rest of this request."""
        if key in self._pending:
            self._about_to_write()
            value = self._pending.pop(key)
            if key not in self._kept:
                self._seen[key] = value
            self._kept.discard(key)

    def discard_all(self) -> None:
        """Consume every message without reading it."""
        for key in tuple(self._pending):
            self.discard(key)

    def clear(self) -> None:
        """Forget every message, read or not, those of ``now`` included."""
        if self._pending:
            self._about_to_write()
        for messages in (self._pending, self._seen, self._kept, self._now):
            messages.clear()

    def __getitem__(self, key: str) -> Any:
        if key in self._now:
            return self._now[key]
        if key in self._pending and key not in self._kept:
            self._about_to_write()
            self._seen[key] = self._pending.pop(key)
        return self._seen[key]

    def __setitem__(self, key: str, value: Any) -> None:
        key = _checked_key(key)
        copied = json_copy(value, f"flash message {key!a}")
        self._about_to_write(key)
        self._pending[key] = copied
        self._kept.discard(key)
        self._seen.pop(key, None)
        self._now.pop(key, None)

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        if key in self._pending:
            self._about_to_write()
            del self._pending[key]
        self._kept.discard(key)
        self._seen.pop(key, None)
        self._now.pop(key, None)

    def __contains__(self, key: object) -> bool:
        return key in self._now or key in self._pending or key in self._seen

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._pending, *self._now, *self._seen)))

    def __len__(self) -> int:
        return len({*self._pending, *self._now, *self._seen})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        mine = {**self._seen, **self._pending, **self._now}
        if isinstance(other, Flash):
            return mine == {**other._seen, **other._pending, **other._now}
        return mine == dict(cast("Mapping[str, Any]", other))

    def __repr__(self) -> str:
        return f"<Flash: {len(self)} messages>"

    def _about_to_write(self, added: str | None = None) -> None:
        if added is not None and added not in self._pending and len(self._pending) >= MAX_MESSAGES:
            raise SessionTooLargeError(
                f"flash message {added!a} would be more than {MAX_MESSAGES}; read or discard some"
            )
        if self._on_write is not None:
            self._on_write()


def _checked_key(key: object) -> str:
    if not isinstance(key, str):
        raise SerializationError(f"the keys of flash messages are str, not {type(key).__name__}")
    return cast("str", _copy(key, f"flash message {key!a}", 0))


def _copy(value: object, what: str, level: int, *, keeps: bool = False) -> Any:
    """Return a copy; with *keeps* lists and dicts whose content is as it will be are not copied."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and _is_text(value):
        return str.__str__(value)
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return int.__int__(value)
    if isinstance(value, float) and math.isfinite(value):
        return float.__float__(value)
    if level < _DEEPEST and isinstance(value, list | tuple):
        held = cast("Sequence[object]", value)
        copied = [_copy(inner, what, level + 1, keeps=keeps) for inner in held]
        return held if keeps and isinstance(value, list) and all(map(is_, copied, held)) else copied
    if level < _DEEPEST and is_dict(value) and all(isinstance(key, str) for key in value):
        made = {_copy(key, what, level): _copy(inner, what, level + 1, keeps=keeps) for key, inner in value.items()}
        return value if keeps and all(map(is_, made.values(), value.values())) else made
    raise SerializationError(
        f"{what} holds a {type(value).__name__} that is no JSON value; use str, int of 64 bits, finite float, bool, None, "
        "list and dict with str keys"
    )


def _is_exact(values: Iterable[Any], level: int) -> bool:
    """Return `is_json` of all *values*, as nearly all are; in an eighth of the time of `_copy`."""
    for value in values:
        kind = type(value)  # pyright: ignore[reportUnknownVariableType] - of anything
        if kind is str:
            if not (value.isascii() or _is_text(value)):
                return False
        elif kind is dict:
            has_names = level < _DEEPEST and _STR.issuperset(map(type, value)) and _is_text("".join(value))
            if not (has_names and _is_exact(value.values(), level + 1)):
                return False
        elif kind is list:
            if level >= _DEEPEST or not _is_exact(value, level + 1):
                return False
        elif kind is int:
            if not -(2**63) <= value < 2**64:
                return False
        elif not (value is None or kind is bool or (kind is float and math.isfinite(value))):
            return False
    return True


def _is_text(value: str) -> bool:
    """Return whether *value* can be encoded as UTF-8, which half of a surrogate pair cannot."""
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
