"""Keys and the ring: what each use derives, what is refused, and what never shows."""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import inspect
import json
import pickle
import pprint
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import example, given
from hypothesis import strategies as st

from sojourn.crypto import decode_bytes, encode_bytes, is_token, keys
from sojourn.crypto.ciphers import BUILTIN_CIPHERS, AesGcm, Box, CryptoError
from sojourn.crypto.keys import Key, KeyRing, new_secret, weakness
from sojourn.errors import ConfigurationError

SECRET = "p0sG5YTk7oZpRrMnN2fXy1bq8vWc3hKe9UiLjDtA4sQ"
OTHER = "Zk3u8Qe1xW6mR0yVt9Pc5bLh2nGd7sJfAoXiEwUqT4M"
THIRD = "f7Hq2Lw9Xe4Rt6Yu1Io8Pa3Sd5Fg0Hj-Kl_Zx7Cv2Bk"
PHRASE = "nineteen owls knit purple rivers"
SALT = b"of the north sea"
LABELS = st.text(max_size=12).map(lambda text: "".join(text.encode("ascii", "ignore").decode()))


@pytest.fixture
def stretched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes, bytes, int, int]]:
    """Record what is stretched, and stretch with one iteration."""
    calls: list[tuple[str, bytes, bytes, int, int]] = []

    def stretch(digest: str, phrase: bytes, salt: bytes, iterations: int, length: int) -> bytes:
        calls.append((digest, phrase, salt, iterations, length))
        return hashlib.pbkdf2_hmac(digest, phrase, salt, 1, length)

    monkeypatch.setattr("sojourn.crypto.keys.pbkdf2_hmac", stretch)
    return calls


class CountingCipher:
    name = "counting"
    suite = 200

    def __init__(self) -> None:
        self.keys: list[bytes] = []

    def box(self, key: bytes) -> Box:
        self.keys.append(key)
        return AesGcm().box(key)


# Deriving


@given(st.binary(min_size=32, max_size=64), LABELS, st.binary(max_size=20))
def test_r27_every_use_is_hkdf_sha_256_over_its_label_and_context(secret: bytes, label: str, context: bytes) -> None:
    info = b"sojourn" + len(label).to_bytes(2) + label.encode() + context
    expected = HKDF(hashes.SHA256(), 32, None, info).derive(secret)
    key = Key(secret)
    assert key.derive(label, context) == key.derive(label, context) == expected
    assert key.mac(label, context) == hmac.digest(key.derive(label), context, "sha256")


@given(st.tuples(LABELS, st.binary(max_size=6)), st.tuples(LABELS, st.binary(max_size=6)))
def test_r27_no_two_uses_share_a_key(one: tuple[str, bytes], other: tuple[str, bytes]) -> None:
    key = Key(bytes(32))
    assert (key.derive(*one) == key.derive(*other)) is (one == other)


def test_r27_label_and_context_do_not_run_together() -> None:
    key = Key(bytes(32))
    assert key.derive("seal", b"1") != key.derive("seal1")
    assert key.derive("", b"seal") != key.derive("seal")


def test_r26_the_key_id_is_eight_derived_bytes() -> None:
    key = Key(bytes(32))
    assert key.id == key.derive("key id")[:8]
    assert len(key.id) == 8
    assert key.id != Key(bytes(31) + b"\x01").id


