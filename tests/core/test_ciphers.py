"""The two suites: what they seal opens, and nothing else does."""

from __future__ import annotations

import copy
import hmac
import pickle

import pytest
from cryptography.hazmat.primitives import ciphers, hashes
from cryptography.hazmat.primitives.ciphers import algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from sojourn.crypto.ciphers import BUILTIN_CIPHERS, AesCbcHmac, AesGcm, Box, Cipher, CryptoError

KEY = bytes(range(100, 132))
SUITES = st.sampled_from(BUILTIN_CIPHERS)
KEYS = st.binary(min_size=32, max_size=32)
OVERHEAD = {1: range(28, 29), 2: range(49, 65)}

each_suite = pytest.mark.parametrize("cipher", BUILTIN_CIPHERS, ids=lambda cipher: cipher.name)


def cbc_keys(key: bytes) -> tuple[bytes, bytes]:
    both = HKDF(hashes.SHA256(), 64, None, b"sojourn aes-256-cbc-hmac-sha256").derive(key)
    return both[:32], both[32:]


def refuse(box: Box, sealed: bytes, associated: bytes) -> None:
    with pytest.raises(CryptoError) as caught:
        box.open(sealed, associated)
    assert type(caught.value) is CryptoError
    assert str(caught.value) == "the sealed bytes do not open"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@given(SUITES, KEYS, st.binary(max_size=300), st.binary(max_size=100))
def test_r24_what_is_sealed_opens_unchanged(cipher: Cipher, key: bytes, plaintext: bytes, associated: bytes) -> None:
    sealed = cipher.box(key).seal(plaintext, associated)
    assert cipher.box(key).open(sealed, associated) == plaintext
    assert len(sealed) - len(plaintext) in OVERHEAD[cipher.suite]


@given(SUITES, st.binary(max_size=80), st.binary(max_size=20), st.data())
def test_r24_any_flipped_bit_is_refused_with_the_one_error(
    cipher: Cipher, plaintext: bytes, associated: bytes, data: st.DataObject
) -> None:
    box = cipher.box(KEY)
    sealed = bytearray(box.seal(plaintext, associated))
    place = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[place // 8] ^= 1 << place % 8
    refuse(box, bytes(sealed), associated)


@each_suite
def test_r24_every_shortened_or_lengthened_text_is_refused(cipher: Cipher) -> None:
    box = cipher.box(KEY)
    sealed = box.seal(b"sixteen bytes and some more", b"header")
    for length in range(len(sealed)):
        refuse(box, sealed[:length], b"header")
        refuse(box, sealed[length + 1 :], b"header")
    for more in range(1, 33):
        refuse(box, sealed + bytes(more), b"header")
        refuse(box, bytes(more) + sealed, b"header")


@given(SUITES, st.binary(max_size=200))
def test_r24_invented_bytes_are_refused(cipher: Cipher, sealed: bytes) -> None:
    refuse(cipher.box(KEY), sealed, b"")


@given(SUITES, KEYS, KEYS)
def test_r24_another_key_does_not_open(cipher: Cipher, one: bytes, other: bytes) -> None:
    sealed = cipher.box(one).seal(b"data", b"")
    if one != other:
        refuse(cipher.box(other), sealed, b"")


@given(st.binary(max_size=200))
def test_r24_no_suite_opens_what_the_other_sealed(plaintext: bytes) -> None:
    gcm, cbc = (cipher.box(KEY) for cipher in BUILTIN_CIPHERS)
    refuse(cbc, gcm.seal(plaintext, b""), b"")
    refuse(gcm, cbc.seal(plaintext, b""), b"")


@given(SUITES, st.binary(max_size=20), st.binary(max_size=20))
def test_r25_other_associated_data_is_refused(cipher: Cipher, one: bytes, other: bytes) -> None:
    box = cipher.box(KEY)
    sealed = box.seal(b"data", one)
    if one != other:
        refuse(box, sealed, other)


@each_suite
def test_r25_bytes_do_not_move_between_associated_data_and_text(cipher: Cipher) -> None:
    box = cipher.box(KEY)
    sealed = box.seal(bytes(48), b"abc")
    for count in range(1, 33):
        refuse(box, sealed[count:], b"abc" + sealed[:count])
    refuse(box, b"c" + sealed, b"ab")
    refuse(box, b"abc" + sealed, b"")


def test_r25_the_tag_holds_the_length_of_the_associated_data() -> None:
    # Without the length, a block could wander from the sealed text into the associated data under the same tag.
    box = AesCbcHmac().box(KEY)
    sealed = box.seal(bytes(64), b"")
    refuse(box, sealed[16:], sealed[:16])


@each_suite
def test_r27_the_same_text_is_never_sealed_alike(cipher: Cipher) -> None:
    box = cipher.box(KEY)
    assert len({box.seal(b"data", b"") for _ in range(500)}) == 500


def test_r27_the_gcm_nonce_is_96_fresh_bits_in_front(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def draw(count: int) -> bytes:
        asked.append(count)
        return bytes([len(asked)]) * count

    monkeypatch.setattr("sojourn.crypto.ciphers.token_bytes", draw)
    box = AesGcm().box(KEY)
    for turn in (1, 2):
        assert box.seal(b"data", b"header") == bytes([turn]) * 12 + AESGCM(KEY).encrypt(
            bytes([turn]) * 12, b"data", b"header"
        )
    assert asked == [12, 12]


@pytest.mark.slow
def test_r27_a_million_seals_repeat_no_nonce() -> None:
    box = AesGcm().box(KEY)
    assert len({box.seal(b"", b"")[:12] for _ in range(1_000_000)}) == 1_000_000


def test_r24_cbc_is_encrypted_then_authenticated_under_separate_keys() -> None:
    encryption, authentication = cbc_keys(KEY)
    sealed = AesCbcHmac().box(KEY).seal(b"fifteen bytes..", b"header")
    iv, ciphertext, tag = sealed[:16], sealed[16:-32], sealed[-32:]
    assert tag == hmac.digest(authentication, (6).to_bytes(8) + b"header" + iv + ciphertext, "sha256")
    decryptor = ciphers.Cipher(algorithms.AES(encryption), modes.CBC(iv)).decryptor()
    assert decryptor.update(ciphertext) + decryptor.finalize() == b"fifteen bytes..\x01"


@pytest.mark.parametrize("last", [b"\x00", b"\x11", b"\x02"])
def test_r24_wrong_padding_under_a_right_tag_is_the_same_error(last: bytes) -> None:
    encryption, authentication = cbc_keys(KEY)
    encryptor = ciphers.Cipher(algorithms.AES(encryption), modes.CBC(bytes(16))).encryptor()
    body = bytes(16) + encryptor.update(b"fifteen bytes.." + last) + encryptor.finalize()
    tag = hmac.digest(authentication, bytes(8) + body, "sha256")
    refuse(AesCbcHmac().box(KEY), body + tag, b"")


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 31, 33, 47])
def test_r24_a_wrong_length_under_a_right_tag_is_the_same_error(length: int) -> None:
    _, authentication = cbc_keys(KEY)
    body = bytes(length)
    refuse(AesCbcHmac().box(KEY), body + hmac.digest(authentication, bytes(8) + body, "sha256"), b"")


