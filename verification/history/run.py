"""Start the processes of a stage, watch them, and open every session once more at the end.

The last look is taken by a fresh manager, after every client has ended.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

from sojourn import SessionManager
from sojourn.session.transitions import LoadOutcome
from sojourn.stores.memory import MemoryStore
from verification.history.model import Basket, View, look
from verification.history.recorder import Row, load
from verification.history.stage import START, Shared, Stage
from verification.history.worker import main, work
from verification.processes import afresh

Tick = Callable[[Shared], None]
PATIENCE = 30.0
"""Seconds that the last look waits for a store that is slow to come back, or a machine that is busy."""


class StuckError(RuntimeError):
    """A process of clients ended badly or not at all."""


def play(stage: Stage, *, title: str, during: Tick | None = None, limit: float = 7_200.0) -> list[Row]:
    """Run the clients of *stage* in processes, calling *during* again and again; return what they recorded."""
    context = afresh()
    shared = Shared(context, stage)
    processes = [context.Process(target=main, args=(stage, number, shared)) for number in range(len(stage.kinds))]
    try:
        for process in processes:
            process.start()
        shared.ready.wait(START)
        _watch(stage, shared, lambda: any(process.is_alive() for process in processes), title, during, limit)
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
            process.join()
    if bad := [process.exitcode for process in processes if process.exitcode]:
        raise StuckError(f"processes of clients ended with {bad}")
    return load(sorted(Path(stage.folder).glob("*.rows")))


def play_in_threads(stage: Stage, *, title: str) -> tuple[list[Row], SessionManager[Basket]]:
    """Run the clients of *stage* in threads of this process, over one store that they share."""
    store = MemoryStore(max_sessions=1_000_000)
    shared = Shared(afresh(), stage)
    rows: list[Row] = []
    threads = [
        Thread(target=lambda number=number: rows.extend(work(stage, number, shared, stage.manager(store=store))))
        for number in range(len(stage.kinds))
    ]
    for thread in threads:
        thread.start()
    shared.ready.wait(START)
    _watch(stage, shared, lambda: any(thread.is_alive() for thread in threads), title, None, 7_200.0)
    return sorted(rows, key=lambda row: row.started), stage.manager(store=store)


def last_looks(stage: Stage, tokens: set[str], sessions: SessionManager[Basket] | None = None) -> dict[str, View]:
    """Open every token once more and return what it shows."""
    opener = (sessions or stage.manager(plant=False)).blocking
    looks: dict[str, View] = {}
    for token in sorted(tokens):
        until = time.monotonic() + PATIENCE
        session = opener.open(token)
        while session.outcome is LoadOutcome.UNAVAILABLE:
            if time.monotonic() > until:
                raise StuckError("the store did not answer the last look, although no fault is on any more")
            time.sleep(0.1)
            session = opener.open(token)
        looks[token] = look(session, whole=True)
    opener.close()
    return looks


def folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder for the rows."""
    return tempfile.TemporaryDirectory(prefix="history-")


def _watch(
    stage: Stage, shared: Shared, is_on: Callable[[], bool], title: str, during: Tick | None, limit: float
) -> None:
    begun = told = time.monotonic()
    while is_on():
        now = time.monotonic()
        if now - begun > limit:
            raise StuckError(f"{title}: {shared.total()} of {stage.sizes.operations} operations after {limit:g} s")
        if now - told >= 5.0:
            told = now
            total = shared.total()
            sys.stderr.write(
                f"{title}: {total:,} of {stage.sizes.operations:,} operations, {total / (now - begun):,.0f} a second\n"
            )
        if during is not None:
            during(shared)
        time.sleep(0.01)
