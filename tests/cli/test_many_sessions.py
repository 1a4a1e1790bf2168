"""Commands over very many sessions of a real Redis, stopped by a real ^C and run again for the rest (FAILURES F34)."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sojourn import SessionManager, new_secret
from sojourn.crypto.keys import KeyRing
from sojourn.settings import SessionSettings
from tests.servers import RedisServer

SESSIONS = 100_000
AT_ONCE = 200
OLD, NEW = new_secret(), new_secret()


@dataclass
class Basket:
    note: str = "something that takes the room of a small session"


@dataclass
class Fleet:
    """A Redis with very many sessions of one user, and the environment of its service."""

    server: RedisServer
    environment: dict[str, str]

    async def fill(self) -> None:
        settings = SessionSettings(_variables={**self.environment, "SOJOURN_REPORT_NODE": "false"}, _env_file=None)
        manager = SessionManager.from_settings(Basket, settings)

        async def begin(number: int) -> None:
            for _ in range(number):
                session = await manager.open(None)
                session.login("ada")
                await manager.commit(session)

        await asyncio.gather(*(begin(SESSIONS // AT_ONCE) for _ in range(AT_ONCE)))
        await manager.aclose()

    def run(self, *arguments: str, stops_after: int | None = None) -> tuple[int, str, str]:
        """Run a command; press ^C once it says that so many are done. Return exit code, output and errors."""
        command = [sys.executable, "-m", "sojourn", "sessions", *arguments]
        environment = {**os.environ, **self.environment}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ) as process:
            assert process.stderr is not None
            told: list[str] = []
            for line in process.stderr:
                told.append(line)
                if stops_after is not None and line.startswith(f"{stops_after} "):
                    process.send_signal(signal.SIGINT)
                    stops_after = None
            output, _ = process.communicate()
        return process.returncode, output, "".join(told)

    def commands(self) -> int:
        """Return how many commands the server has carried out, those within scripts too."""
        with self.server.client() as client:
            found: dict[str, Any] = client.info("commandstats")
        return sum(of["calls"] for of in found.values())

    def slowest(self) -> str:
        """Return which commands kept the server busy for longest, in milliseconds as it measured them itself."""
        with self.server.client() as client:
            entries: list[dict[str, Any]] = client.slowlog_get(128)
        by_time = sorted(entries, key=lambda entry: -entry["duration"])[:5]
        return ", ".join(
            f"{entry['command'].split()[0].decode()} {entry['duration'] / 1000:.1f} ms" for entry in by_time
        )


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    monkeypatch.chdir(tmp_path)
    with RedisServer() as server:
        # What a busy machine takes of its time is no pause of the server, as far as the system lets us say so.
        with suppress(PermissionError, AttributeError):
            os.sched_setscheduler(server.pid, os.SCHED_FIFO, os.sched_param(10))
        patient = {f"SOJOURN_{name}": "30s" for name in ("REDIS_TIMEOUT", "REDIS_CONNECT_TIMEOUT")}
        more = {"SOJOURN_REQUEST_DEADLINE": "60s", "SOJOURN_BREAKER_PROBE_DEADLINE": "60s"}
        where = {"SOJOURN_STORE": "redis", "SOJOURN_REDIS_URL": server.url, "SOJOURN_SECRETS": json.dumps([OLD])}
        fleet = Fleet(server, {**where, **patient, **more})
        asyncio.run(fleet.fill())
        server.command("CONFIG", "SET", "slowlog-log-slower-than", "1000")
        server.command("SLOWLOG", "RESET")
        server.command("CONFIG", "RESETSTAT")
        yield fleet


@pytest.mark.long
@pytest.mark.server
def test_f34_very_many_sessions_are_ended_although_the_command_is_stopped(fleet: Fleet, record_property: Any) -> None:
    code, _, told = fleet.run("revoke-all", "--principal", "ada", stops_after=SESSIONS // 2)
    assert code == 130
    assert "1000 ended, going on\n2000 ended, going on\n" in told
    stopped = re.search(r"stopped: (\d+) ended, run the command again for the rest", told)
    assert stopped is not None
    before = int(stopped[1])
    assert SESSIONS // 2 <= before < SESSIONS
    code, output, _ = fleet.run("revoke-all", "--principal", "ada")
    assert code == 0
    # What a batch had ended when it was stopped may not have been counted.
    rest = int(output.split()[0])
    assert SESSIONS - 64 <= before + rest <= SESSIONS
    assert fleet.run("count")[:2] == (0, "0\n")
    print(f"revoke-all: {fleet.commands()} commands, slowest: {fleet.slowest()}")


@pytest.mark.long
@pytest.mark.server
def test_f34_very_many_sessions_are_sealed_anew_although_the_command_is_stopped(
    fleet: Fleet,
) -> None:
    fleet.environment["SOJOURN_SECRETS"] = json.dumps([NEW])
    fleet.environment["SOJOURN_RETIRED_SECRETS"] = json.dumps([OLD])
    code, _, told = fleet.run("rekey", stops_after=SESSIONS // 2)
    assert code == 130
    stopped = re.search(r"stopped: (\d+) sealed anew, run the command again for the rest", told)
    assert stopped is not None
    before = int(stopped[1])
    code, output, _ = fleet.run("rekey")
    assert code == 0
    assert SESSIONS - 64 <= before + int(output.split()[0]) <= SESSIONS
    settings = SessionSettings(_variables={**fleet.environment, "SOJOURN_REPORT_NODE": "false"}, _env_file=None)
    manager = SessionManager.from_settings(Basket, settings).blocking
    assert manager.keys_in_use() == {KeyRing([NEW]).primary.id.hex(): SESSIONS}
    manager.close()
    print(f"rekey: {fleet.commands()} commands, slowest: {fleet.slowest()}")
