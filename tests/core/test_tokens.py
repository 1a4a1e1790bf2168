"""Tokens, their ids, and the one spelling of bytes as text."""

from __future__ import annotations

import string
from base64 import urlsafe_b64encode
from contextlib import suppress
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.crypto import TOKEN_LENGTH, decode_bytes, encode_bytes, is_token, new_token, token_id

ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
TOKENS = st.binary(min_size=32, max_size=32).map(encode_bytes)


@given(st.binary(max_size=200))
def test_bytes_survive_the_way_to_text_and_back(raw: bytes) -> None:
    text = encode_bytes(raw)
    assert decode_bytes(text) == raw
    assert text == urlsafe_b64encode(raw).decode().rstrip("=")


@given(st.text(alphabet=st.one_of(st.sampled_from(ALPHABET), st.characters()), max_size=60))
def test_whatever_decodes_is_the_one_spelling_of_its_bytes(text: str) -> None:
    with suppress(ValueError):
        assert encode_bytes(decode_bytes(text)) == text


@pytest.mark.parametrize("text", ["A", "AB", "QQ==", "QR", "Q Q", "QQ\n", "a+b/", "caf\u00e9", "\ud800", "AAAAA"])
def test_another_spelling_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="^not canonical base64url without padding$"):
        decode_bytes(text)


def test_nothing_is_spelt_as_nothing() -> None:
    assert encode_bytes(b"") == ""
    assert decode_bytes("") == b""


def test_r1_a_token_is_256_bits_of_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def draw(count: int) -> bytes:
        asked.append(count)
        return bytes(range(count))

    monkeypatch.setattr("secrets.token_bytes", draw)
    assert new_token() == encode_bytes(bytes(range(32)))
    assert asked == [32]


def test_r1_tokens_are_well_formed_and_differ() -> None:
    tokens = {new_token() for _ in range(2_000)}
    assert len(tokens) == 2_000
    assert all(is_token(token) and len(token) == TOKEN_LENGTH == 43 for token in tokens)


@given(TOKENS)
def test_r4_every_256_bits_have_a_token(token: str) -> None:
    assert is_token(token)


@given(st.one_of(st.text(max_size=60), st.text(ALPHABET, min_size=42, max_size=44)))
def test_r4_a_token_is_what_decodes_to_32_bytes_and_nothing_raises(value: str) -> None:
    try:
        expected = len(decode_bytes(value)) == 32
    except ValueError:
        expected = False
    assert is_token(value) is expected


@given(TOKENS, st.sampled_from(ALPHABET))
def test_r4_no_two_tokens_mean_the_same_bits(token: str, last: str) -> None:
    other = token[:-1] + last
    assert is_token(other) is (ALPHABET.index(last) % 4 == 0)


@given(TOKENS, st.integers(0, 43), st.characters())
def test_r4_a_token_with_one_more_character_is_none(token: str, place: int, extra: str) -> None:
    assert not is_token(token[:place] + extra + token[place:])


@pytest.mark.parametrize(
    "value",
    [
        "",
        "A" * 42,
        "A" * 44,
        "A" * 43 + "\n",
        "\n" + "A" * 43,
        "A" * 42 + "\n",
        "A" * 42 + "=",
        "A" * 42 + "+",
        "A" * 42 + "/",
        "A" * 42 + "B",
        "A" * 42 + "\uff10",
        "\uff21" * 43,
        "\u0660" * 43,
        "\ud800" * 43,
        "A" * 10_000_000,
    ],
    ids=lambda value: f"{value[:3]!a}-{len(value)}",
)
def test_r4_a_malformed_token_is_none(value: str) -> None:
    assert not is_token(value)


@given(TOKENS)
def test_r2_the_id_is_the_sha_256_of_the_token(token: str) -> None:
    assert token_id(token) == encode_bytes(sha256(token.encode("ascii")).digest())


@given(TOKENS, TOKENS)
def test_r2_ids_are_no_tokens_of_their_sessions_and_differ(one: str, other: str) -> None:
    assert token_id(one) != one
    assert (token_id(one) == token_id(other)) is (one == other)
    assert token_id(token_id(one)) != token_id(one)
