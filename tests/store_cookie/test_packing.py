"""Properties of the packing: exact, strict, total, linear."""

from __future__ import annotations

import base64
import math
import string
import struct
from dataclasses import replace

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from sojourn.errors import CookieTooLargeError, SessionTooLargeError
from sojourn.manager.guarded_store import run_blocking
from sojourn.stores import Record
from sojourn_store_cookie import OVERHEAD_BYTES, TOKEN_LIMIT
from sojourn_store_cookie.store import token_length
from tests.packed import pack, unpack
from tests.steps import Counted

BASE64URL = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
LARGEST_PAYLOAD = TOKEN_LIMIT * 3 // 4 - OVERHEAD_BYTES
HEAD = struct.Struct(">B32sQdd")


def encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


deadlines = st.floats(allow_nan=False, allow_infinity=False)
records = st.builds(
    Record,
    id=st.binary(min_size=32, max_size=32).map(encoded),
    version=st.integers(0, 2**64 - 1),
    payload=st.binary(max_size=300) | st.binary(min_size=LARGEST_PAYLOAD, max_size=LARGEST_PAYLOAD),
    idle_deadline=deadlines,
    absolute_deadline=deadlines,
)
RECORD = Record(
    id=encoded(bytes(range(32))),
    version=7,
    payload=b"sealed",
    idle_deadline=1_800_000_000.125,
    absolute_deadline=1_800_086_400.1,
)


def float_bits(*values: float) -> bytes:
    return struct.pack(f">{len(values)}d", *values)


@given(record=records)
@example(record=RECORD)
def test_a_record_comes_back_exactly_as_it_was_packed(record: Record) -> None:
    unpacked = unpack(pack(record))
    assert unpacked == record
    assert unpacked is not None
    assert float_bits(unpacked.idle_deadline, unpacked.absolute_deadline) == float_bits(
        record.idle_deadline, record.absolute_deadline
    )


@given(record=records)
def test_a_token_is_made_of_cookie_octets_and_has_the_length_foretold(record: Record) -> None:
    token = pack(record)
    assert set(token) <= set(BASE64URL)
    assert len(token) == token_length(len(record.payload)) <= TOKEN_LIMIT


@given(record=records, label=st.text(), write_ids=st.lists(st.binary(min_size=8, max_size=8), max_size=4))
def test_index_label_and_write_ids_are_not_carried(record: Record, label: str, write_ids: list[bytes]) -> None:
    adorned = replace(record, index_label=label, write_ids=tuple(write_ids))
    assert pack(adorned) == pack(record)


@given(junk=st.text(max_size=200) | st.text(alphabet=BASE64URL, max_size=200))
@example(junk="")
@example(junk="\ud800" * 76)
@example(junk="é" * 76)
@example(junk="A" * 76)
def test_junk_is_no_record(junk: str) -> None:
    unpacked = unpack(junk)
    assert unpacked is None or pack(unpacked) == junk


@given(raw=st.binary(max_size=200), format_byte=st.sampled_from([0, 1, 2, 255]))
def test_every_token_that_unpacks_is_the_one_token_of_its_record(raw: bytes, format_byte: int) -> None:
    token = encoded(bytes([format_byte]) + raw)
    unpacked = unpack(token)
    if unpacked is None:
        numbers = HEAD.unpack_from(bytes([format_byte]) + raw)[3:] if len(raw) + 1 >= OVERHEAD_BYTES else ()
        assert format_byte != 1 or not numbers or not all(map(math.isfinite, numbers))
    else:
        assert format_byte == 1
        assert pack(unpacked) == token


@given(record=records, position=st.integers(0), character=st.sampled_from(BASE64URL + '=+/ ;,"\n%é\0'))
def test_a_changed_character_gives_another_record_or_none(record: Record, position: int, character: str) -> None:
    token = pack(record)
    position %= len(token)
    assume(token[position] != character)
    changed = unpack(token[:position] + character + token[position + 1 :])
    assert changed is None or (changed != record and character in BASE64URL)


@given(record=records, length=st.integers(0))
def test_a_token_cut_short_is_another_record_or_none(record: Record, length: int) -> None:
    token = pack(record)
    cut = unpack(token[: length % len(token)])
    assert cut is None or len(cut.payload) < len(record.payload)


