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

from sojourn import ForeignSession
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
def key_of(secret: str, kdf: bool, salt: str = "session_kdf_salt", iterations: int = 100_000) -> bytes:
    if kdf:
        return hashlib.pbkdf2_hmac("sha256", secret.encode(), salt.encode(), iterations, 32)
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
    # Both are signed with the secret: the padding alone tells the wrong key, and one initialization vector in 256 hides it.
    iv = bytes(16)
    assert is_refused(token_of(b"hello", kdf=True, iv=iv))
    assert is_refused(token_of(b"hello", iv=iv), AzutoolkitToken(SECRET, kdf=True))


def test_a_key_is_derived_by_the_salt_and_the_iterations_of_the_application() -> None:
    key, iv = key_of("short", kdf=True, salt="sälzig", iterations=210_000), bytes(16)
    token = wrap(*sign(encrypt(b"hello", key, iv), "short"))
    opener = AzutoolkitToken("short", kdf=True, kdf_salt="sälzig", kdf_iterations=210_000)
    assert opener.open(token) == b"hello"
    assert is_refused(token, AzutoolkitToken("short", kdf=True, kdf_salt="sälzig"))
    assert is_refused(token, AzutoolkitToken("short", kdf=True, kdf_iterations=210_000))
    with pytest.raises(ConfigurationError, match="0 iterations"):
        AzutoolkitToken("short", kdf=True, kdf_iterations=0)


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


# -- what the library itself made ----------------------------------------------------------------------------------------------


