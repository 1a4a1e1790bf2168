# ruff: noqa: S101 - assertions are what tests are made of
# The package is installed before its tests run:
# pyright: reportMissingImports=false
"""The store keeps the contract, and what SQLite adds to it."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Coroutine
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from sojourn.errors import StoreUnavailableError
from sojourn.settings import SessionSettings
from sojourn.stores import Clock, Replaced, Store
from sojourn.testing import StoreSuite, make_id, make_record, make_write_id
from sojourn_store_sqlite import SqliteStore
from sojourn_store_sqlite.plugin import sojourn_create_store


class TestSqliteStore(StoreSuite):
    indexed = True
    scannable = True

    def make_store(self, clock: Clock) -> SqliteStore:
        self.folder = tempfile.TemporaryDirectory()
        return SqliteStore(f"{self.folder.name}/sessions.db", durable=False, clock=clock)

    def remove_store(self, store: Store) -> None:
        del store
        self.folder.cleanup()


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        coroutine.send(None)
    except StopIteration as finished:
        return finished.value
    raise AssertionError("a blocking store suspended")


def raise_version(path: str, times: int) -> int:
    """Read and replace, as a worker process does; return how often it was told OK."""
    store = SqliteStore(path, timeout=30)
    won = 0
    for number in range(times):
        record = run(store.load(make_id()))
        write_id = make_write_id(f"{os.getpid()} {number}")
        changed = make_record(version=record.version + 1, now=record.idle_deadline - 3_600)
        won += run(store.replace(changed, expected=record.version, write_id=write_id)) is Replaced.OK
    run(store.aclose())
    return won


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "sessions.db")
    with ProcessPoolExecutor(3, get_context("spawn")) as pool:
        store = SqliteStore(path)
        run(store.create(make_record(now=4e9), write_id=make_write_id()))
        won = sum(pool.map(raise_version, [path] * 3, [25] * 3))
    assert run(store.load(make_id())).version == 1 + won
    run(store.aclose())


def create(path: str, number: int) -> str:
    store = SqliteStore(path, timeout=30)
    answer = run(store.create(make_record(make_id(number), now=4e9), write_id=make_write_id()))
    run(store.aclose())
    return str(answer.value)


def test_processes_that_make_the_file_at_once_wait_for_each_other(tmp_path: Path) -> None:
    with ProcessPoolExecutor(3, get_context("spawn")) as pool:
        for number in range(5):
            path = str(tmp_path / f"{number}.db")
            assert list(pool.map(create, [path] * 3, range(3))) == ["ok"] * 3


def test_a_session_survives_a_restart(tmp_path: Path) -> None:
    path = str(tmp_path / "sessions.db")
    create(path, 1)
    create(path, 2)
    store = SqliteStore(path)
    assert run(store.load(make_id(1))).payload == b"payload"
    run(store.aclose())


def test_a_locked_file_is_a_store_that_is_unavailable(tmp_path: Path) -> None:
    path = str(tmp_path / "sessions.db")
    store = SqliteStore(path, timeout=0.01)
    run(store.create(make_record(now=4e9), write_id=make_write_id()))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError, match="locked"):
        run(store.delete(make_id()))
    assert run(store.load(make_id())) is not None
    other.close()
    run(store.aclose())


def test_a_folder_that_is_missing_is_a_store_that_is_unavailable(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "missing" / "sessions.db"))
    with pytest.raises(StoreUnavailableError, match=r"missing/sessions\.db"):
        run(store.load(make_id()))
    run(store.aclose())


def test_a_child_process_and_its_parent_do_not_disturb_each_other(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "sessions.db"))
    run(store.create(make_record(now=4e9), write_id=make_write_id()))
    child = os.fork()
    if child == 0:
        run(store.delete(make_id()))
        run(store.aclose())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert run(store.load(make_id())) is None
    run(store.create(make_record(now=4e9), write_id=make_write_id()))
    assert run(store.load(make_id())) is not None
    run(store.aclose())


def test_the_settings_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOJOURN_SQLITE_PATH", str(tmp_path / "named.db"))
    settings = SessionSettings(preset="testing", store="sqlite")
    assert sojourn_create_store("redis", settings) is None
    store = sojourn_create_store("sqlite", settings)
    assert store is not None
    assert not list(tmp_path.iterdir())
    assert run(store.load(make_id())) is None
    assert (tmp_path / "named.db").exists()
    run(store.aclose())
