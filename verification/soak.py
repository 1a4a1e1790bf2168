"""`./dev prove soak`: two processes that live for long, with large sessions, clients that give up, and everything that fails.

They play one history after the other, each judged as those of `prove faults` are. What the processes hold when their
clients rest is compared from history to history, and so is what is left in the server when all sessions were cleared.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import logging
import resource
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from typing import Any, Final

import msgspec

from tests.faults.proxy import FaultProxy
from tests.postgres import PostgresServer
from tests.servers import RedisServer, ServerStartError, wait_until
from verification.faults import durable, way_through
from verification.history import faults, outages
from verification.history.checker import Checker
from verification.history.plan import Sizes
from verification.history.recorder import Row, load, save
from verification.history.report import Result, progress, tell
from verification.history.run import StuckError, folder, last_looks
from verification.history.stage import START, Shared, Stage
from verification.history.verdict import Verdict, Violation
from verification.history.worker import Group
from verification.processes import afresh
from verification.races import SQL, TASKS, THREADS

KINDS: Final = ("async", "blocking")
CLIENTS: Final = (TASKS, THREADS)
LARGEST: Final = 1 << 20
WARM: Final = 1
"""The history after which a process has everything that it keeps: imported modules, caches, buffers."""
MOST_NEW: Final = {"descriptors": 4, "threads": 2, "tasks": 0, "lines": 0, "objects": 5_000, "megabytes": 64}
"""By how much each figure of a process may differ from that of its warm state; memory is bounded, but not to the byte."""


class Reading(msgspec.Struct, array_like=True):
    """What a process holds while its clients rest."""

    descriptors: int
    threads: int
    tasks: int
    """Tasks that were under way when the last client had its answer."""
    lines: int
    """Sessions that somebody is said to be writing."""
    objects: int
    """Containers that the garbage collector knows."""
    megabytes: int
    """The most memory that the process ever had."""


def live(stage: Stage, process: int, shared: Shared, over: Any) -> None:
    """Play histories with one manager until *over*, as a process of a service lives."""
    logging.disable(logging.CRITICAL)
    sessions = stage.manager()
    for chapter in count():
        group = Group(_chapter(stage, chapter), process, shared, sessions).play()
        save(group.rows, Path(stage.folder) / f"{process}.rows")
        tasks = group.tasks_left
        del group
        gc.collect()
        turns = sessions.engine.turns
        reading = Reading(
            descriptors=len(list(Path("/proc/self/fd").iterdir())),
            threads=threading.active_count(),
            tasks=tasks,
            lines=len(turns.lines) if turns is not None else 0,
            objects=len(gc.get_objects()),
            megabytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        )
        Path(stage.folder, f"{process}.reading").write_bytes(msgspec.msgpack.encode(reading))
        shared.ready.wait(START)  # everybody has played
        shared.ready.wait(START)  # it is judged
        if over.value:
            return


def _chapter(stage: Stage, chapter: int) -> Stage:
    """Return the stage with the seed of one of its histories."""
    sizes = dataclasses.replace(stage.sizes, seed=1_000 * stage.sizes.seed + chapter)
    return dataclasses.replace(stage, sizes=sizes)


def prove(
    store: str = "redis",
    *,
    seed: int,
    seconds: float,
    histories: int = 3,
    operations: int = 6_000,
    browsers: int = 24,
    longest: float = 1.2,
    slack: float = 1.0,
) -> Result:
    """Play *histories* of *operations*, and further ones for so many *seconds*; judge them and what the processes hold."""
    begun = time.monotonic()
    title = f"prove soak, {store}, seed {seed}"
    totals: Counter[str] = Counter()
    verdict, rows, met = Verdict(), list[Row](), Counter[str]()
    readings: list[list[Reading]] = []
    with ExitStack() as stack:
        rows_in = stack.enter_context(folder())
        server = durable(store)
        stack.enter_context(server)
        proxy = stack.enter_context(FaultProxy(server.port, pause=0.02))
        sizes = Sizes(
            seed=seed, operations=operations, clients=sum(CLIENTS), browsers=browsers, requests=0.5, heavy=0.03,
            impatient=0.05,
        )  # fmt: skip
        place = way_through(proxy, server)
        stage = Stage(SQL.get(store, store), place, rows_in, sizes, KINDS, CLIENTS, most_bytes=LARGEST)
        context = afresh()
        shared, over = Shared(context, stage), context.Value("b", 0)
        workers = [context.Process(target=live, args=(stage, number, shared, over)) for number in range(len(KINDS))]
        stack.callback(_end, workers)
        for worker in workers:
            worker.start()
        for chapter in count():
            name = f"{title}, history {chapter}"
            played = _play(_chapter(stage, chapter), shared, workers, server, proxy, longest, slack, name)
            verdict.violations += played.verdict.violations
            verdict.checked.update(played.verdict.checked)
            rows = played.rows
            totals.update(row.result for row in rows)
            totals.update(given_up=sum(row.error == "CancelledError" for row in rows))
            met.update(played.more["faults"])
            readings.append([_reading(rows_in, number) for number in range(len(KINDS))])
            verdict.violations += _leftovers(stage, server)
            over.value = len(readings) >= histories and time.monotonic() - begun >= seconds
            for number in range(browsers):
                shared.jars.keep(number, "")
            for client in range(sum(CLIENTS)):
                shared.done[client] = 0
            shared.ready.wait(START)
            if over.value:
                break
    verdict.violations += judge_readings(readings)
    result = Result(title, rows, verdict, time.monotonic() - begun, len(KINDS), {})
    result.more = {
        "histories": len(readings),
        "all_operations": sum(totals[each] for each in totals if each != "given_up"),
        "all_results": dict(totals),
        "faults": dict(met),
        "held_when_warm": [msgspec.structs.asdict(one) for one in readings[min(WARM, len(readings) - 1)]],
        "held_at_the_end": [msgspec.structs.asdict(one) for one in readings[-1]],
    }
    return result


def _play(
    stage: Stage,
    shared: Shared,
    workers: list[Any],
    server: PostgresServer | RedisServer,
    proxy: FaultProxy,
    longest: float,
    slack: float,
    title: str,
) -> Result:
    """Play one history with every fault once, and judge it."""
    seed, operations = stage.sizes.seed, stage.sizes.operations
    begun = told = time.monotonic()
    windows = faults.plan(seed, operations, (*faults.SERVER_FAULTS, *faults.PROXY_FAULTS), longest=longest)
    schedule = faults.Schedule(windows, faults.on_standalone(seed, server, proxy))
    shared.ready.wait(START)
    try:
        while shared.total() < operations:
            if not all(worker.is_alive() for worker in workers) or time.monotonic() - begun > START:
                raise StuckError(f"{title}: {shared.total()} of {operations} operations")
            if time.monotonic() - told > 10.0:
                told = time.monotonic()
                progress(f"{title}: {shared.total():,} of {operations:,} operations")
            schedule(shared)
            time.sleep(0.01)
    finally:
        schedule.finish()
        proxy.heal()
    shared.ready.wait(START)
    rows = load(sorted(Path(stage.folder).glob("*.rows")))
    last = last_looks(stage, {token for row in rows for token in (row.token, row.new_token) if token})
    verdict = Checker(rows, last, outages=True).judge()
    deadline = stage.settings().request_deadline.total_seconds()
    verdict.violations += outages.judge_times(rows, deadline=deadline, slack=slack)
    verdict.violations += outages.judge_recoveries(outages.recoveries(rows, schedule.done), slack=slack - 1.0)
    result = Result(title, rows, verdict, time.monotonic() - begun, len(KINDS), last)
    result.more = {"faults": Counter(done.name for done in schedule.done)}
    return result


def _leftovers(stage: Stage, server: PostgresServer | RedisServer) -> list[Violation]:
    """Return what is left in the server when every session was cleared, and every client but ours has gone."""
    sessions = stage.manager(plant=False).blocking
    sessions.clear()
    sessions.close()
    with suppress(ServerStartError):  # what ended a connection waits neither for the proxy nor for the server
        wait_until(lambda: _connections(server) == 0, "clients stay", 10.0)
    clients = _connections(server)
    if isinstance(server, RedisServer):
        with server.client() as client:
            kept: Any = client.dbsize()
    else:
        ((kept,),) = server.execute("SELECT count(*) FROM history_sessions")
    found: list[Violation] = []
    if kept:
        found.append(Violation("left behind", f"{kept} records are in the server when all sessions were cleared"))
    if clients:
        found.append(Violation("left behind", f"{clients} connections are open though all managers closed theirs"))
    return found


def _connections(server: PostgresServer | RedisServer) -> int:
    if isinstance(server, RedisServer):
        with server.client() as client:
            return sum(one["name"] == "sojourn" for one in client.client_list())
    ((number,),) = server.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sojourn'")
    return int(str(number))


def _reading(rows_in: str, process: int) -> Reading:
    return msgspec.msgpack.decode(Path(rows_in, f"{process}.reading").read_bytes(), type=Reading)


def judge_readings(readings: list[list[Reading]]) -> list[Violation]:
    """Return what a process holds more of at the end than when it was warm."""
    if len(readings) <= WARM + 1:
        return []
    found: list[Violation] = []
    for process, (warm, last) in enumerate(zip(readings[WARM], readings[-1], strict=True)):
        for name, most in MOST_NEW.items():
            before, after = getattr(warm, name), getattr(last, name)
            if after - before > most:
                found.append(
                    Violation("leak", f"process {process} had {before} {name} when it was warm and has {after} now")
                )
    return found


def _end(workers: list[Any]) -> None:
    for worker in workers:
        if worker.is_alive():
            worker.join(10.0)
            worker.terminate()
        worker.join()


def main() -> int:
    """Run it and say so."""
    parser = argparse.ArgumentParser(prog="./dev prove soak", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", choices=("redis", "postgresql"), default="redis")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--operations", type=int, default=6_000, help="of each history")
    parser.add_argument("--browsers", type=int, default=24)
    parser.add_argument("--slack", type=float, default=1.0, help="seconds beyond the request deadline")
    parser.add_argument("--json", action="store_true", help="print JSON in place of text")
    given = parser.parse_args()
    result = prove(
        given.store,
        seed=given.seed,
        seconds=60.0 * given.minutes,
        operations=given.operations,
        browsers=given.browsers,
        slack=given.slack,
    )
    return tell([result], as_json=given.json)
