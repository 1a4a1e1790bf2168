"""`./dev prove faults`: the clients of `prove races` while servers die, freeze and answers get lost, on a seeded schedule.

What was acknowledged holds whatever failed; what nobody answered may have happened or not.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tests.faults.proxy import Fault, FaultProxy
from tests.postgres import PostgresServer
from tests.servers import RedisServer, SentinelSetup
from verification.history import faults, outages, reports
from verification.history.checker import Checker
from verification.history.model import View
from verification.history.plan import Sizes
from verification.history.plants import PLANTS
from verification.history.recorder import Row
from verification.history.report import Result, progress, tell
from verification.history.run import folder, last_looks, play
from verification.history.stage import Stage
from verification.history.switches import Switches
from verification.races import SQL, TASKS, THREADS

REST = 0.1  # seconds between a client's operations, since a failover takes its time
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


def prove(
    store: str = "redis",
    *,
    seed: int,
    operations: int,
    processes: int = 4,
    browsers: int = 24,
    plant: str = "",
    chosen: tuple[str, ...] = (),
    longest: float = 1.2,
    share: float | None = None,
    slack: float = 1.0,
) -> Result:
    """Play one history on a file, or on one server behind a proxy, with every fault once, and judge it."""
    possible: tuple[Fault | str, ...] = (*faults.SERVER_FAULTS, *faults.PROXY_FAULTS)
    if store == "sqlite":
        possible = faults.FILE_FAULTS
    wanted = tuple(one for one in possible if not chosen or _name(one) in chosen)
    title = f"prove faults, {store}, seed {seed}{', planted: ' + plant if plant else ''}"
    begun = time.monotonic()
    with ExitStack() as stack:
        rows_in = stack.enter_context(folder())
        proxy = None
        if store == "sqlite":
            path = Path(rows_in) / "sessions.db"
            place, begin = f"sqlite:///{path}", faults.on_sqlite(path)
        else:
            server = durable(store)
            stack.enter_context(server)
            proxy = stack.enter_context(FaultProxy(server.port, pause=0.02))
            place, begin = way_through(proxy, server), faults.on_standalone(seed, server, proxy)
        stage = _stage(place, rows_in, seed, operations, processes, browsers, store=store, plant=plant)
        schedule = faults.Schedule(faults.plan(seed, operations, wanted, longest=longest, share=share), begin)
        try:
            rows = play(stage, title=title, during=schedule)
        finally:
            schedule.finish()
            if proxy is not None:
                proxy.heal()
        tokens = {token for row in rows for token in (row.token, row.new_token) if token}
        last = last_looks(stage, tokens)
    result = _judged(stage, title, rows, last, schedule, slack)
    if proxy is not None:
        result.more["requests_by_fault"] = {fault.name.lower(): count for fault, count in proxy.done.items()}
    result.seconds, result.processes = time.monotonic() - begun, processes
    return result


def durable(store: str) -> PostgresServer | RedisServer:
    """Return a server that has what it acknowledged when it was killed and started again."""
    return PostgresServer() if store == "postgresql" else RedisServer(*DURABLE)


def way_through(proxy: FaultProxy, server: PostgresServer | RedisServer) -> str:
    """Return the URL of *server* by way of *proxy*."""
    if isinstance(server, RedisServer):
        return proxy.url
    return f"{server.url_of('postgres', port=proxy.port)}?sslmode=disable"


def prove_sentinel(
    *, seed: int, operations: int, processes: int = 4, browsers: int = 24, slack: float = 1.0, waits: bool = False
) -> Result:
    """Play one history on a master that sentinels watch; what a failover loses is counted, not judged.

    With *waits* whatever ends a session waits for the replica; of those that come back all the same it is counted how
    many had been reported as unconfirmed: WAIT narrows the window, and does not close it.
    """
    title = f"prove faults, sentinel, {'with' if waits else 'without'} WAIT, seed {seed}"
    begun = time.monotonic()
    with ExitStack() as stack:
        rows_in = stack.enter_context(folder())
        setup = stack.enter_context(SentinelSetup())
        stage = _stage(setup.url, rows_in, seed, operations, processes, browsers, rest=REST, waits=waits)
        windows = faults.plan(seed, operations, faults.SETUP_FAULTS, longest=1.2)
        schedule = faults.Schedule(windows, faults.on_sentinel(setup))
        switches = stack.enter_context(Switches(setup))
        try:
            rows = play(stage, title=title, during=schedule)
        finally:
            schedule.finish()
        tokens = {token for row in rows for token in (row.token, row.new_token) if token}
        last = last_looks(stage, tokens)
        heard = reports.load(sorted(Path(rows_in).glob("*.reports")))
    result = _judged(stage, title, rows, last, schedule, slack)
    failovers = [*schedule.done, *switches.done]
    lost, result.verdict.violations = outages.split_losses(result.verdict.violations, failovers)
    result.more["changes_of_master"] = len(switches.done)
    result.more["unplanned_ones"] = len(switches.unplanned(schedule.done))
    result.more["seconds_that_they_lacked"] = [round(one.began - one.whole_at, 1) for one in switches.done]
    result.more["losses_by_failover"] = dict(Counter(one.kind for one in lost))
    result.more["acknowledged_writes_lost"] = len(
        {row.number for one in lost if one.kind == "lost update" for row in one.rows}
    )
    result.more["ended_sessions_back"] = len(reports.sessions_back(lost))
    if waits:
        unreported = reports.judge_back(lost, heard)
        result.more["ends_reported_as_unconfirmed"] = len({report.id for report in heard})
        result.more["back_without_a_report"] = len(unreported)
    result.seconds, result.processes = time.monotonic() - begun, processes
    return result


def _stage(
    place: str,
    rows_in: str,
    seed: int,
    operations: int,
    processes: int,
    browsers: int,
    *,
    store: str = "redis",
    plant: str = "",
    rest: float = 0.0,
    waits: bool = False,
) -> Stage:
    kinds = tuple("async" if number % 2 == 0 and store != "sqlite" else "blocking" for number in range(processes))
    clients = tuple(TASKS if kind == "async" else THREADS for kind in kinds)
    sizes = Sizes(seed=seed, operations=operations, clients=sum(clients), browsers=browsers, requests=0.5)
    name, replicas = SQL.get(store, store), 1 if waits else 0
    return Stage(name, place, rows_in, sizes, kinds, clients, plant=plant, rest=rest, wait_replicas=replicas)


def _judged(
    stage: Stage, title: str, rows: list[Row], last: dict[str, View], schedule: faults.Schedule, slack: float
) -> Result:
    verdict = Checker(rows, last, outages=True).judge()
    deadline = stage.settings().request_deadline.total_seconds()
    verdict.violations += outages.judge_times(rows, deadline=deadline, slack=slack)
    found = outages.recoveries(rows, schedule.done)
    verdict.violations += outages.judge_recoveries(found, slack=slack - 1.0)
    return Result(title, rows, verdict, 0.0, 0, last, outages.figures(rows, schedule.done, found))


def _name(fault: object) -> str:
    return str(getattr(fault, "name", fault)).lower().replace("_", "-").replace(" ", "-")


def main() -> int:
    """Run as many seeds as asked for."""
    parser = argparse.ArgumentParser(prog="./dev prove faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--operations", type=int, default=10_000, help="of each seed")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--browsers", type=int, default=24)
    parser.add_argument("--stores", default="redis,postgresql,sqlite")
    parser.add_argument("--faults", default="", help="of one server or file, such as kill,lose-reply; else all")
    parser.add_argument("--plant", choices=PLANTS, default="", help="plant a bug on one server, to see it found")
    parser.add_argument("--sentinel", action="store_true", help="a Redis with a replica and three sentinels alone")
    parser.add_argument("--standalone", action="store_true", help="one server behind a proxy, or a file, alone")
    parser.add_argument(
        "--wait",
        choices=("off", "on", "both"),
        default="both",
        help="whether what ends a session waits for the replica",
    )
    parser.add_argument(
        "--slack",
        type=float,
        default=1.0,
        help="seconds beyond the request deadline, and what exceeds 1 of it for recoveries",
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of text")
    given = parser.parse_args()
    results: list[Result] = []
    lines: list[str] = []
    found = 0
    for seed in range(given.seed, given.seed + given.seeds):
        sizes = {"operations": given.operations, "processes": given.processes, "browsers": given.browsers}
        plays: list[Callable[[], Result]] = []
        stores = given.stores.split(",")
        if not given.standalone and "redis" in stores:
            ways = {"off": (False,), "on": (True,), "both": (False, True)}[given.wait]
            plays += [partial(prove_sentinel, seed=seed, slack=given.slack, waits=waits, **sizes) for waits in ways]
        if not given.sentinel:
            chosen = tuple(word for word in given.faults.split(",") if word)
            more = {"plant": given.plant, "chosen": chosen, "slack": given.slack, **sizes}
            plays += [partial(prove, store, seed=seed, **more) for store in stores]
        for play_one in plays:
            result = play_one()
            progress(f"{result.title}: {len(result.verdict.violations)} violations, {result.seconds:.0f} s")
            found += len(result.verdict.violations)
            lines.append(_line(result))
            if given.json:
                results.append(result)
            else:
                tell([result], as_json=False)
    if given.json:
        tell(results, as_json=True)
    else:
        sys.stdout.write("\n".join((*lines, f"{found} violations in {len(lines)} histories", "")))
    return 1 if found else 0


def _line(result: Result) -> str:
    """Return what one history came to."""
    text = f"{result.title}: {len(result.rows):,} operations, {len(result.verdict.violations)} violations"
    if "acknowledged_writes_lost" in result.more:
        lost, back = result.more["acknowledged_writes_lost"], result.more["ended_sessions_back"]
        text += f"; failovers lost {lost} acknowledged writes and brought {back} ended sessions back"
    if "back_without_a_report" in result.more:
        ends, silent = result.more["ends_reported_as_unconfirmed"], result.more["back_without_a_report"]
        text += f", {silent} of them without a report; {ends} ends were reported as unconfirmed"
    return text
