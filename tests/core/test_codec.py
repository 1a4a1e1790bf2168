"""The envelope: what goes in comes out, and nothing else is ever let in (SECURITY R24-R29)."""

from __future__ import annotations

import math
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sojourn.codec import COMPRESSED, Bound, Codec, CorruptEnvelopeError, FutureEnvelopeError, peek_flags
from sojourn.crypto.ciphers import BUILTIN_CIPHERS, AesGcm, Cipher
from sojourn.crypto.keys import KeyRing, new_secret
from sojourn.errors import SessionTooLargeError
from sojourn.stores import FORMAT, STUB

NOW = 1_800_000_000.0
DAY = 86_400.0
SECRET = new_secret()
RING = KeyRing([SECRET])
BOUND = Bound("a" * 43, 3, NOW + 60, NOW + 600)

suites = pytest.mark.parametrize("cipher", BUILTIN_CIPHERS, ids=lambda cipher: cipher.name)


def make_codec(
    cipher: Cipher | None = None,
    *,
    ring: KeyRing = RING,
    purpose: str = "store:test",
    client_side: bool = False,
    compress_over: int | None = None,
    max_payload: int = 1 << 20,
    max_lifetime: float = DAY,
) -> Codec:
    return Codec(
        ring,
        cipher,
        openers=BUILTIN_CIPHERS,
        purpose=purpose,
        client_side=client_side,
        compress_over=compress_over,
        max_payload=max_payload,
        max_lifetime=max_lifetime,
    )


@suites
@given(plain=st.binary(max_size=4000), compress=st.sampled_from([None, 0, 100]), flags=st.sampled_from([0, STUB]))
def test_what_was_sealed_opens_to_the_same_bytes(
    cipher: Cipher, plain: bytes, compress: int | None, flags: int
) -> None:
    codec = make_codec(cipher, compress_over=compress)
    opened, found = codec.open(codec.seal(plain, BOUND, NOW, flags), BOUND, NOW)
    assert opened == plain
    assert found & STUB == flags


@suites
@given(plain=st.binary(max_size=200), data=st.data())
def test_r24_any_flipped_removed_or_inserted_byte_is_refused(cipher: Cipher, plain: bytes, data: st.DataObject) -> None:
    codec = make_codec(cipher, compress_over=50)
    envelope = codec.seal(plain, BOUND, NOW)
    at = data.draw(st.integers(0, len(envelope) - 1))
    change = data.draw(st.sampled_from(["flip", "remove", "insert", "cut", "extend"]))
    byte = data.draw(st.integers(1, 255))
    broken = {
        "flip": envelope[:at] + bytes([envelope[at] ^ byte]) + envelope[at + 1 :],
        "remove": envelope[:at] + envelope[at + 1 :],
        "insert": envelope[:at] + bytes([byte ^ envelope[at]]) + envelope[at:],
        "cut": envelope[:at],
        "extend": envelope + bytes([byte]),
    }[change]
    with pytest.raises((CorruptEnvelopeError, FutureEnvelopeError)):
        codec.open(broken, BOUND, NOW)


@suites
@given(plain=st.binary(max_size=200), data=st.data())
def test_r24_a_codec_that_opened_the_head_before_still_refuses_what_is_not_authentic(
    cipher: Cipher, plain: bytes, data: st.DataObject
) -> None:
    codec = make_codec(cipher)
    envelope = codec.seal(plain, BOUND, NOW)
    assert codec.open(envelope, BOUND, NOW) == (plain, 0) == codec.open(envelope, BOUND, NOW)
    at, byte = data.draw(st.integers(0, len(envelope) - 1)), data.draw(st.integers(1, 255))
    broken = envelope[:at] + bytes([envelope[at] ^ byte]) + envelope[at + 1 :]
    for other, bound in ((broken, BOUND), (envelope, replace(BOUND, version=4)), (envelope[:-1], BOUND)):
        with pytest.raises((CorruptEnvelopeError, FutureEnvelopeError)):
            codec.open(other, bound, NOW)


@suites
def test_r27_a_head_that_was_opened_before_is_refused_when_its_day_is_over(cipher: Cipher) -> None:
    codec = make_codec(cipher)
    envelope = codec.seal(b"payload", BOUND, NOW)
    assert codec.open(envelope, BOUND, NOW)[0] == b"payload"
    with pytest.raises(CorruptEnvelopeError):
        codec.open(envelope, BOUND, NOW + 10 * DAY)
    later = codec.seal(b"payload", BOUND, NOW + 10 * DAY)
    assert codec.open(later, BOUND, NOW + 10 * DAY)[0] == b"payload"


@suites
def test_r25_every_bound_fact_is_authenticated(cipher: Cipher) -> None:
    codec = make_codec(cipher)
    envelope = codec.seal(b"payload", BOUND, NOW)
    for other in (
        replace(BOUND, id="b" * 43),
        replace(BOUND, version=4),
        replace(BOUND, absolute_deadline=BOUND.absolute_deadline + 1),
    ):
        with pytest.raises(CorruptEnvelopeError):
            codec.open(envelope, other, NOW)
    for purpose in ("store:other", "cookie:session:test"):
        with pytest.raises(CorruptEnvelopeError):
            make_codec(cipher, purpose=purpose).open(envelope, BOUND, NOW)


@suites
def test_r25_the_idle_deadline_is_bound_in_a_cookie_and_moves_freely_in_a_store(cipher: Cipher) -> None:
    moved = replace(BOUND, idle_deadline=BOUND.idle_deadline + 5)
    store = make_codec(cipher)
    assert store.open(store.seal(b"x", BOUND, NOW), moved, NOW)[0] == b"x"
    cookie = make_codec(cipher, client_side=True)
    with pytest.raises(CorruptEnvelopeError):
        cookie.open(cookie.seal(b"x", BOUND, NOW), moved, NOW)


