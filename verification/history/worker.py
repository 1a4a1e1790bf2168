"""One process of clients: tasks of an event loop, or threads.

A client has one operation in flight, and reads its browser's jar at the moment it sends.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sojourn import SessionManager, asgi, wsgi
from sojourn.manager import run_blocking
from verification.history import requests
from verification.history.jars import Jars
from verification.history.model import Basket
from verification.history.operations import AsyncSide, BlockingSide, asgi_application, do, failed, wsgi_application
from verification.history.plan import Kind, Step, steps
from verification.history.plants import clearing_asgi, clearing_wsgi
from verification.history.pulse import Pulse
from verification.history.recorder import ERROR, UNAVAILABLE, UNKNOWN, Row, save
from verification.history.reports import Reports
from verification.history.stage import START, Shared, Stage

_COME_BACK = frozenset({UNAVAILABLE, UNKNOWN})


def main(stage: Stage, process: int, shared: Shared) -> None:
    """Run the clients of one process, and leave their rows in the folder of the stage."""
    logging.disable(logging.CRITICAL)  # outages are made on purpose, and counted
    reports = Reports()
    rows = work(stage, process, shared, stage.manager(observers=[reports], process=process))
    save(rows, Path(stage.folder) / f"{process}.rows")
    reports.save(Path(stage.folder) / f"{process}.reports")


def work(stage: Stage, process: int, shared: Shared, sessions: SessionManager[Basket]) -> list[Row]:
    """Run the clients of one process and return their rows."""
    return Group(stage, process, shared, sessions).play().rows


async def _give_up(task: asyncio.Task[None], seconds: float, row: Row) -> None:
    """Cancel the operation of a client that has gone, and note in *row* what it knows."""
    await asyncio.wait({task}, timeout=seconds)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError as error:
        failed(row, error)


class Group:
    """The clients of one process."""

    def __init__(self, stage: Stage, process: int, shared: Shared, sessions: SessionManager[Basket]) -> None:
        self._stage = stage
        self._process = process
        self._shared = shared
        self._sessions = sessions
        self._name = sessions.engine.cookies.name
        self.rows: list[Row] = []
        self.tasks_left = 0
        """How many tasks are under way when the last client has its answer."""
        self.pulse = Pulse()

    def play(self) -> Group:
        """Run the clients when all processes are there; return itself."""
        stage, process = self._stage, self._process
        first = sum(stage.clients[:process])
        clients = range(first, first + stage.clients[process])
        self._shared.ready.wait(START)
        with self.pulse:
            if stage.kinds[process] == "async":
                asyncio.run(self.in_tasks(clients))
            else:
                self.in_threads(clients)
        return self

    async def in_tasks(self, clients: range) -> None:
        """Run one task for each client."""
        sessions = self._sessions
        side = AsyncSide(sessions)
        application: Callable[..., Any] = asgi.SessionMiddleware(asgi_application(sessions), sessions)
        if self._stage.plant == "clear-cookie-on-error":
            application = clearing_asgi(application, self._name)

        async def ask(step: Step, row: Row) -> None:
            if step.by_request:
                row.way = "asgi"
                await requests.ask_asgi(application, self._name, step, row)
            else:
                await do(side, step, row)

        async def run(client: int) -> None:
            for step, row in self._rows(client):
                try:
                    if step.gives_up_after is None:
                        await ask(step, row)
                    else:
                        await _give_up(asyncio.create_task(ask(step, row)), step.gives_up_after, row)
                except Exception as error:  # noqa: BLE001 - the checker wants to hear of it
                    row.result, row.error = ERROR, repr(error)
                self._note(row)
                await asyncio.sleep(self._wait(row))

        await asyncio.gather(*map(run, clients))
        self.tasks_left = len(asyncio.all_tasks()) - 1
        await sessions.aclose()

    def in_threads(self, clients: range) -> None:
        """Run one thread for each client."""
        sessions = self._sessions
        side = BlockingSide(sessions)
        application: Callable[..., Any] = wsgi.SessionMiddleware(wsgi_application(sessions), sessions)
        if self._stage.plant == "clear-cookie-on-error":
            application = clearing_wsgi(application, self._name)

        def run(client: int) -> None:
            for step, row in self._rows(client):
                try:
                    if step.by_request:
                        row.way = "wsgi"
                        requests.ask_wsgi(application, self._name, step, row)
                    else:
                        run_blocking(do(side, step, row))
                except Exception as error:  # noqa: BLE001 - the checker wants to hear of it
                    row.result, row.error = ERROR, repr(error)
                self._note(row)
                time.sleep(self._wait(row))

        with ThreadPoolExecutor(len(clients)) as pool:
            list(pool.map(run, clients))
        sessions.blocking.close()

    def _rows(self, client: int) -> Iterator[tuple[Step, Row]]:
        jars: Jars = self._shared.jars
        for step in steps(self._stage.sizes, client):
            token = jars.read(step.browser)
            revokes_all = step.kind is Kind.REVOKE_ALL
            yield (
                step,
                Row(
                    number=step.number,
                    client=client,
                    process=self._process,
                    way=self._stage.kinds[self._process],
                    kind=step.kind.value,
                    browser=step.browser,
                    token=token,
                    account=step.account if step.kind in (Kind.LOGIN, Kind.REVOKE_ALL) else "",
                    spared=token if revokes_all and step.spares_own else "",
                    started=time.monotonic(),
                ),
            )

    def _wait(self, row: Row) -> float:
        return self._stage.backoff if row.result in _COME_BACK else self._stage.rest

    def _note(self, row: Row) -> None:
        row.ended = time.monotonic()
        row.stalled = self.pulse.missed(row.started, row.ended)
        if row.cookie == "set":
            self._shared.jars.keep(row.browser, row.new_token)
        elif row.cookie == "clear":
            self._shared.jars.keep(row.browser, "")
        self.rows.append(row)
        self._shared.done[row.client] += 1