# Made by the code of azutoolkit/session 1.0.31, commit c3331caa, compiled by Crystal 1.6.0 in New York's time on 2026-11-30:
# `set_cookies` of its `CookieStore` after a log-in, and what its `RedisStore` hands to SETEX, with a timeout of 90 days.
# Neither it nor a compiler can be installed for these tests. "gzip" is `compress_data`, "encrypted" `encrypt_redis_data`.
_COOKIES: dict[str, tuple[AzutoolkitToken, str, str]] = {
    "plain": (
        AzutoolkitToken(SECRET),
        "ac48eed0-e112-4c95-a40a-b7dff26ee6aa",
        (
            "WyJuaFg3anlRX0taUmhpZEx2ZU5PV3NvakdsM09Da0gxcGREY1N2MGdBSmdTcVlnODZ0QmdKMHJEeFd6SGhJVU05SHhWRUNwV2JPWHR5cndPZF"
            "NhRW1hdGFldzZfVTAybU9UbWh1bUViTThTS2pIUFFlcVR6WEZJcE5NM1RTcHc1cjJldUF6U1lfdGFiNEkxOWVKT3VYQV9BU1JaTFNWcTNoODVD"
            "aW1ON2xvUlFUYVFCXzIzVzBma3RQc1VPSkVyeC1Mc2Q1VEpqVHlibXVjNXdTSFZEMUVIdGlNMnd4UURYUGVNdHR2MWNxSThOU28wTEFkZ2I0bm"
            "ZpQUpNODZmRDM2dXRmaExYbVA4NXE0d3RLbmMtbUVfdz09IiwiWnN2RFVWNGtUeFEyOGlQTVIxdFd5aEszNWU5VnVDSDVUdFJGWXZNY3lwQT0i"
            "XQ=="
        ),
    ),
    "sha1": (
        AzutoolkitToken(SECRET, digest="sha1", fallback=False),
        "54605855-f5e6-4d4f-a8b6-585f3c544beb",
        (
            "WyJBRzQxSnVQd0M5MTZaSlhadmstdnNVbDc0clpONjFNamZFVWppcEk2MGE5WmxhMXp6LUVfZXgyNDlCOG1mRzhHd0pZb0Nsd0ZmQkJNVmpMSG"
            "JnaE5aSEczdE1iQS10OUtUQU9xbkYwZHpqQUQxTjFxWlpIbTF2ckVpT0tFanBjdzh3emFLNERaM2dyaDJnLU5xUk1yYW02bThCeHpvbFladXJh"
            "MXpUSjBBWDZZZFU4bzZMVTg3cnJQNnNiTEZCVlUtMFpaM3FfSmlaVGh5ZmEwS05aTi1nWUlCRUhwMUlxMXJoN1VXVEQtYWpnUnZ2NGhPUlBsZ3"
            "RXalhLZDY4WWJBRE9pNktjTlZ1Z1VISTllQnFxTmNzZz09Iiwic1BHaXVWU0Y4MFRJQ2sxSjBrVlF0REV6Q0hRPSJd"
        ),
    ),
    "sha512": (
        AzutoolkitToken(SECRET, digest="sha512"),
        "45094068-65d5-482d-a923-d3aea498a722",
        (
            "WyJFZDVTRENvanc5bklsQ0VVMTBDOWwzd20yM2pJY3JDaHVja3RtVVlVVnlUa0RtXzFNSlU5emFsWUJzcTExOFFiaVJ4SElOX0ZxaGlmOFc5Y2"
            "E3Nm1pVkRZU2stUzd6MjRNaG1iTXFQclNDYk9rMDZoRGJQbWhta0pDWXM4WWxWaGU5aHAxSUtwbjNFT2o5Ukd3aURLeXpVWjdWTkEyYUQwNDNL"
            "SFdrVTBRaDlObk5HUFlhV212V0Q1R29TUEhNTHp5X2NjWGI3NVlzeU1KQWk5UE1ydnAxNU1EaGtOMF9WalRQWDBBMG9kRm5icUx3TTNVclE2eH"
            "FhSi1qbV9wSnpZNFNFUVE0LVVteFpWMjduT19sSmp4Zz09IiwiQ2NsNmRHN19Nd2toeEkyZjdfSnYxSHhUTUhWRzdmMWIxV0hlTkZ5NUJJdG5n"
            "NE1LcGJCOFd0YlB3TTlmUnQ1OXduZWFibURhNjRpazB0U0wwOEV4amc9PSJd"
        ),
    ),
    "kdf": (
        AzutoolkitToken("short", kdf=True),
        "4473130d-ca52-467d-b538-c8353ea135b9",
        (
            "WyI3c2FsVW9qSXc5bTI5NHJmdl90UVFmNzFMWnU3OWxLRVV3amFjY1ZFV0lHQUd5UERMZ1FFWUhrTjEyamZvRnQyeVZqeDBEMGp4VFJDejAzdm"
            "ZGd1JVeGdSUnp0SXRtWHN1bEN6bDJiNmVtS25raDVOd0dlcDdNTW1aUVRCSjE1Rnh6ZFpvRjdFMG4wSUFYR19ycmtnQ3paQW5BVlphTmt4WHVF"
            "YWRXMFo4RTZtVGdQcGx3eWFDZ1VSc2tsMzVxUF9ZRzdXVmxEX2VsaTQ3SnUzVVpDZ3pPd2w4M3JZTF9pSUoxTnYxNXhOcWdnS1FjVXRmY084RX"
            "NvbmMxRk5aTmRHWndGUnpSVlVHUFpGZlRJR0dhVXV2dz09IiwiaHFiTUVTd08zVnkzVFBNU1FVcy1Yd1dBSHlRa2RCeEVtNXcyS3ZZdzBzcz0i"
            "XQ=="
        ),
    ),
    "gzip": (
        AzutoolkitToken(SECRET),
        "9785dda0-ab1c-4a77-ae03-0ce3933564cc",
        (
            "WyJuVUxIV1FNZnRHSTBQSXVNSjdxX0FLU3JTRlhxZUlheFJsNVowX3lSbzJjSDZ2elV0RGhwZXNjTEV4WTJRNFJya3hMOHN2Y3pPZk9lWDUwZW"
            "hpRjFuSFdwN3dpUjkxU1RyUnZNcGVNZzlkb1doaGtVTmdVNDhzdEN0Y2tIalI4Mkh6SnRLR2MwTzhXaEJENkg3Qms1V1prYjl5ZjRwQzF1Qjkt"
            "T054ZE11V29KZHpUZS1UQ3pHbldJdW5Bb2ZSTWlIQXRCSHNIdWJieEY0VXFZd2RTSFN0MHcxcjJvSHRRSmpHeGdpeF91UXRDMnBVMnEzT2Vadj"
            "JTRlhqb2xtOE5rIiwiVW1jdjZlN0hRbmRwaFFrUHEwZ3VaVUlGemVQZlVybjhTdEhyVnZ2WjAzdz0iXQ=="
        ),
    ),
    "kdf-sha512-gzip": (
        AzutoolkitToken("short", kdf=True, digest="sha512"),
        "fd37772d-5721-42d4-9443-bf5ebe367bc1",
        (
            "WyJJNWxCclFxdU80bTJhdTJXNGZfSkluRmVVQWtHMlE4dVljV1ZKcGszQjVycmtvSXU3ejB6ekhXYWMyelFQeXE3X3RkNnBMMTR3SHhPZExmcz"
            "BEZEU0UFRuNFRGbUQwakN4ZmZ3YkVyMHFTdmhERjYtWkllc2JSMXdKOE9uYWNzMmVycF9zMlU0RGYwN0FkVXFBbHVPVTRkQmFiREtkSENjd3JE"
            "VzNNN2l4LTZKNWNTRDVMdzVVaEk3aWRqam52TDQ4dHdLTG5RQ3VtcTRSb1pMVHlIRGFPb00tZFlFdnJjWUNXZ1RiRGlscTZUQmYyZENfZVl5T2"
            "VUVmdZbE1WTHh6IiwiQXlVNmxFbkxZamZzMzhYSnJ4a2t3RWxOWU9FRGRXUFVaU1VmbHZWUzF0bGRUY18zRnBEYmJSWkhLWWdkS21vSmJ3UTJM"
            "aUxYeU82enRDRC1NZDBaQmc9PSJd"
        ),
    ),
}
_RECORDS: dict[str, tuple[AzutoolkitToken | None, str, bytes]] = {
    "plain": (
        None,
        "f2d33475-af6e-4456-ab25-1d9ab7d8dc12",
        (
            '{"session_id":"f2d33475-af6e-4456-ab25-1d9ab7d8dc12","created_at":"2026-11-30T18:47:34-05:00","expir'
            'es_at":"2027-02-28T18:47:34-05:00","authenticated":true,"user_id":7,"name":"Ädä"}'
        ).encode(),
    ),
    "gzip": (
        None,
        "2ea4cb68-4413-4d66-a27a-0fcbfadd7580",
        base64.b64decode(
            "H4sIABYLDmsA/+2OMQ7CMBAE/3J1TrIdx7b8DvroYl/ABSGKHQkJ0fEUfpKPEVPQ0PAAtltpdrQ3yJxzukx9iuBBMekwGIdayxZ1NAZJWU"
            "IxhmGkGG3nBDQQFqbCsadSN0IZlBJbcZDOa+tbjaLzooJ8ndPC+QNaFAqV+wZpLSeeSgrVC74sKzewZl7ev2wDE515d2yPuD13fqZjrfM/"
            "PwfuL4DWZEHtAQAA"
        ),
    ),
    "encrypted": (
        AzutoolkitToken(SECRET),
        "7d127765-1d0a-40e2-9f59-dd79c927e3a9",
        (
            b"WyJyMVVzMllKSUtaTjlNdGR0ZlMtak55V2l5R2J3RXBBNVBMbHZaVzJqallCX1BEdE1LekkzUkl2ZmhPcW1FeHBBYkh6YWhXZklv"
            b"eWtfWXVSN3FwZWFVby1lSWw1dUMza1JZOXVPWW41VEstZkZfRFl6eFRhMV9aSDR5NzV0dEZDRkFQVEtsQTMwVkM5UHhvakxWcTdQ"
            b"N2dLNTh2NGZlcW9ydktUMWlLdnlkSHViaUttRy1NbjdlSk12V1FaSTF1NHRrcmtVYXNyTGpicTgydkRYdUhfbWJ1S1Y1TWRJRk9Q"
            b"bVN0MTZvRmRBRy1pSUxZMmthVzIxdDhaUjlPb2dJYi1KdTE2QXk0eXJpN2tjQlpFVGdZNDdQQT09IiwiT3RmTThsS1VxYXlpYWtS"
            b"MlJjZE9IWXZFQmtjZWxkYkU2SlNyS3BnNG9yST0iXQ=="
        ),
    ),
    "encrypted-gzip": (
        AzutoolkitToken(SECRET),
        "00131885-ce81-48d8-8af2-d5d50274535c",
        (
            b"WyJGMzkxZ1FjWDU3S3drYUVtY0p2OG1PNGJfeFc4VnBtdnNyWlR1YjBaMVRya0NBYnR5SERoZFJRZUx3eWMzZVJXNjFuOHVCcXcy"
            b"aDlWT2FnWGZxdjc5RjhMSlkxcjV5WjJhYVZvZlZsMGgyRTg5V2M2a2FUVzRkQmdvd3dZWW1INWxlTmlIWlVydnVELWRiNVRHa0Q3"
            b"aUZfUzlUUi1NUWhFNEphTWxVOW9BYjR0Wk1uaXZkRlRHeG1BUmtUYTRTQmZBQTQ2WWZtUnhYUllmRzFOb3VRRndmS24xZ3RSbnlC"
            b"TnB4d1NOZWxVWHRBdldGaGVrTU5YdDFVbDNXY19aU1dPIiwiaEJKVEliOHNWYXE2Q2prRG4yV2FBSF9KcnN4OWFjUy1rQ01lclJG"
            b"NDA2QT0iXQ=="
        ),
    ),
    "encrypted-kdf-sha512-gzip": (
        AzutoolkitToken("short", kdf=True, digest="sha512"),
        "497b6350-e78d-47b7-99d6-070192d406ed",
        (
            b"WyJ3czVsYXdpV1B5N2dGaDR0M3VMSGpUR0lWME5Qc21TNmVxTkd1aGVnZkRwRElROXlyNXFuMmkzQmVCdUV0anNJUTdLaXhublhf"
            b"bzhxcG5VSzJSOHBCR2xxMmRtOGJRbmNVWVdnYmN5UWxkRUR6RG5xVkdKNDFyVEV6bTZjTzlOdEFTUElIeE9tQ1FTTWcwbUw3V3pf"
            b"RGJxTVBSb2FHenh0OTdmUTlhOXFjY09sczlYUkZBQ0h1Nm9na3lqNnpZNzZUUHZDcUhwWWNESm54MWZ4eFl3Vl9KYXdVVnhSZTBm"
            b"QVo4R0NXWGczRC1IRjFlWkNielRHczRJXy1NTHFvd19uIiwiTF9XTFdQYkhmNHF1R3dFLUlneVdEMlVMemF1eFppWnpsVmRtMEE5"
            b"Snp6Q3NhTlBKalN2ZlNPbGpLUnR3bkFJRnZHRnJtR3ZBbGpweEpudFAyQzgydFE9PSJd"
        ),
    ),
}


