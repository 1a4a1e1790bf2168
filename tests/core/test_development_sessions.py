"""The sessions in memory of the development preset, which a reload of the code does not end (SECURITY R56)."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sojourn import LoadOutcome, SessionManager, new_secret
from sojourn.crypto.keys import KeyRing
from sojourn.manager import run_blocking
from sojourn.settings import SessionSettings
from sojourn.settings.development import DevelopmentStore, development_store
from sojourn.stores import SYSTEM_CLOCK, Clock, Record, Store
from sojourn.testing import FakeClock
from tests.core.models import Visit

FILE = Path(".sojourn/sessions-sojourn")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def start(**values: Any) -> SessionManager[Visit]:
    """Return the manager of a process that has just begun."""
    return SessionManager.from_settings(Visit, SessionSettings(_env_file=None, **{"preset": "development", **values}))


def log_in(sessions: SessionManager[Visit], note: str = "") -> str:
    session = sessions.blocking.open(None)
    session.login("42")
    session.data.note = note
    token = sessions.blocking.commit(session).token
    assert token is not None
    return token


def outcome(sessions: SessionManager[Visit], token: str) -> LoadOutcome:
    return sessions.blocking.open(token).outcome


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the log says of sessions."""
    return [text for text in caplog.messages if "sessions" in text]


def add(store: Store, id_: str, clock: Clock, seconds: float = 60) -> None:
    at = clock.time()
    run_blocking(store.create(Record(id_, 1, b"x", at + seconds, at + 3600), write_id=b"w" * 8))


def keep_one(note: str = "", **values: Any) -> str:
    """Run a process that logs somebody in, and end it."""
    sessions = start(**values)
    token = log_in(sessions, note)
    sessions.blocking.close()
    return token


def test_r56_a_login_outlives_a_reload() -> None:
    token = keep_one("mine")
    for _ in range(2):
        sessions = start()
        session = sessions.blocking.open(token)
        assert (session.principal, session.data.note) == ("42", "mine")
        assert [info.id for info in sessions.blocking.list("42")] == [session.id]
        sessions.blocking.close()


def begin(sessions: SessionManager[Visit]) -> None:
    session = sessions.blocking.open(None)
    session.data.note = "a visitor"
    sessions.blocking.commit(session)


def test_f14_after_a_reload_anonymous_sessions_make_room_before_logins_as_well() -> None:
    sessions = start(memory_max_sessions=2)
    begin(sessions)
    sessions.blocking.close()
    sessions = start(memory_max_sessions=2)
    token = log_in(sessions)
    for _ in range(3):
        begin(sessions)
        assert outcome(sessions, token) is LoadOutcome.LOADED
    sessions.blocking.close()


def test_r56_a_manager_that_is_closed_and_used_again_has_its_sessions() -> None:
    sessions = start()
    token = log_in(sessions)
    for _ in range(2):
        sessions.blocking.close()
        assert outcome(sessions, token) is LoadOutcome.LOADED
    sessions.blocking.revoke_all("42")
    sessions.blocking.close()
    assert not FILE.exists()
    assert outcome(start(), token) is LoadOutcome.UNKNOWN


def test_r56_the_process_of_a_reloader_takes_nothing_from_the_one_that_serves() -> None:
    unused = start()
    token = keep_one()
    assert outcome(start(), token) is LoadOutcome.LOADED
    unused.blocking.close()


@pytest.mark.slow
def test_r56_a_process_keeps_its_sessions_at_its_end_and_what_ended_before_a_crash_stays_ended() -> None:
    script = """
import os, sys
from tests.core.test_development_sessions import log_in, outcome, start

def live(work, end):
    child = os.fork()
    if child:
        return os.waitpid(child, 0)
    sessions = start()
    work(sessions)
    end(3)

def say(sessions):
    print(outcome(sessions, open("token").read()).value, flush=True)

live(lambda sessions: open("token", "w").write(log_in(sessions)), sys.exit)
live(say, sys.exit)
live(lambda sessions: (say(sessions), sessions.blocking.revoke_all("42")), os._exit)
live(say, sys.exit)
"""
    root = Path(__file__).parents[2]
    found = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout.split() == ["loaded", "loaded", "unknown"], found.stderr


@pytest.mark.parametrize("preset", ["testing", "production", "high_security"])
def test_r56_no_other_preset_keeps_sessions_or_reads_what_was_kept(preset: str) -> None:
    secret = new_secret()
    token = keep_one(secret=secret)
    before = FILE.read_bytes()
    other = start(preset=preset, secret=secret)
    assert outcome(other, token) is LoadOutcome.UNKNOWN
    log_in(other)
    other.blocking.close()
    assert FILE.read_bytes() == before


def test_r56_a_preset_that_extends_development_keeps_them() -> None:
    presets = {"mine": {"extends": "development"}}
    token = keep_one(preset="mine", presets=presets)
    assert outcome(start(preset="mine", presets=presets), token) is LoadOutcome.LOADED


