"""Comparisons take the same time for every guess, and small input stays small (SECURITY R7, R27, R29, R37)."""

from __future__ import annotations

import ast
import hmac
import json
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sojourn
import sojourn_contrib_aiohttp
import sojourn_contrib_azu_like
import sojourn_contrib_django
import sojourn_contrib_fastapi
import sojourn_contrib_flask
import sojourn_contrib_litestar
import sojourn_contrib_migrate
import sojourn_metrics_opentelemetry
import sojourn_metrics_statsd
import sojourn_store_cookie
import sojourn_store_redis
import sojourn_store_sql
from sojourn.binding import Client
from sojourn.codec import COMPRESSED, Codec, CorruptEnvelopeError
from sojourn.crypto import decode_bytes, encode_bytes, token_id
from sojourn.crypto.ciphers import BUILTIN_CIPHERS
from sojourn.crypto.keys import KeyRing
from sojourn.stores import Record
from tests.security.houses import House, begin, outcome

PACKAGES = (
    sojourn,
    sojourn_contrib_aiohttp,
    sojourn_contrib_azu_like,
    sojourn_contrib_django,
    sojourn_contrib_fastapi,
    sojourn_contrib_flask,
    sojourn_contrib_litestar,
    sojourn_contrib_migrate,
    sojourn_metrics_opentelemetry,
    sojourn_metrics_statsd,
    sojourn_store_cookie,
    sojourn_store_redis,
    sojourn_store_sql,
)
SOURCES = sorted(path for package in PACKAGES for path in Path(str(package.__file__)).parent.rglob("*.py"))
MEGABYTE = 1 << 20
SECRET_NAMES = {"csrf", "fingerprint", "tag", "mac", "secret", "password", "mask", "opened", "signature", "digest"}


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, bytes]]:
    """Keep what is compared in constant time."""
    calls: list[tuple[bytes, bytes]] = []
    genuine: Callable[[Any, Any], bool] = hmac.compare_digest

    def watched(left: Any, right: Any) -> bool:
        calls.append((left, right))
        return genuine(left, right)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    return calls


def test_r7_csrf_tokens_are_compared_in_constant_time(server_house: House, compared: list[tuple[bytes, bytes]]) -> None:
    session = server_house.node().blocking.open(None)
    token = session.csrf_token()
    wrong = encode_bytes(bytes(64))
    assert session.verify_csrf(token)
    assert not session.verify_csrf(wrong)
    assert [len(pair[0]) for pair in compared] == [32, 32]


def test_r7_fingerprints_are_compared_in_constant_time_under_every_key(
    server_house: House, compared: list[tuple[bytes, bytes]]
) -> None:
    from sojourn import new_secret

    node = server_house.node(secrets=[server_house.secret, new_secret(), new_secret()], binding="reject").blocking
    session = node.open(None, Client("192.0.2.1", "x"))
    session.login("42")
    token = node.commit(session).token
    for client, outcome_ in ((Client("192.0.2.1", "x"), "loaded"), (Client("192.0.2.2", "x"), "binding")):
        compared.clear()
        assert node.open(token, client).outcome.value == outcome_
        assert len(compared) == 3, "no early end tells which key matched"


def test_r7_tags_are_compared_in_constant_time(house: House, compared: list[tuple[bytes, bytes]]) -> None:
    node = house.node(cipher="aes-256-cbc-hmac-sha256").blocking
    token = begin(node)
    compared.clear()
    assert outcome(node, token) == "loaded"
    assert [len(pair[0]) for pair in compared] == [32]


@pytest.mark.slow
def test_r7_no_secret_is_compared_with_an_operator() -> None:
    """Look at every comparison in the packages: none names a secret, but for being absent."""
    guilty: list[str] = []
    for path in SOURCES:
        if "testing" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Compare) or not any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
                continue
            names = {
                part.id if isinstance(part, ast.Name) else part.attr
                for part in (node.left, *node.comparators)
                if isinstance(part, ast.Name | ast.Attribute)
            }
            if names & SECRET_NAMES:
                guilty.append(f"{path.name}:{node.lineno}")
    assert guilty == []


@pytest.fixture
def peak() -> Iterator[Callable[[], int]]:
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize("cipher", BUILTIN_CIPHERS, ids=lambda cipher: str(cipher.name))
def test_r29_a_bomb_under_a_good_seal_takes_no_more_memory_than_the_limit(cipher: Any, peak: Callable[[], int]) -> None:
    ring = KeyRing.ephemeral()
    codec = Codec(ring, cipher, openers=BUILTIN_CIPHERS, purpose="x", compress_over=None, max_payload=MEGABYTE)
    bound = Record("id", 1, b"", 1e9, 1e9)
    deflate = zlib.compressobj(9, wbits=31)
    bomb = b"".join(deflate.compress(bytes(MEGABYTE)) for _ in range(300)) + deflate.flush()
    envelope = codec.seal(bomb, bound, 0.0, COMPRESSED)
    assert len(envelope) < MEGABYTE / 2
    tracemalloc.reset_peak()
    with pytest.raises(CorruptEnvelopeError):
        codec.open(envelope, bound, 0.0)
    assert peak() < 6 * MEGABYTE