def test_r24_nothing_is_decrypted_before_the_tag_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    box = AesCbcHmac().box(KEY)
    sealed = box.seal(b"data", b"")

    class TouchedError(Exception):
        pass

    def decrypt(*arguments: object) -> None:
        raise TouchedError

    monkeypatch.setattr("sojourn.crypto.ciphers.ciphers.Cipher", decrypt)
    refuse(box, sealed[:-1] + bytes([sealed[-1] ^ 1]), b"")
    with pytest.raises(TouchedError):
        box.open(sealed, b"")


def test_r7_the_tag_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    box = AesCbcHmac().box(KEY)
    sealed = box.seal(b"data", b"")
    monkeypatch.setattr("sojourn.crypto.ciphers.hmac.compare_digest", compare)
    assert box.open(sealed, b"") == b"data"
    assert compared == [(sealed[-32:], sealed[-32:])]


@each_suite
@pytest.mark.parametrize("length", [0, 16, 24, 31, 33, 64])
def test_a_key_of_another_length_is_refused_without_being_shown(cipher: Cipher, length: int) -> None:
    with pytest.raises(ValueError, match=f"^a suite takes a key of 32 bytes, not of {length};"):
        cipher.box(bytes(length))


@each_suite
def test_r6_a_box_neither_prints_nor_pickles_its_key(cipher: Cipher) -> None:
    box = cipher.box(KEY)
    assert repr(box) in {"<_GcmBox>", "<_CbcBox>"}
    assert isinstance(box, Box)
    for duplicate in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="Box holds key material and is never copied or pickled; build it anew"):
            duplicate(box)
    with pytest.raises(TypeError):
        vars(box)


def test_the_built_in_suites_have_the_names_and_numbers_of_the_envelope() -> None:
    assert {cipher.suite: cipher.name for cipher in BUILTIN_CIPHERS} == {
        1: "aes-256-gcm",
        2: "aes-256-cbc-hmac-sha256",
    }
    assert all(isinstance(cipher, Cipher) for cipher in BUILTIN_CIPHERS)
    assert hash(BUILTIN_CIPHERS) == hash(BUILTIN_CIPHERS)