def test_derived_keys_are_kept_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    def counting(*arguments: object) -> HKDF:
        made.append(arguments)
        return HKDF(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("sojourn.crypto.keys.HKDF", counting)
    key = Key(bytes(32))
    for _ in range(3):
        key.derive("seal/1", b"day")
    assert len(made) == 2  # the id, and this
    for day in range(1_000):
        key.derive("seal/1", day.to_bytes(8))
    key.derive("seal/1", b"day")
    assert len(made) == 2 + 1_000 + 1


# The ring


def test_r26_the_first_secret_seals_and_every_key_is_found_by_its_id_alone() -> None:
    ring = KeyRing([SECRET, OTHER], retired=[THIRD])
    assert [key.id for key in ring.keys] == [Key(decode_bytes(secret)).id for secret in (SECRET, OTHER, THIRD)]
    assert ring.primary is ring.keys[0]
    assert all(ring.get(key.id) is key for key in ring.keys)
    assert ring.get(bytes(8)) is None
    assert ring.get(b"") is None


def test_a_ring_has_no_attribute_to_change() -> None:
    ring = KeyRing([SECRET])
    for name in ("primary", "keys", "other"):
        with pytest.raises(AttributeError):
            setattr(ring, name, ())
    with pytest.raises(AttributeError):
        ring.primary.id = b""  # type: ignore[misc]


def test_r27_each_day_each_suite_and_each_key_has_its_own_subkey() -> None:
    ring = KeyRing([SECRET, OTHER])
    sealed = ring.box(BUILTIN_CIPHERS[0], ring.primary, 20_000).seal(b"data", b"")
    assert ring.box(BUILTIN_CIPHERS[0], ring.primary, 20_000).open(sealed, b"") == b"data"
    for cipher, key, day in (
        (BUILTIN_CIPHERS[0], ring.primary, 20_001),
        (BUILTIN_CIPHERS[0], ring.keys[1], 20_000),
        (BUILTIN_CIPHERS[1], ring.primary, 20_000),
    ):
        with pytest.raises(CryptoError):
            ring.box(cipher, key, day).open(sealed, b"")


@given(st.integers(-(2**63), 2**63 - 1))
def test_r27_the_subkey_is_derived_from_suite_and_day(day: int) -> None:
    ring, cipher = KeyRing([SECRET]), CountingCipher()
    ring.box(cipher, ring.primary, day)
    assert cipher.keys == [ring.primary.derive("seal/200", day.to_bytes(8, "big", signed=True))]


def test_r27_boxes_are_kept_within_a_bound() -> None:
    ring, cipher = KeyRing([SECRET]), CountingCipher()
    assert ring.box(cipher, ring.primary, 1) is ring.box(cipher, ring.primary, 1)
    for day in range(1_000):
        ring.box(cipher, ring.primary, day)
    assert len(cipher.keys) == 1_000
    ring.box(cipher, ring.primary, 1)
    assert len(cipher.keys) == 1_001


def test_r27_two_ciphers_of_one_number_do_not_share_boxes() -> None:
    ring, one, other = KeyRing([SECRET]), CountingCipher(), CountingCipher()
    ring.box(one, ring.primary, 1)
    ring.box(other, ring.primary, 1)
    assert len(one.keys) == len(other.keys) == 1


def test_boxes_are_shared_between_threads() -> None:
    ring = KeyRing([SECRET])

    def seal_and_open(turn: int) -> bool:
        box = ring.box(BUILTIN_CIPHERS[turn % 2], ring.primary, turn % 5)
        return box.open(box.seal(b"%d" % turn, b"header"), b"header") == b"%d" % turn

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(seal_and_open, range(2_000)))


@given(LABELS, st.text(max_size=30))
def test_r25_a_label_is_sixteen_bytes_of_a_keyed_hash(purpose: str, text: str) -> None:
    ring = KeyRing([SECRET, OTHER], retired=[THIRD])
    labels = ring.labels(purpose, text)
    assert labels[0] == ring.label(purpose, text)
    assert [decode_bytes(label) for label in labels] == [
        key.mac("label/" + purpose, text.encode("utf-8", "surrogatepass"))[:16] for key in ring.keys
    ]
    assert all(len(label) == 22 for label in labels)


def test_r25_labels_differ_by_purpose_text_and_key() -> None:
    ring = KeyRing([SECRET, OTHER])
    labels = {*ring.labels("index", "42"), *ring.labels("index", "43"), *ring.labels("event", "42")}
    assert len(labels) == 6
    assert ring.label("index", "\ud800") != ring.label("index", "\ud801")


def test_an_ephemeral_ring_has_one_random_key() -> None:
    one, other = KeyRing.ephemeral(), KeyRing.ephemeral()
    assert len(one.keys) == 1
    assert one.primary.id != other.primary.id


# Secrets


def test_r30_keygen_gives_43_characters_that_a_ring_takes() -> None:
    drawn = {new_secret() for _ in range(500)}
    assert len(drawn) == 500
    assert all(is_token(secret) for secret in drawn)
    assert len(KeyRing(sorted(drawn)).keys) == 500


def test_r28_random_keys_are_not_stretched(stretched: list[tuple[str, bytes, bytes, int, int]]) -> None:
    raw = bytes.fromhex("00ff13c7a94e0b6d5188f2e03a7bc49d" + "e1742f80b96a5dc30f1e88d7426b9ca5")
    ring = KeyRing([SECRET, raw, raw + b"\x01"], salt=SALT)
    assert [key.id for key in ring.keys] == [Key(key).id for key in (decode_bytes(SECRET), raw, raw + b"\x01")]
    assert stretched == []