WEIGH_A_BOMB = """
import json, os, sys, zlib
from sojourn.codec import COMPRESSED, Codec, CorruptEnvelopeError
from sojourn.crypto.ciphers import BUILTIN_CIPHERS
from sojourn.crypto.keys import KeyRing
from sojourn.stores import Record

MEGABYTE = 1 << 20
ring, bound = KeyRing.ephemeral(), Record("id", 1, b"", 1e9, 1e9)
deflate = zlib.compressobj(9, wbits=31)
bomb = b"".join(deflate.compress(bytes(MEGABYTE)) for _ in range(300)) + deflate.flush()
harmless = zlib.compress(bytes(1000), wbits=31)

def weigh(work):
    # in a fork, whose greatest size in memory begins with what there is now
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(work())
        finally:
            os._exit(99)
    _, status, usage = os.wait4(pid, 0)
    return [os.waitstatus_to_exitcode(status), usage.ru_maxrss / 1024]

def opening(codec, envelope):
    def work():
        try:
            codec.open(envelope, bound, 0.0)
        except CorruptEnvelopeError:
            return 1
        return 0
    return work

found = {"no limit": weigh(lambda: len(zlib.decompress(bomb, wbits=31)) == 0)}
for cipher in BUILTIN_CIPHERS:
    codec = Codec(ring, cipher, openers=BUILTIN_CIPHERS, purpose="x", compress_over=None, max_payload=MEGABYTE)
    for name, content in (("harmless", harmless), ("bomb", bomb)):
        found[f"{name} {cipher.name}"] = weigh(opening(codec, codec.seal(content, bound, 0.0, COMPRESSED)))
print(json.dumps(found))
"""


@pytest.mark.slow
def test_r29_a_bomb_makes_the_process_no_larger_than_a_harmless_session_does() -> None:
    """Ask the operating system, which sees what the libraries take, too; it does see a bomb that goes off."""
    done = subprocess.run([sys.executable, "-c", WEIGH_A_BOMB], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, tuple[int, float]] = json.loads(done.stdout)
    usual = found["harmless aes-256-gcm"][1]
    assert found["no limit"][1] - usual > 250, "in megabytes"
    for cipher in BUILTIN_CIPHERS:
        (kept, harmless), (refused, bomb) = found[f"harmless {cipher.name}"], found[f"bomb {cipher.name}"]
        assert (kept, refused) == (0, 1)
        assert bomb - harmless < 8


def test_r29_what_has_exactly_the_limit_is_kept_and_one_byte_more_is_refused_when_sealed() -> None:
    from sojourn.errors import SessionTooLargeError

    codec = Codec(
        KeyRing.ephemeral(), BUILTIN_CIPHERS[0], openers=BUILTIN_CIPHERS, purpose="x", compress_over=1, max_payload=5000
    )
    bound = Record("id", 1, b"", 1e9, 1e9)
    for size in (4999, 5000):
        for plain in (bytes(size), bytes(range(250)) * (size // 250) + bytes(size % 250)):
            assert codec.open(codec.seal(plain, bound, 0.0), bound, 0.0)[0] == plain
    with pytest.raises(SessionTooLargeError):
        codec.seal(bytes(5001), bound, 0.0)


def test_r29_a_huge_cookie_header_costs_little_memory_and_no_look_up(house: House, peak: Callable[[], int]) -> None:
    from sojourn.cookies import CookiePolicy
    from sojourn.manager.client_side import ClientSide
    from sojourn.manager.committing import ServerSide

    keeping = ClientSide() if house.is_client_side else ServerSide()
    policy = CookiePolicy(name="session")
    header = "; ".join(f"session={number:0>4000}" for number in range(500))
    tracemalloc.reset_peak()
    assert keeping.find_tokens(policy, header) == ()
    assert peak() < 12 * MEGABYTE
    node = house.node().blocking
    assert outcome(node, "A" * 5_000_000) == "none"


def test_r29_cookies_are_not_compressed_by_default(cookie_house: House) -> None:
    node = cookie_house.node().blocking
    short, long = (len(decode_bytes(begin(node, note="a" * size))) for size in (10, 1510))
    assert long - short >= 1500, "the length of a cookie must not tell how its content repeats"


def test_r27_nonces_never_repeat_and_days_have_their_own_keys(server_house: House) -> None:
    node = server_house.node().blocking
    token = begin(node)
    raw, seen = b"", set()
    for number in range(50):
        session = node.open(token)
        session.data.count = number + 1
        node.commit(session)
        raw = server_house.raw(token_id(token))
        seen.add(raw[15:27])
    assert len(seen) == 50
    day = int.from_bytes(raw[3:7], "big")
    assert day == int(server_house.clock.time() // 86_400)


@pytest.mark.slow
def test_r37_no_source_can_execute_what_is_stored() -> None:
    """Look at every import and call: no pickle and its kin, no eval, no exec, no yaml."""
    forbidden = {"pickle", "cPickle", "dill", "marshal", "shelve", "yaml", "jsonpickle", "cloudpickle", "joblib"}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not {alias.name.partition(".")[0] for alias in node.names} & forbidden, path
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] not in forbidden, path
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "compile", "__import__"}, path


@pytest.mark.slow
def test_r24_only_the_libraries_compute_cryptography() -> None:
    allowed = {"cryptography", "hmac", "hashlib", "secrets"}
    users = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            roots = {name.partition(".")[0] for name in names}
            assert not roots & {"Crypto", "nacl", "itsdangerous", "jwt", "fernet", "ssl"} or "redis" in str(path), path
            users |= roots & allowed
    assert users == allowed
