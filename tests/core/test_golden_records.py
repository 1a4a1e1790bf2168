"""Records of each form as they were written once: what was written opens for good (SECURITY R42).

`python -m tests.core.test_golden_records` prints vectors like those of the file, sealed anew; new forms are added to
it, and a vector that was released is never changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sojourn.codec import COMPRESSED, Bound, Codec, CorruptEnvelopeError, FutureEnvelopeError
from sojourn.crypto.ciphers import BUILTIN_CIPHERS, Cipher
from sojourn.crypto.keys import KeyRing
from sojourn.session.payload import Payload, decode_payload, encode_payload
from sojourn.stores import FORMAT, STUB

VECTORS = Path(__file__).with_name("golden_records.json")
SECRET = "bm90IGEgc2VjcmV0LCBidXQgYSB2ZWN0b3IgZm9yIGE"
NOW = 1_800_000_000.0
ID = "A" * 43
BOUND = Bound(ID, 7, NOW + 3_600, NOW + 86_400)
PURPOSES = {"store": "store:7:sojourn:shop", "cookie": "cookie:__Host-session:sojourn"}
PAYLOAD = Payload(
    data=b'{"user_id":42,"cart":["book"]}' + b" " * 64,
    created_at=NOW - 60,
    issued_at=NOW - 30,
    principal="42",
    authenticated_at=NOW - 60,
    csrf=bytes(range(32)),
    client="Firefox on Linux",
    extras=b"\x81\xa1k\x01",
    flash=b"\x81\xa6notice\xa2hi",
    model=b"12345678",
)


def codec(name: str | None, kind: str, compress_over: int | None = None) -> Codec:
    cipher: Cipher | None = next((one for one in BUILTIN_CIPHERS if one.name == name), None)
    return Codec(
        KeyRing([SECRET]),
        cipher,
        openers=BUILTIN_CIPHERS,
        purpose=PURPOSES[kind],
        client_side=kind == "cookie",
        compress_over=compress_over,
    )


def forms() -> list[tuple[str, str | None, str, int | None, int]]:
    """Return name, cipher, kind, compression and flags of each form."""
    found: list[tuple[str, str | None, str, int | None, int]] = [("plain", None, "store", None, 0)]
    for cipher in BUILTIN_CIPHERS:
        found.extend((f"{cipher.name} {kind}", cipher.name, kind, None, 0) for kind in PURPOSES)
        found.append((f"{cipher.name} compressed", cipher.name, "store", 16, COMPRESSED))
        found.append((f"{cipher.name} redirect", cipher.name, "store", None, STUB))
    return found


def make() -> dict[str, Any]:
    vectors = {}
    for name, cipher, kind, compress_over, flags in forms():
        plain = b"k" * 8 + ID.encode() if flags & STUB else encode_payload(PAYLOAD)
        sealed = codec(cipher, kind, compress_over).seal(plain, BOUND, NOW, flags & STUB)
        vectors[name] = sealed.hex()
    return vectors


def load() -> dict[str, str]:
    found: dict[str, str] = json.loads(VECTORS.read_text())
    return found


@pytest.mark.parametrize(("name", "cipher", "kind", "compress_over", "flags"), forms())
def test_a_record_that_was_written_once_opens(
    name: str, cipher: str | None, kind: str, compress_over: int | None, flags: int
) -> None:
    envelope = bytes.fromhex(load()[name])
    assert envelope[0] == FORMAT
    plain, found = codec(cipher, kind).open(envelope, BOUND, NOW)
    assert found == flags
    if flags & STUB:
        assert plain == b"k" * 8 + ID.encode()
    else:
        assert decode_payload(plain) == PAYLOAD


@pytest.mark.parametrize("name", [name for name, cipher, *_ in forms() if cipher is not None])
def test_it_opens_nowhere_else(name: str) -> None:
    envelope = bytes.fromhex(load()[name])
    _, cipher, kind, *_ = next(form for form in forms() if form[0] == name)
    elsewhere = Codec(
        KeyRing([SECRET]), None, openers=BUILTIN_CIPHERS, purpose="store:7:sojourn:cart", client_side=kind == "cookie"
    )
    with pytest.raises(CorruptEnvelopeError):
        elsewhere.open(envelope, BOUND, NOW)
    with pytest.raises(CorruptEnvelopeError if kind == "cookie" else FutureEnvelopeError):
        codec(cipher, kind).open(b"\x01" + envelope[1:], BOUND, NOW)


if __name__ == "__main__":
    print(json.dumps(make(), indent=2))