def test_r56_the_file_is_sealed_and_for_its_owner_alone() -> None:
    token = keep_one("a note in the session")
    content = FILE.read_bytes()
    assert stat.S_IMODE(FILE.stat().st_mode) == 0o600
    sessions = start()
    session = sessions.blocking.open(token)
    for text in (token, session.id, session.data.note):
        assert text.encode() not in content
    assert not FILE.exists()  # it is read once


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), cut=st.booleans())
def test_r56_a_damaged_file_is_empty_with_one_warning(
    caplog: pytest.LogCaptureFixture, place: float, flip: int, cut: bool
) -> None:
    ring = KeyRing.ephemeral()
    store = development_store("sojourn", ring, 10)
    add(store, "id", SYSTEM_CLOCK)
    run_blocking(store.aclose())
    content = bytearray(FILE.read_bytes())
    at = int(place * len(content))
    content[at] ^= flip
    FILE.write_bytes(content[:at] if cut else content)
    caplog.clear()
    store = development_store("sojourn", ring, 10)
    assert run_blocking(store.load("id")) is run_blocking(store.load("id")) is None
    assert ["damaged" in text for text in told(caplog)] == [True]
    add(store, "id", SYSTEM_CLOCK)
    run_blocking(store.aclose())
    store = development_store("sojourn", ring, 10)
    assert run_blocking(store.load("id")) is not None
    run_blocking(store.clear())
    run_blocking(store.aclose())


def test_r56_what_was_kept_under_another_secret_is_not_read(caplog: pytest.LogCaptureFixture) -> None:
    token = keep_one(secret=new_secret())
    assert outcome(start(secret=new_secret()), token) is LoadOutcome.UNKNOWN
    assert [text.rpartition("/")[2] for text in told(caplog)] == [
        "sessions-sojourn is damaged or was written under another secret: no session of it is left"
    ]


def test_r56_one_process_has_the_file_and_another_one_says_what_it_does_without(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = start(), start()
    mine, theirs = log_in(first), log_in(second)
    assert told(caplog) == [f"{FILE.absolute()} is in use: the sessions of this process or manager end with it"]
    second.blocking.close()
    first.blocking.close()
    third = start()
    assert (outcome(third, mine), outcome(third, theirs)) == (LoadOutcome.LOADED, LoadOutcome.UNKNOWN)


def test_applications_with_namespaces_of_their_own_keep_their_own_sessions() -> None:
    tokens = {name: keep_one(namespace=name) for name in ("shop", "blog")}
    for name, token in tokens.items():
        sessions = start(namespace=name)
        assert outcome(sessions, token) is LoadOutcome.LOADED
        assert sessions.blocking.count() == 1


def _link(path: Path) -> None:
    path.with_name("elsewhere").write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to("elsewhere")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("name", ["sessions-sojourn", "sessions-sojourn.lock"])
@pytest.mark.parametrize("put", [_link, _pipe], ids=["a link", "a pipe"])
def test_r56_nothing_is_read_or_written_through_what_is_no_file(
    put: Callable[[Path], None], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    token = keep_one()
    put(FILE.with_name(name))
    sessions = start()
    assert outcome(sessions, token) is LoadOutcome.UNKNOWN
    log_in(sessions)
    sessions.blocking.close()
    assert [text.partition(":")[0] for text in told(caplog)] == ["sessions are not kept over a reload"]
    assert FILE.with_name(name).is_symlink() or FILE.with_name(name).is_fifo()


def test_r56_a_file_of_another_user_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    token = keep_one()
    content = FILE.read_bytes()
    sessions = start(secret=new_secret())
    monkeypatch.setattr(os, "geteuid", lambda: FILE.stat().st_uid + 1)
    assert outcome(sessions, token) is LoadOutcome.UNKNOWN
    assert "belongs to another user" in caplog.text
    sessions.blocking.close()
    assert FILE.read_bytes() == content


def test_r56_where_the_file_cannot_be_written_the_sessions_stay_in_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sessions = start()
    token = log_in(sessions)
    with monkeypatch.context() as patch:

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(Path, "replace", full)
        sessions.blocking.close()
    assert "could not be kept" in caplog.text
    assert outcome(sessions, token) is LoadOutcome.LOADED
    assert sorted(path.name for path in FILE.parent.iterdir()) == [".gitignore", "secret", "sessions-sojourn.lock"]


def test_what_has_expired_is_neither_kept_nor_brought_back() -> None:
    clock, ring = FakeClock(), KeyRing.ephemeral()

    def make() -> DevelopmentStore:
        store = development_store("sojourn", ring, 10)
        assert isinstance(store, DevelopmentStore)
        store._clock = clock
        return store

    store = make()
    for id_, seconds in (("short", 10), ("longer", 100), ("long", 1000)):
        add(store, id_, clock, seconds)
    clock.advance(10)
    run_blocking(store.aclose())
    clock.advance(90)
    store = make()
    assert run_blocking(store.count()) == 1
    assert run_blocking(store.load("long")) is not None
    run_blocking(store.aclose())