@pytest.mark.parametrize("suffix", ["=", "==", "\n", " ", "A=", ";", "\x00"])
def test_nothing_may_follow_or_precede_a_token(suffix: str) -> None:
    token = pack(RECORD)
    assert unpack(token) == RECORD
    assert unpack(token + suffix) is None
    assert unpack(suffix + token) is None


def test_a_last_character_with_stray_bits_is_refused() -> None:
    token = pack(replace(RECORD, payload=b"1234"))
    assert len(token) % 4 == 2
    position = BASE64URL.index(token[-1])
    strays = [token[:-1] + BASE64URL[position | stray] for stray in range(1, 16)]
    assert [unpack(stray) for stray in strays] == [None] * 15


@pytest.mark.parametrize("format_byte", [0, 2, 3, 127, 128, 255])
def test_an_unknown_format_is_refused(format_byte: int) -> None:
    raw = base64.urlsafe_b64decode(pack(RECORD))
    assert raw[0] == 1
    assert unpack(encoded(bytes([format_byte]) + raw[1:])) is None


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_deadline_that_never_comes_is_refused_both_ways(number: float) -> None:
    for endless in (replace(RECORD, idle_deadline=number), replace(RECORD, absolute_deadline=number)):
        with pytest.raises(ValueError, match="finite"):
            pack(endless)
    assert unpack(encoded(HEAD.pack(1, bytes(32), 1, number, 2.0))) is None
    assert unpack(encoded(HEAD.pack(1, bytes(32), 1, 2.0, number))) is None
    assert unpack(encoded(HEAD.pack(1, bytes(32), 1, 2.0, 3.0))) is not None


@pytest.mark.parametrize("identity", ["", "short", RECORD.id + "A", RECORD.id[:-1], RECORD.id[:-1] + "9", "é" * 43])
def test_an_id_of_another_form_is_refused_without_being_shown(identity: str) -> None:
    with pytest.raises(ValueError, match="32 bytes") as caught:
        pack(replace(RECORD, id=identity))
    assert not identity or identity not in str(caught.value)


@pytest.mark.parametrize("version", [-1, 2**64])
def test_a_version_that_does_not_fit_is_refused(version: int) -> None:
    with pytest.raises(ValueError, match="versions"):
        pack(replace(RECORD, version=version))


def test_r20_a_record_that_no_cookie_holds_is_refused_at_the_byte() -> None:
    largest = replace(RECORD, payload=bytes(LARGEST_PAYLOAD))
    assert len(pack(largest)) == TOKEN_LIMIT
    assert unpack(pack(largest)) == largest
    with pytest.raises(CookieTooLargeError, match="4096") as caught:
        pack(replace(RECORD, payload=bytes(LARGEST_PAYLOAD + 1)))
    assert isinstance(caught.value, SessionTooLargeError)


def test_a_token_beyond_the_limit_is_refused_unread() -> None:
    raw = HEAD.pack(1, bytes(32), 1, 2.0, 3.0)
    assert unpack(encoded(raw + bytes(LARGEST_PAYLOAD))) is not None
    assert unpack(encoded(raw + bytes(LARGEST_PAYLOAD + 1))) is None


def test_the_head_costs_57_bytes_which_are_76_characters() -> None:
    assert OVERHEAD_BYTES == 57
    assert len(pack(replace(RECORD, payload=b""))) == 76
    assert len(pack(replace(RECORD, payload=bytes(300)))) == 76 + 400


def test_unpacking_takes_a_number_of_steps_linear_in_the_token_and_none_beyond_the_limit() -> None:
    counted = Counted("sojourn_store_cookie.store")

    def steps(length: int) -> int:
        return counted.of(run_blocking, counted.module.CookieStore().load("A" * length))

    assert steps(TOKEN_LIMIT) < 16 * 1.5 * steps(TOKEN_LIMIT // 16)
    assert steps(1_000_000) == steps(TOKEN_LIMIT + 1)


def test_r6_errors_name_neither_payload_nor_id() -> None:
    secret = b"credit-card-number"
    broken = [
        replace(RECORD, payload=secret * 400),
        replace(RECORD, payload=secret, version=-1),
        replace(RECORD, payload=secret, idle_deadline=math.nan),
    ]
    for record in broken:
        with pytest.raises((ValueError, CookieTooLargeError)) as caught:
            pack(record)
        assert secret.decode() not in str(caught.value)
        assert record.id not in str(caught.value)
