"""`./dev prove races`: many processes on the same few sessions, without faults: nothing acknowledged is lost or comes back.

The exit status is 1 when the checker finds a single violation.
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from pathlib import Path

from tests.postgres import PostgresServer
from tests.servers import RedisServer
from verification.history.checker import Checker
from verification.history.plan import Sizes
from verification.history.report import Result, tell
from verification.history.run import folder, last_looks, play, play_in_threads
from verification.history.stage import Stage

TASKS, THREADS = 8, 4
SQL = {"postgresql": "sql", "sqlite": "sql", "redis+postgresql": "redis+sql"}
"""The engines of the store sql."""


def prove(store: str, *, seed: int, operations: int, processes: int, browsers: int, plant: str = "") -> Result:
    """Play one history on *store* and judge it."""
    kinds = tuple("async" if number % 2 == 0 else "blocking" for number in range(processes))
    if store in {"sqlite", "example"}:
        kinds = ("blocking",) * processes
    clients = tuple(TASKS if kind == "async" else THREADS for kind in kinds)
    sizes = Sizes(seed=seed, operations=operations, clients=sum(clients), browsers=browsers)
    title = f"prove races, {store}, seed {seed}"
    begun = time.monotonic()
    with ExitStack() as stack:
        rows_in = stack.enter_context(folder())
        place = str(Path(rows_in) / "sessions.db")
        match store:
            case "redis":
                place = stack.enter_context(RedisServer()).url
            case "postgresql":
                place = stack.enter_context(PostgresServer()).url
            case "redis+redis":
                place = " ".join([stack.enter_context(RedisServer()).url] * 2)
            case "redis+postgresql":
                place = f"{stack.enter_context(RedisServer()).url} {stack.enter_context(PostgresServer()).url}"
            case "sqlite":
                place = f"sqlite:///{place}"
            case _:
                pass
        stage = Stage(SQL.get(store, store), place, rows_in, sizes, kinds, clients, plant=plant)
        sessions = None
        if store == "memory":
            rows, sessions = play_in_threads(stage, title=title)
        else:
            rows = play(stage, title=title)
        tokens = {token for row in rows for token in (row.token, row.new_token) if token}
        last = last_looks(stage, tokens, sessions)
    verdict = Checker(rows, last).judge()
    return Result(title, rows, verdict, seconds=time.monotonic() - begun, processes=processes, last=last)


def main() -> int:
    """Run it on every store asked for."""
    parser = argparse.ArgumentParser(prog="./dev prove races", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--operations", type=int, default=100_000, help="on redis and postgresql; others do a tenth")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--browsers", type=int, default=24, help="how few sessions the clients fight for")
    stores = "redis,postgresql,sqlite,example,memory,redis+redis,redis+postgresql"
    parser.add_argument(
        "--stores", default=stores, help="with a plus sessions move from the one to the other meanwhile"
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of text")
    arguments = parser.parse_args()
    results = [
        prove(
            store,
            seed=arguments.seed,
            operations=arguments.operations
            if store in {"redis", "postgresql"}
            else max(arguments.operations // 10, 100),
            processes=arguments.processes,
            browsers=arguments.browsers,
        )
        for store in arguments.stores.split(",")
    ]
    return tell(results, as_json=arguments.json)