def test_r25_a_cookie_does_not_open_in_a_store_nor_the_other_way_round() -> None:
    store, cookie = make_codec(AesGcm(), purpose="same"), make_codec(AesGcm(), purpose="same", client_side=True)
    with pytest.raises(CorruptEnvelopeError):
        store.open(cookie.seal(b"x", BOUND, NOW), BOUND, NOW)
    with pytest.raises(CorruptEnvelopeError):
        cookie.open(store.seal(b"x", BOUND, NOW), BOUND, NOW)


def test_r24_a_sealing_reader_refuses_an_envelope_that_is_not_sealed() -> None:
    plain = make_codec(None).seal(b"forged", BOUND, NOW)
    with pytest.raises(CorruptEnvelopeError):
        make_codec(AesGcm()).open(plain, BOUND, NOW)


def test_f19_an_unknown_key_suite_or_format_is_future_and_not_corrupt() -> None:
    codec = make_codec(AesGcm())
    envelope = codec.seal(b"x", BOUND, NOW)
    with pytest.raises(FutureEnvelopeError):
        make_codec(AesGcm(), ring=KeyRing.ephemeral()).open(envelope, BOUND, NOW)
    for strange in (b"\x01" + envelope[1:], b"\x03" + envelope[1:], envelope[:1] + b"\x63" + envelope[2:]):
        with pytest.raises(FutureEnvelopeError):
            codec.open(strange, BOUND, NOW)


def test_r26_a_retired_key_opens_and_the_next_seal_uses_the_first() -> None:
    newer = new_secret()
    envelope = make_codec(AesGcm()).seal(b"x", BOUND, NOW)
    rotated = make_codec(AesGcm(), ring=KeyRing([newer], retired=[SECRET]))
    assert rotated.open(envelope, BOUND, NOW)[0] == b"x"
    assert not rotated.is_sealed_by_first_key(envelope)
    resealed = rotated.seal(b"x", BOUND, NOW)
    assert rotated.is_sealed_by_first_key(resealed)
    assert make_codec(AesGcm(), ring=KeyRing([newer])).open(resealed, BOUND, NOW)[0] == b"x"


@suites
def test_r27_a_day_outside_the_lifetime_is_refused(cipher: Cipher) -> None:
    codec = make_codec(cipher, max_lifetime=DAY)
    envelope = codec.seal(b"x", BOUND, NOW)
    assert codec.open(envelope, BOUND, NOW + DAY)[0] == b"x"
    for other in (NOW + 4 * DAY, NOW - 3 * DAY):
        with pytest.raises(CorruptEnvelopeError):
            codec.open(envelope, BOUND, other)


@suites
@pytest.mark.parametrize("seen", [False, True], ids=["new", "opened before"])
def test_r27_where_the_lifetime_of_an_envelope_begins_and_ends(cipher: Cipher, seen: bool) -> None:
    envelope = make_codec(cipher).seal(b"x", BOUND, NOW)
    day = NOW // DAY * DAY
    first, last = day - DAY, day + 4 * DAY  # its own day, the lifetime of one, and two more

    def opened(now: float) -> bytes:
        codec = make_codec(cipher, max_lifetime=DAY)
        if seen:
            codec.open(envelope, BOUND, NOW)
        return codec.open(envelope, BOUND, now)[0]

    assert opened(first) == opened(math.nextafter(last, 0)) == b"x"
    for now in (math.nextafter(first, 0), last):
        with pytest.raises(CorruptEnvelopeError):
            opened(now)


def test_r29_a_decompression_bomb_is_refused_in_bounded_memory() -> None:
    plain = make_codec(None, max_payload=1 << 16)
    deflate = zlib.compressobj(9, wbits=31)
    bomb = deflate.compress(bytes(64 << 20)) + deflate.flush()
    head = make_codec(None).seal(b"", BOUND, NOW)
    envelope = head[:2] + bytes([COMPRESSED]) + head[3:] + bomb
    tracemalloc.start()
    with pytest.raises(CorruptEnvelopeError):
        plain.open(envelope, BOUND, NOW)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_compression_is_used_only_where_it_is_asked_for_and_helps() -> None:
    codec = make_codec(None, compress_over=10)
    assert peek_flags(codec.seal(b"a" * 500, BOUND, NOW)) & COMPRESSED
    assert not peek_flags(codec.seal(b"a" * 10, BOUND, NOW)) & COMPRESSED
    assert not peek_flags(codec.seal(bytes(range(40)), BOUND, NOW)) & COMPRESSED
    assert not peek_flags(make_codec(None).seal(b"a" * 500, BOUND, NOW)) & COMPRESSED


def test_f16_a_payload_over_the_limit_is_refused_by_name() -> None:
    with pytest.raises(SessionTooLargeError, match="SOJOURN_MAX_PAYLOAD"):
        make_codec(AesGcm(), max_payload=100).seal(bytes(101), BOUND, NOW)


@given(junk=st.binary(max_size=300))
def test_junk_is_refused_and_never_raises_anything_else(junk: bytes) -> None:
    for codec in (make_codec(AesGcm()), make_codec(None)):
        try:
            opened, _ = codec.open(junk, BOUND, NOW)
        except (CorruptEnvelopeError, FutureEnvelopeError):
            continue
        assert junk[:2] == bytes((FORMAT, 0))
        assert opened is not None
    assert peek_flags(junk) == (junk[2] if len(junk) > 2 else 0)