def is_the_user(session: ForeignSession | None, session_id: str) -> bool:
    assert session is not None
    known = {name: session.data[name] for name in ("session_id", "authenticated", "user_id", "name")}
    assert session.data["created_at"].endswith("-05:00")
    return known == {"session_id": session_id, "authenticated": True, "user_id": 7, "name": "Ädä"}


@pytest.mark.parametrize("variant", _COOKIES)
def test_a_cookie_that_the_library_made_keeps_its_user_until_its_end(variant: str) -> None:
    opener, session_id, value = _COOKIES[variant]
    clock = FakeClock()
    reader = AzutoolkitCookie(opener, clock=clock)
    session = read(reader, value)
    assert is_the_user(session, session_id)
    assert session is not None
    assert session.identity == session_id.encode()
    assert session.expires_at is not None
    clock.advance(session.expires_at - NOW)
    assert read(reader, value) is None


@pytest.mark.parametrize("variant", _COOKIES)
def test_r24_a_cookie_that_the_library_made_is_refused_under_another_secret(variant: str) -> None:
    value = _COOKIES[variant][2]
    for other in (AzutoolkitToken(SECRET + "!"), AzutoolkitToken("other", kdf=True, digest="sha512")):
        assert is_refused(value, other)


@pytest.mark.parametrize("variant", _RECORDS)
def test_a_record_that_the_library_made_keeps_its_user_and_is_ended(variant: str) -> None:
    opener, session_id, value = _RECORDS[variant]
    kept = Kept()
    kept.values[f"session:{session_id}"] = (value, 1_800_000)
    reader = AzutoolkitRedis(kept, token=opener, end=True, clock=FakeClock())
    session = read(reader, session_id)
    assert is_the_user(session, session_id)
    assert session is not None
    run(reader.end(session))
    assert read(reader, session_id) is None