def test_r28_a_passphrase_is_stretched_once_when_the_ring_is_built(
    stretched: list[tuple[str, bytes, bytes, int, int]],
) -> None:
    ring = KeyRing([PHRASE], salt=SALT)
    ring.box(BUILTIN_CIPHERS[0], ring.primary, 1).seal(b"data", b"")
    ring.label("index", "42")
    assert stretched == [("sha256", PHRASE.encode(), SALT, 600_000, 32)]


def test_r28_stretching_is_pbkdf2_hmac_sha_256() -> None:
    ring = KeyRing([PHRASE], salt=SALT)
    assert ring.primary.id == Key(hashlib.pbkdf2_hmac("sha256", PHRASE.encode(), SALT, 600_000, 32)).id


@pytest.mark.parametrize("salt", ["of the north sea", b"of the north sea"])
def test_r28_a_salt_is_text_or_bytes(salt: str | bytes, stretched: list[tuple[str, bytes, bytes, int, int]]) -> None:
    KeyRing([PHRASE], salt=salt, iterations=700_000)
    assert stretched == [("sha256", PHRASE.encode(), SALT, 700_000, 32)]


@pytest.mark.parametrize("iterations", [0, 1, 599_999])
def test_r28_fewer_iterations_are_refused(iterations: int) -> None:
    with pytest.raises(ConfigurationError, match=f"at least 600000 iterations, not {iterations}$"):
        KeyRing([PHRASE], salt=SALT, iterations=iterations)


@pytest.mark.parametrize("salt", [None, b"", "", b"seven b", "\u00e9\u00e9\u00e9"])
def test_r28_a_passphrase_without_a_real_salt_is_refused(salt: bytes | str | None) -> None:
    with pytest.raises(ConfigurationError, match=r"^secret 1 is a passphrase and needs SOJOURN_SALT, at least 8 bytes"):
        KeyRing([PHRASE], salt=salt)


def test_r28_eight_bytes_of_salt_suffice(stretched: list[tuple[str, bytes, bytes, int, int]]) -> None:
    KeyRing([PHRASE], salt=b"8 bytes.")
    assert len(stretched) == 1


def test_r30_bytes_that_are_text_count_as_that_text(stretched: list[tuple[str, bytes, bytes, int, int]]) -> None:
    assert KeyRing([SECRET.encode()]).primary.id == KeyRing([SECRET]).primary.id
    assert stretched == []
    as_bytes, as_text = KeyRing([PHRASE.encode()], salt=SALT), KeyRing([PHRASE], salt=SALT)
    assert as_bytes.primary.id == as_text.primary.id
    assert len(stretched) == 2


def test_r30_bytes_that_are_neither_text_nor_long_enough_for_a_key_are_a_passphrase(
    stretched: list[tuple[str, bytes, bytes, int, int]],
) -> None:
    phrase = b"\xff" + PHRASE.encode()[:30]
    KeyRing([phrase], salt=SALT)
    assert stretched == [("sha256", phrase, SALT, 600_000, 32)]


def test_a_passphrase_of_any_characters_is_taken(stretched: list[tuple[str, bytes, bytes, int, int]]) -> None:
    KeyRing(["\udcff sechsundzwanzig \u00fcble B\u00e4rte"], salt=SALT)
    assert stretched[0][1].startswith(b"\xed\xb3\xbf sechs")


WEAK = [
    ("x", "has fewer than 20 characters"),
    ("secret", "has fewer than 20 characters"),
    ("changeme", "has fewer than 20 characters"),
    ("nineteen characters", "has fewer than 20 characters"),
    (b"nineteen raw byte\xff.", "has fewer than 20 characters"),
    ("a" * 43, "has fewer than 8 different characters"),
    ("A" * 43, "has fewer than 8 different characters"),
    ("ababababcdcdcdcdefefef", "has fewer than 8 different characters"),
    (bytes(32), "has fewer than 8 different characters"),
    (b"\xfe\x01" * 32, "has fewer than 8 different characters"),
    ("changeme-changeme-changeme", "repeats itself"),
    ("0123456789abcdef0123456789abcdef", "repeats itself"),
    (SECRET + SECRET, "repeats itself"),
    (bytes(range(100, 116)) * 2, "repeats itself"),
    ("abcdefghijklmnopqrstuvwxyz", "is counted, not drawn"),
    ("zyxwvutsrqponmlkjihgfedcba", "is counted, not drawn"),
    (bytes(range(32)), "is counted, not drawn"),
    ("0123456789abcdefghijklmnopqrstuvwxyz", "is a well-known value"),
    ("correct horse battery staple", "is a well-known value"),
    ("Please change this secret key!", "is a well-known value"),
    ("django-insecure-secret-key", "was made by `django-admin startproject`, which marks it as insecure"),
    ("a very long secret random string 123", "is a well-known value"),
    ("your_secret_key_goes_here_1234", "is a well-known value"),
    ("SUPER-SECRET-PASSWORD-FOR-PRODUCTION", "is a well-known value"),
]


