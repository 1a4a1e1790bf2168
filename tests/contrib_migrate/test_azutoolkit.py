"""The formats of azutoolkit/session, made here independently from their description and read by the package."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import os
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import example, given
from hypothesis import strategies as st

from sojourn.errors import ConfigurationError
from sojourn.testing import FakeClock
from sojourn_contrib_migrate import AzutoolkitCookie, AzutoolkitRedis, AzutoolkitToken
from sojourn_contrib_migrate.azutoolkit import decode_base64, gunzip, parse_session
from sojourn_contrib_migrate.signing import MOST_BYTES, RefusedError
from tests.contrib_migrate.kept import NOW, Kept, read, run

SECRET = "a secret of more than thirty-two bytes"
SESSION_ID = "0b7f6a2e-9d5c-4f3e-8a41-2f1d3c5b7a90"
OPENER = AzutoolkitToken(SECRET)


@lru_cache
def key_of(secret: str, kdf: bool) -> bytes:
    if kdf:
        return hashlib.pbkdf2_hmac("sha256", secret.encode(), b"session_kdf_salt", 100_000, 32)
    return secret.encode()[:32]


def encrypt(plain: bytes, key: bytes, iv: bytes) -> bytes:
    padding = 16 - len(plain) % 16
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return encryptor.update(plain + bytes([padding]) * padding) + encryptor.finalize() + iv


def digest_of(data: str, secret: str = SECRET, name: str = "sha256") -> str:
    return base64.urlsafe_b64encode(hmac.new(secret.encode(), data.encode(), name).digest()).decode()


def sign(raw: bytes, secret: str = SECRET, name: str = "sha256") -> tuple[str, str]:
    data = base64.urlsafe_b64encode(raw).decode()
    return data, digest_of(data, secret, name)


def wrap(data: str, digest: str) -> str:
    return base64.urlsafe_b64encode(f'["{data}","{digest}"]'.encode()).decode()


def token_of(
    plain: bytes, secret: str = SECRET, *, kdf: bool = False, name: str = "sha256", iv: bytes | None = None
) -> str:
    return wrap(*sign(encrypt(plain, key_of(secret, kdf), iv or os.urandom(16)), secret, name))


def session_json(**fields: Any) -> bytes:
    moments = {"created_at": "2027-01-15T07:00:00+00:00", "expires_at": "2027-01-15T09:00:00+00:00"}
    known = {"session_id": SESSION_ID, **moments, "user_id": 7, "name": "Ädä", **fields}
    return json.dumps(known, separators=(",", ":"), ensure_ascii=False).encode()


def is_refused(token: str, opener: AzutoolkitToken = OPENER) -> bool:
    with pytest.raises(RefusedError) as refusal:
        opener.open(token)
    return str(refusal.value) == ""


# -- tokens ------------------------------------------------------------------------------------------------------------


# What begins as gzip does is taken for that, whatever it is: no session does, which is an object of JSON.
_PLAIN = st.binary(max_size=300).filter(lambda plain: not plain.startswith(b"\x1f\x8b"))


@given(plain=_PLAIN, iv=st.binary(min_size=16, max_size=16), secret=st.text("aä-", min_size=32))
@example(plain=b"", iv=bytes(16), secret="a" * 32)
def test_every_token_opens(plain: bytes, iv: bytes, secret: str) -> None:
    assert AzutoolkitToken(secret).open(token_of(plain, secret, iv=iv)) == plain


@pytest.mark.parametrize(("plain", "token"), [(7, 128), (205, 468), (399, 812)])
def test_tokens_are_as_long_as_those_of_the_library(plain: int, token: int) -> None:
    assert len(token_of(b"x" * plain)) == token


def test_the_signature_goes_by_the_whole_secret_and_the_key_by_its_first_32_bytes() -> None:
    token = token_of(b"hello", SECRET)
    assert AzutoolkitToken(SECRET).open(token) == b"hello"
    assert is_refused(token, AzutoolkitToken(SECRET[:32]))
    assert is_refused(token, AzutoolkitToken(SECRET[:-1] + "!"))


@pytest.mark.parametrize("secret", ["", "short", "ä" * 15 + "a"])
def test_a_secret_of_less_than_32_bytes_works_with_derivation_alone(secret: str) -> None:
    with pytest.raises(ConfigurationError, match="32 bytes"):
        AzutoolkitToken(secret)
    if secret:
        assert AzutoolkitToken(secret, kdf=True).open(token_of(b"hello", secret, kdf=True)) == b"hello"


def test_a_derived_key_and_the_secret_itself_do_not_stand_for_each_other() -> None:
    assert is_refused(token_of(b"hello", kdf=True))
    assert is_refused(token_of(b"hello"), AzutoolkitToken(SECRET, kdf=True))


@pytest.mark.parametrize("name", ["sha256", "sha1", "sha512"])
@pytest.mark.parametrize("digest", ["sha256", "sha1", "sha512"])
@pytest.mark.parametrize("fallback", [True, False])
def test_the_digest_counts_and_sha1_beside_it_until_that_is_off(name: Any, digest: Any, fallback: bool) -> None:
    opener = AzutoolkitToken(SECRET, digest=digest, fallback=fallback)
    token = token_of(b"hello", name=name)
    if name == digest or (fallback and name == "sha1"):
        assert opener.open(token) == b"hello"
    else:
        assert is_refused(token, opener)


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token.rstrip("="),
        lambda token: token.replace("-", "+").replace("_", "/"),
        lambda token: token + "\r\n",
        lambda token: "\n" + token,
        lambda token: "\r\n".join(token[at : at + 60] for at in range(0, len(token), 60)),
        lambda token: token.rstrip("=") + "=\n=\n",
    ],
    ids=["unpadded", "standard alphabet", "line end", "leading line end", "lines", "padding between lines"],
)
def test_base64_is_read_leniently(change: Any) -> None:
    for plain in (b"hello", b"hello there", b"\xfb\xef\xbe" * 9):
        assert OPENER.open(change(token_of(plain))) == plain


@pytest.mark.parametrize("text", [b"AAAAA", b"AA\nAA", b"A\nAAA", b"AA=AA", b"AA A", b"AAA\xc3\xa4"])
def test_base64_that_crystal_refuses_is_refused(text: bytes) -> None:
    with pytest.raises(RefusedError):
        decode_base64(text)


@given(st.binary(max_size=60))
def test_base64_in_both_alphabets_is_the_same(raw: bytes) -> None:
    assert decode_base64(base64.urlsafe_b64encode(raw)) == decode_base64(base64.b64encode(raw).rstrip(b"=")) == raw


@pytest.mark.parametrize(
    ("form", "opens"),
    [
        ('["{data}","{digest}"]', True),
        (' [ "{data}" ,\n"{digest}" ]\t', True),
        ('["{data}","{digest}"]x', False),
        ('["{data}","{digest}","more"]', False),
        ('["{data}"]', False),
        ('["{data}",null]', False),
        ('{{"{data}":"{digest}"}}', False),
        ('["","{digest}"]', False),
        ('["{data}",""]', False),
        ("", False),
        ("[" * 5000, False),
    ],
    ids=["compact", "spaces", "garbage", "three", "one", "null", "object", "no data", "no digest", "empty", "deep"],
)
def test_the_envelope_is_a_json_array_of_two_texts(form: str, opens: bool) -> None:
    data, digest = sign(encrypt(b"hello", key_of(SECRET, kdf=False), bytes(16)))
    token = base64.urlsafe_b64encode(form.format(data=data, digest=digest).encode()).decode()
    assert OPENER.open(token) == b"hello" if opens else is_refused(token)


def test_the_former_form_is_split_at_the_first_two_hyphens() -> None:
    data, digest = sign(encrypt(b"hello", key_of(SECRET, kdf=False), bytes(16)))
    assert OPENER.open(f"{data}--{digest}") == b"hello"
    assert is_refused(f"{data}-{digest}")
    doubled = next(  # data of the url alphabet may hold two hyphens itself, and is then cut there
        (data, digest)
        for at in range(1 << 16)
        for data, digest in [sign(encrypt(b"hello", key_of(SECRET, kdf=False), at.to_bytes(16)))]
        if "--" in data
    )
    assert is_refused("--".join(doubled))
    assert OPENER.open(wrap(*doubled)) == b"hello"
    assert is_refused(f"{data}--{digest}--")
    assert is_refused(f"--{digest}")
    assert is_refused(f"{data}--")


def test_the_digest_is_compared_as_text() -> None:
    data, digest = sign(encrypt(b"hello", key_of(SECRET, kdf=False), bytes(16)))
    assert is_refused(wrap(data, digest.rstrip("=")))
    assert is_refused(wrap(data, digest + "="))
    assert is_refused(wrap(data, base64.b64encode(base64.urlsafe_b64decode(digest)).decode() + "\n"))


def test_the_signature_is_over_the_text_and_not_over_the_bytes() -> None:
    raw = encrypt(b"hello", key_of(SECRET, kdf=False), bytes(16))
    data = base64.urlsafe_b64encode(raw).decode()
    over_bytes = base64.urlsafe_b64encode(hmac.new(SECRET.encode(), raw, "sha256").digest()).decode()
    assert is_refused(wrap(data, over_bytes))
    unpadded = data.rstrip("=")  # other text of the same bytes, signed as it stands
    assert OPENER.open(wrap(unpadded, digest_of(unpadded))) == b"hello"


@pytest.mark.parametrize(
    "raw",
    [b"", bytes(15), bytes(16), bytes(31), bytes(33), bytes(32), bytes(48)],
    ids=["empty", "15", "an IV alone", "31", "33", "padding 1", "padding 2"],
)
def test_what_is_signed_and_cannot_be_decrypted_is_refused(raw: bytes) -> None:
    assert is_refused(wrap(*sign(raw)))


@given(at=st.integers(0, 10_000), by=st.integers(1, 255), cut=st.booleans())
def test_r24_a_token_that_was_changed_or_cut_is_refused_or_means_the_same(at: int, by: int, cut: bool) -> None:
    token = token_of(session_json(), iv=bytes(16))
    at %= len(token)
    changed = token[:at] if cut else token[:at] + chr(ord(token[at]) ^ by % 128) + token[at + 1 :]
    with suppress(RefusedError):
        assert OPENER.open(changed) == session_json()


# -- compression ---------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=2000))
def test_gzip_is_recognised_whatever_was_configured(plain: bytes) -> None:
    packed = gzip.compress(plain, mtime=1_796_000_000)
    assert OPENER.open(token_of(packed)) == plain
    assert gunzip(packed + gzip.compress(b"more")) == plain + b"more"


@given(plain=st.binary(min_size=1, max_size=500), cut=st.integers(1, 400))
def test_truncated_gzip_is_refused(plain: bytes, cut: int) -> None:
    packed = gzip.compress(plain)
    kept = packed[: max(2, len(packed) - cut)]
    with pytest.raises(RefusedError):
        gunzip(kept)


def test_r29_what_inflates_to_more_than_a_mebibyte_is_refused() -> None:
    assert len(gunzip(gzip.compress(bytes(MOST_BYTES)))) == MOST_BYTES
    for bomb in (gzip.compress(bytes(MOST_BYTES + 1)), gzip.compress(bytes(MOST_BYTES)) + gzip.compress(b"x")):
        with pytest.raises(RefusedError):
            gunzip(bomb)


# -- the session's JSON ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22T17:17:48+00:00", datetime(2026, 11, 22, 17, 17, 48, tzinfo=UTC)),
        ("2026-11-22T12:19:47-05:00", datetime(2026, 11, 22, 12, 19, 47, tzinfo=timezone(-timedelta(hours=5)))),
        ("2026-11-22T17:17:48Z", datetime(2026, 11, 22, 17, 17, 48, tzinfo=UTC)),
        ("2026-11-22T17:17:48.250Z", datetime(2026, 11, 22, 17, 17, 48, 250_000, tzinfo=UTC)),
        ("2026-11-22T17:17:48.123456789+00:00", datetime(2026, 11, 22, 17, 17, 48, 123_456, tzinfo=UTC)),
        (None, None),
    ],
)
def test_moments_are_rfc_3339(text: str | None, moment: datetime | None) -> None:
    _, _, ends = parse_session(session_json(expires_at=text))
    assert ends == (None if moment is None else moment.timestamp())


@pytest.mark.parametrize(
    "fields",
    [
        {"session_id": 7},
        {"expires_at": "tomorrow"},
        {"expires_at": 1_800_000_000},
        {"expires_at": "2026-11-22 17:17"},
        {"expires_at": "2026-11-22T17:17:48"},
        {"expires_at": "2026-13-22T17:17:48Z"},
        {"created_at": "never"},
        {"created_at": []},
    ],
    ids=str,
)
def test_a_session_with_a_bad_type_or_time_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(RefusedError):
        parse_session(session_json(**fields))


@pytest.mark.parametrize("text", [b"", b"[]", b"7", b"{", b"\xff", b'{"a":1}x'])
def test_what_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(RefusedError):
        parse_session(text)


def test_what_is_missing_takes_its_default() -> None:
    data, first, ends = parse_session(b'{"user_id":7,"unknown":[1]}')
    assert (data, ends) == ({"user_id": 7, "unknown": [1]}, None)
    assert first != parse_session(b'{"user_id":7,"session_id":null}')[1]


# -- the readers ---------------------------------------------------------------------------------------------------------------


def test_the_cookie_is_read_and_told_by_the_id_that_all_its_cookies_share() -> None:
    reader = AzutoolkitCookie(OPENER, clock=FakeClock())
    assert reader.cookie_name == "_session._data_"
    first, second = (read(reader, token_of(session_json(page=page))) for page in (1, 2))
    assert first is not None
    assert second is not None
    assert (first.data["name"], first.identity, first.expires_at) == ("Ädä", SESSION_ID.encode(), NOW + 3600)
    assert first.identity == second.identity
    without = [read(reader, token_of(b'{"user_id":7}')) for _ in range(2)]
    assert len({session.identity for session in without if session is not None}) == 2


def test_a_cookie_past_its_end_is_refused() -> None:
    clock = FakeClock()
    reader, token = AzutoolkitCookie(OPENER, clock=clock), token_of(session_json())
    clock.advance(3599)
    assert read(reader, token) is not None
    clock.advance(1)
    assert read(reader, token) is None


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("expects", [False, True])
def test_a_record_is_read_as_it_was_written_and_not_the_other_way_round(
    compress: bool, encrypted: bool, expects: bool
) -> None:
    kept, plain = Kept(), session_json()
    packed = gzip.compress(plain) if compress else plain
    kept.values[f"session:{SESSION_ID}"] = (token_of(packed).encode() if encrypted else packed, 1_800_000)
    reader = AzutoolkitRedis(kept, token=OPENER if expects else None, clock=FakeClock())
    session = read(reader, SESSION_ID)
    if encrypted is not expects:
        assert session is None
    else:
        assert session is not None
        assert (session.data["user_id"], session.expires_at) == (7, NOW + 1800)


def test_a_record_is_deleted_if_that_is_asked_for() -> None:
    kept = Kept()
    kept.values[f"session:{SESSION_ID}"] = (session_json(), -1)
    for ends in (False, True):
        reader = AzutoolkitRedis(kept, end=ends, clock=FakeClock())
        session = read(reader, SESSION_ID)
        assert session is not None
        run(reader.end(session))
        assert (kept.values == {}) is ends
