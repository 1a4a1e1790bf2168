"""The envelope of a payload: compressed and encrypted, and the way back.

The envelope is a header (format, suite, flags; day and key id where it is encrypted) and the payload. Nothing is
decompressed or parsed before it is authenticated (SECURITY R24, R25); a stored envelope of another format or under an
unknown key is "future", never "corrupt" (FAILURES F4).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from struct import Struct, error
from typing import Final, NamedTuple

import msgspec

from sojourn.crypto.ciphers import Box, Cipher, CryptoError
from sojourn.crypto.keys import KeyRing
from sojourn.errors import SessionTooLargeError
from sojourn.stores import FORMAT, Record

PLAIN: Final = 0
"""The suite byte of an envelope that is not encrypted: only for stores that never leave the process."""
COMPRESSED: Final = 1

# Format, suite, flags, day, key id.
_HEAD: Final = Struct(">BBBI8s")
# By the flags: what is not encrypted has neither day nor key.
_PLAIN_HEADS: Final = tuple(bytes((FORMAT, PLAIN, flags)) for flags in range(256))
_PLAIN_HEAD: Final = bytes((FORMAT, PLAIN))
# Version, absolute deadline.
_BOUND: Final = Struct(">Qd")
# Version, absolute deadline, idle deadline.
_BOUND_COOKIE: Final = Struct(">Qdd")
_HEAD_BYTES: Final = _HEAD.size
_MOST_OPENED: Final = 64
_DAY: Final = 86_400.0
_GZIP: Final = 31


class CorruptEnvelopeError(Exception):
    """The envelope is not authentic, or cannot be decompressed."""


class FutureEnvelopeError(Exception):
    """The envelope in a store has another format, or was encrypted with a suite or key that this node does not have."""


class Bound(msgspec.Struct, frozen=True, gc=False):
    """What an envelope is bound to beside its header and the purpose of the codec, for a record that is not made yet."""

    id: str
    version: int
    idle_deadline: float
    absolute_deadline: float


class Codec:
    """Encrypts payloads for one purpose, and decrypts them.

    *purpose* is the cookie's name or the store's namespace; with *client_side* the idle deadline is bound as well.
    *cipher* None leaves payloads readable (a store in memory). *compress_over* and *max_payload* are bytes;
    *max_lifetime* is in seconds: an envelope encrypted on a day longer ago is refused (SECURITY R27). Until *plain_until*,
    in seconds since the epoch, what is not encrypted is opened as well (SECURITY R55).
    """

    def __init__(
        self,
        ring: KeyRing,
        cipher: Cipher | None,
        *,
        openers: Sequence[Cipher],
        purpose: str,
        client_side: bool = False,
        compress_over: int | None = None,
        max_payload: int = 1 << 20,
        max_lifetime: float = 400 * _DAY,
        plain_until: float | None = None,
    ) -> None:
        self._ring = ring
        self._cipher = cipher
        self._openers = {opener.suite: opener for opener in (*openers, *((cipher,) if cipher else ()))}
        self._purpose = purpose.encode() + b"\x00"
        self._client_side = client_side
        self._compress_over = compress_over
        self._max_payload = max_payload
        self.seals = cipher is not None
        self.accepts_unsealed = cipher is not None and plain_until is not None
        """Whether it opens what is not encrypted, although it encrypts (SECURITY R55)."""
        self._plain_until = math.inf if cipher is None else plain_until or 0.0
        self._max_days = int(max_lifetime // _DAY) + 2
        self._sealing: tuple[int, bytes, Box] | None = None
        self._opened: dict[bytes, tuple[Box, float, float, int]] = {}
        """By the head of an envelope that was authentic: the box, the times from and until it is valid, the flags."""

    def seal(self, plain: bytes, bound: Bound | Record, now: float, flags: int = 0) -> bytes:
        """Return the envelope. Raise SessionTooLargeError when *plain* exceeds ``max_payload``."""
        if len(plain) > self._max_payload:
            raise SessionTooLargeError(
                f"the session is {len(plain)} bytes; SOJOURN_MAX_PAYLOAD allows {self._max_payload}: "
                "keep less in it, or raise the limit"
            )
        if self._compress_over is not None and len(plain) > self._compress_over:
            deflate = zlib.compressobj(6, wbits=_GZIP)
            packed = deflate.compress(plain) + deflate.flush()
            if len(packed) < len(plain):
                plain, flags = packed, flags | COMPRESSED
        cipher = self._cipher
        if cipher is None:
            return _PLAIN_HEADS[flags] + plain
        # The box is kept for the day: deriving its key costs more than encrypting.
        day, sealing = int(now // _DAY), self._sealing
        if sealing is None or sealing[0] != day:
            key = self._ring.primary
            sealing = self._sealing = (day, key.id, self._ring.box(cipher, key, day))
        head = _HEAD.pack(FORMAT, cipher.suite, flags, day, sealing[1])
        times = (
            _BOUND_COOKIE.pack(bound.version, bound.absolute_deadline, bound.idle_deadline)
            if self._client_side
            else _BOUND.pack(bound.version, bound.absolute_deadline)
        )
        return head + sealing[2].seal(plain, b"".join((head, times, self._purpose, bound.id.encode())))

    def open(self, envelope: bytes, bound: Bound | Record, now: float) -> tuple[bytes, int]:
        """Return plain bytes and flags. Raise CorruptEnvelopeError or FutureEnvelopeError."""
        if now < self._plain_until and envelope[:2] == _PLAIN_HEAD and len(envelope) > 2:
            plain, flags = envelope[3:], envelope[2]
            return (self._inflate(plain) if flags & COMPRESSED else plain), flags
        # Everything that the head says is worked out once for each head, and kept only after it proved authentic: what
        # an attacker makes up fills no cache.
        head = envelope[:_HEAD_BYTES]
        known = self._opened.get(head)
        box, since, until, flags = known if known is not None else self._way_into(envelope, now)
        if not since <= now < until:
            raise CorruptEnvelopeError
        try:
            times = (
                _BOUND_COOKIE.pack(bound.version, bound.absolute_deadline, bound.idle_deadline)
                if self._client_side
                else _BOUND.pack(bound.version, bound.absolute_deadline)
            )
            plain = box.open(envelope[_HEAD_BYTES:], b"".join((head, times, self._purpose, bound.id.encode())))
        except (CryptoError, error):
            # struct.error: a version that cannot be packed was not written by a codec.
            raise CorruptEnvelopeError from None
        if known is None:
            if len(self._opened) >= _MOST_OPENED:
                self._opened.clear()
            self._opened[head] = (box, since, until, flags)
        return (self._inflate(plain) if flags & COMPRESSED else plain), flags

    def _way_into(self, envelope: bytes, now: float) -> tuple[Box, float, float, int]:
        """Return the entry of `_opened` for an encrypted envelope whose head is new."""
        if len(envelope) < _HEAD_BYTES:
            raise CorruptEnvelopeError
        # Anybody can change these bytes of a cookie, and "future" would refuse the writes of the request (SECURITY R45).
        unknown = CorruptEnvelopeError if self._client_side else FutureEnvelopeError
        form, suite, flags, day, key_id = _HEAD.unpack_from(envelope)
        if form != FORMAT:
            raise unknown
        # A reader that expects encryption must not accept a record because it claims to have none.
        if suite == PLAIN:
            raise CorruptEnvelopeError
        opener = self._openers.get(suite)
        key = self._ring.get(key_id)
        if opener is None or key is None:
            raise unknown
        since, until = (day - 1) * _DAY, (day + self._max_days + 1) * _DAY
        # Refused here, before a key is derived for the day.
        if not since <= now < until:
            raise CorruptEnvelopeError
        return self._ring.box(opener, key, day), since, until, flags

    def is_sealed_by_first_key(self, envelope: bytes) -> bool:
        """Return whether a write would use the same key; an envelope under another key is re-encrypted (SECURITY R26)."""
        return self._cipher is None or envelope[7:_HEAD_BYTES] == self._ring.primary.id

    def _inflate(self, packed: bytes) -> bytes:
        inflate = zlib.decompressobj(wbits=_GZIP)
        try:
            plain = inflate.decompress(packed, self._max_payload)
        except zlib.error:
            raise CorruptEnvelopeError from None
        if not inflate.eof or inflate.unused_data:
            raise CorruptEnvelopeError
        return plain


class Head(NamedTuple):
    """What an envelope says of itself, without a proof."""

    format: int
    suite: int
    day: int
    """The UTC day on which it was encrypted, counted from 1970-01-01."""
    key: bytes
    """The id of its key; empty where it is not encrypted."""


def read_head(envelope: bytes) -> Head | None:
    """Return what an envelope says of itself; None for what is too short for one."""
    if envelope[1:2] == _PLAIN_HEAD[1:]:
        return Head(envelope[0], PLAIN, 0, b"")
    if len(envelope) < _HEAD_BYTES:
        return None
    form, suite, _, day, key = _HEAD.unpack_from(envelope)
    return Head(form, suite, day, key)


def peek_flags(envelope: bytes) -> int:
    """Return the flags of an envelope without decrypting it; 0 when it has none."""
    return envelope[2] if len(envelope) > 2 else 0