@pytest.mark.parametrize(("secret", "reason"), WEAK)
def test_r30_a_guessable_secret_is_refused_and_not_shown(secret: str | bytes, reason: str) -> None:
    for secrets, name in (([secret], "secret 1"), ([SECRET, secret], "secret 2")):
        with pytest.raises(ConfigurationError) as caught:
            KeyRing(secrets, salt=SALT)
        assert str(caught.value) == (
            f"{name} {reason}: run `sojourn keygen`, or "
            '`python -c "import secrets; print(secrets.token_urlsafe(32))"`, and put the 43 characters into SOJOURN_SECRET'
        )
        assert caught.value.__cause__ is caught.value.__context__ is None


INSECURE = "was made by `django-admin startproject`, which marks it as insecure"
SPELT = "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7"


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        ("your-256-bit-secret-your-256-bit", "is a well-known value"),
        ("django-insecure-" + hashlib.sha256(b"drawn").hexdigest(), INSECURE),
        ("Django-Insecure-" + hashlib.sha256(b"drawn").hexdigest(), INSECURE),
        (bytes.fromhex(SPELT), "is a well-known value"),
        (bytes.fromhex(SPELT + SPELT[:20]), "is a well-known value"),
        (encode_bytes(bytes.fromhex(SPELT)), "is a well-known value"),
        (base64.b64encode(bytes.fromhex(SPELT)).decode(), "is a well-known value"),
        (encode_bytes(bytes(range(32))), "is counted, not drawn"),
        (bytes(range(32)).hex(), "is counted, not drawn"),
        (encode_bytes(bytes(range(100, 116)) * 2), "repeats itself"),
        ("hunter2-hunter2_Hunter2!", "repeats itself"),
    ],
)
def test_r47_what_everybody_can_read_is_refused_as_a_key_and_as_a_passphrase(secret: str | bytes, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^secret 1 {re.escape(reason)}: run") as caught:
        KeyRing([secret], salt=SALT)
    assert str(secret) not in str(caught.value)


@example("5791628bb0b13ce0c676dfde280ba245", str, 1, "")
@given(
    st.sampled_from(keys._PUBLISHED),
    st.sampled_from([str, str.upper, str.lower, str.title, str.swapcase]),
    st.integers(1, 3),
    st.sampled_from(["", "-", " ", "_", '"', "."]),
)
def test_r47_a_published_key_is_refused_in_any_case_repeated_and_with_other_punctuation(
    value: str, case: Callable[[str], str], times: int, mark: str
) -> None:
    letters = case(mark.join(value.replace("-", mark)) if len(value) < 40 else value)
    repeated = f"{mark}{mark.join([letters] * times)}{mark}"
    assert weakness(repeated) is not None
    assert weakness(repeated + repeated[: len(repeated) // 2]) is not None


def test_r30_retired_secrets_are_held_to_the_same() -> None:
    with pytest.raises(
        ConfigurationError, match="^retired secret 2 has fewer than 20 characters: run `sojourn keygen`"
    ):
        KeyRing([SECRET], retired=[OTHER, "changeme"])


@given(st.binary(min_size=32, max_size=32), st.integers(20, 40))
def test_r30_what_is_drawn_is_not_called_guessable(seed: bytes, length: int) -> None:
    digest = hashlib.sha512(seed).digest()
    assert weakness(digest[:32]) is None
    assert weakness(hashlib.sha512(digest).hexdigest()[:length]) is None


@pytest.mark.parametrize("secret", [secret for secret, _ in WEAK])
def test_r30_development_and_testing_take_weak_secrets_without_salt(
    secret: str | bytes, stretched: list[tuple[str, bytes, bytes, int, int]]
) -> None:
    assert KeyRing([secret], allow_weak=True, iterations=1).primary.id == KeyRing([secret], allow_weak=True).primary.id
    assert all(salt == b"sojourn without a salt" for _, _, salt, _, _ in stretched)


def test_r30_a_strong_secret_gives_the_same_key_when_weak_ones_are_allowed(
    stretched: list[tuple[str, bytes, bytes, int, int]],
) -> None:
    relaxed, strict = KeyRing([SECRET, PHRASE], salt=SALT, allow_weak=True), KeyRing([SECRET, PHRASE], salt=SALT)
    assert [key.id for key in relaxed.keys] == [key.id for key in strict.keys]


@pytest.mark.parametrize("empty", ["", b""])
def test_r30_an_empty_secret_is_never_taken(empty: str | bytes) -> None:
    for allow_weak in (False, True):
        with pytest.raises(ConfigurationError, match="^secret 1 is empty: run `sojourn keygen`"):
            KeyRing([empty], allow_weak=allow_weak)


def test_r30_there_is_no_default_secret() -> None:
    for allow_weak in (False, True):
        with pytest.raises(ConfigurationError, match="^there is no secret: run `sojourn keygen`"):
            KeyRing([], retired=[OTHER], allow_weak=allow_weak)


def test_one_string_is_not_taken_for_a_list_of_letters() -> None:
    for build in (
        lambda: KeyRing(SECRET),
        lambda: KeyRing(SECRET.encode()),  # type: ignore[arg-type]
        lambda: KeyRing([SECRET], retired=OTHER),
    ):
        with pytest.raises(ConfigurationError, match="are lists, not one string"):
            build()


@pytest.mark.parametrize(
    ("secrets", "retired", "name"),
    [
        ([SECRET, SECRET], [], "secret 2"),
        ([SECRET, OTHER], [OTHER], "retired secret 1"),
        ([SECRET, SECRET.encode()], [], "secret 2"),
        ([SECRET], [decode_bytes(SECRET)], "retired secret 1"),
    ],
)
def test_a_secret_named_twice_is_refused(secrets: list[str], retired: list[str], name: str) -> None:
    for allow_weak in (False, True):
        with pytest.raises(ConfigurationError, match=f"^{name} is in the ring already; name every secret once$"):
            KeyRing(secrets, retired=retired, allow_weak=allow_weak)


# What never shows


def spellings(secret: bytes) -> list[str]:
    return [secret.hex(), repr(secret)[2:-1], repr(list(secret))[1:-1]]


def attributes(value: object) -> list[object]:
    names = [name for name in dir(value) if not name.startswith("__")]
    return [attribute for name in names if not inspect.ismethod(attribute := getattr(value, name))]


@pytest.mark.parametrize("show", [repr, str, ascii, pprint.pformat, format, attributes], ids=lambda show: show.__name__)
def test_r6_no_key_is_printed(show: Callable[[object], object]) -> None:
    ring = KeyRing([SECRET, OTHER])
    ring.box(BUILTIN_CIPHERS[1], ring.primary, 1)
    shown = repr([show(ring), show(ring.primary), show([ring]), show({"key": ring.primary})])
    assert ring.primary.id.hex() in shown or show is attributes
    for secret in (decode_bytes(SECRET), decode_bytes(OTHER), ring.primary.derive("seal/2", (1).to_bytes(8))):
        assert not any(spelling in shown for spelling in spellings(secret))
    assert SECRET not in shown


def test_r6_a_key_shows_its_id_alone() -> None:
    ring = KeyRing([SECRET, OTHER])
    ids = [key.id.hex() for key in ring.keys]
    assert repr(ring.primary) == f"<Key {ids[0]}>"
    assert repr(ring) == f"<KeyRing {ids[0]} {ids[1]}>"


@pytest.mark.parametrize(
    "duplicate",
    [pickle.dumps, copy.copy, copy.deepcopy, *(lambda value, n=n: pickle.dumps(value, n) for n in range(6))],
)
def test_r6_keys_and_rings_are_neither_pickled_nor_copied(duplicate: Callable[[object], object]) -> None:
    ring = KeyRing([SECRET])
    for value in (ring, ring.primary):
        with pytest.raises(TypeError, match=r"^(Key|KeyRing) holds key material and is never copied or pickled; build"):
            duplicate(value)


def test_r6_keys_and_rings_have_no_table_of_attributes() -> None:
    ring = KeyRing([SECRET])
    for value in (ring, ring.primary):
        with pytest.raises(TypeError):
            vars(value)
        with pytest.raises(TypeError):
            json.dumps(value)
        assert not hasattr(value, "__dict__")
