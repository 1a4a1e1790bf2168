"""What is in a session: the application's data, the extras and the flash messages, each decoded when first used.

Its one rule: it knows what it was when it was loaded, so a change is found by comparing, never by being told.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct

from sojourn.flash import Flash
from sojourn.merge import merge_messages, merge_values
from sojourn.session.payload import EMPTY, Payload, pack_map, unpack_map
from sojourn.session.shape import Shape

T = TypeVar("T")


class _Unset(Enum):
    UNSET = 0


UNSET: Final = _Unset.UNSET


class Content(Struct, Generic[T], eq=False):
    """The content of one session during one request; *loaded* is None for a new one.

    A struct, as it is made for most requests, and that in a fifth of the time of a class with an ``__init__``.
    """

    shape: Shape[T]
    loaded: Payload | None = None
    _data: T | _Unset = UNSET
    _blank: bytes | None = None
    _extras: dict[str, Any] | _Unset = UNSET
    _flash: Flash | _Unset = UNSET
    _seen: bytes | None = None
    """The data's bytes as they were at the last look, when they differed from what was loaded."""

    def __repr__(self) -> str:
        """Show no data (SECURITY R6)."""
        return f"<Content {'new' if self.loaded is None else 'loaded'}>"

    @property
    def data(self) -> T:
        """Return the model: the one loaded, else a new one."""
        if self._data is UNSET:
            if self.loaded is not None:
                self._data = self.shape.decode(self.loaded.data)
            else:
                self._data = self.shape.new()
                self._blank = self.shape.encode(self._data)
        return self._data

    @data.setter
    def data(self, value: T) -> None:
        if self.loaded is None and self._blank is None:
            self._blank = self.shape.encode(self.shape.new())
        self._data = value

    @property
    def extras(self) -> dict[str, Any]:
        """Return the extras."""
        if self._extras is UNSET:
            self._extras = unpack_map(self.loaded.extras) if self.loaded is not None else {}
        return self._extras

    def flash(self, on_write: Callable[[], None]) -> Flash:
        """Return the flash messages, which announce their changes to *on_write*."""
        if self._flash is UNSET:
            stored = unpack_map(self.loaded.flash) if self.loaded is not None else {}
            self._flash = Flash(stored, on_write=on_write)
        return self._flash

    def clear(self, on_write: Callable[[], None]) -> None:
        """Reset everything, as a change of what was loaded."""
        self.data = self.shape.new()
        self._extras = {}
        self.flash(on_write).clear()

    def is_as_loaded(self) -> bool:
        """Tell, cheaply, that nothing changed; no answer but True is final."""
        loaded = self.loaded
        if loaded is None:
            return False
        if self._data is not UNSET:
            seen = self.shape.encode(self._data)
            if seen != loaded.data:
                self._seen = seen
                return False
            self._seen = None
        return (self._extras is UNSET or pack_map(self._extras, "extra") == loaded.extras) and (
            self._flash is UNSET or pack_map(self._flash.pending(), "flash message") == loaded.flash
        )

    def look_anew(self) -> None:
        """Forget what the last look saw: the handler has gone on since."""
        self._seen = None

    def is_blank(self) -> bool:
        """Tell whether a new session holds nothing worth a record."""
        if self._data is not UNSET and self.shape.encode(self._data) != self._blank:
            return False
        if self._extras is not UNSET and self._extras:
            return False
        return self._flash is UNSET or not self._flash.pending()

    def encode_data(self) -> bytes:
        """Return the data's bytes: those loaded when nothing but order or added defaults differs."""
        if self.loaded is None:
            return self.shape.first(self.data)
        if self._data is UNSET:
            return self.loaded.data
        seen = self._seen
        self._seen = None
        return self.shape.settle(self.loaded.data, self.shape.encode(self._data) if seen is None else seen)

    def encode_extras(self) -> bytes:
        """Return the bytes of the extras. Raise SerializationError naming the key."""
        if self._extras is UNSET:
            return self.loaded.extras if self.loaded is not None else EMPTY
        return pack_map(self._extras, "extra")

    def encode_flash(self) -> bytes:
        """Return the bytes of the messages for the next request."""
        if self._flash is UNSET:
            return self.loaded.flash if self.loaded is not None else EMPTY
        return pack_map(self._flash.pending(), "flash message")

    def merge_into(self, theirs: Payload | None) -> tuple[bytes, bytes, bytes]:
        """Return data, extras and flash of *theirs* with this request's changes; None stands for a new session."""
        base = self.loaded
        before = self.shape.decode(base.data) if base is not None else self.shape.new()
        data = self.shape.merge(before, self.data, theirs.data if theirs else self.shape.encode(self.shape.new()))
        extras = merge_values(
            unpack_map(base.extras) if base is not None else {},
            unpack_map(self.encode_extras()),
            unpack_map(theirs.extras) if theirs is not None else {},
            {},
        )
        flash = merge_messages(
            unpack_map(base.flash) if base is not None else {},
            unpack_map(self.encode_flash()),
            unpack_map(theirs.flash) if theirs is not None else {},
        )
        return data, pack_map(extras, "extra"), pack_map(flash, "flash message")
