"""`./dev prove staleness`: several processes with local caches on one Redis, while their invalidation links fail in every way.

No answer of a local cache is older than the staleness allows, counted from the acknowledgement of the
write that made it so. Exit status 1 when one is.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.servers import RedisServer
from verification.caches.faults import Faults
from verification.caches.node import PLANTS, Plan, run
from verification.caches.on_cluster import prove_on_cluster
from verification.caches.on_cluster import tell as tell_of_cluster
from verification.caches.progress import progress_line, read_rows, worst
from verification.caches.proxies import Proxies
from verification.processes import afresh

CALM_SHARE = 0.25
LONGEST = 3_600.0


def prove(
    *, seed: int, updates: int, staleness: float, nodes: int, slots: int, least: int, plant: str
) -> dict[str, Any]:
    """Play it: calm first, then with faults until there were enough writes and at least *least* faults."""
    begun = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="prove-staleness-")))
        server = stack.enter_context(RedisServer())
        proxies = stack.enter_context(Proxies(server.port, nodes))
        (folder / "board").write_bytes(b"\0" * slots * 66 * 8)
        context = afresh()
        workers = []
        for number in range(nodes):
            plan = Plan(
                number=number,
                nodes=nodes,
                seed=seed,
                slots=slots,
                staleness=staleness,
                url=server.url,
                link_url=proxies.urls[number],
                folder=str(folder),
                blocking=number == nodes - 1,
                plant=plant,
            )
            worker = context.Process(target=run, args=(plan,), daemon=True)
            worker.start()
            workers.append(worker)
        pids = [worker.pid or 0 for worker in workers]
        faults = Faults(server, proxies, pids, staleness=staleness, seed=seed)
        told = 0.0
        while any(worker.is_alive() for worker in workers) and time.monotonic() < begun + LONGEST:
            time.sleep(0.2)
            rows = read_rows(folder, nodes)
            writes = sum(row["writes"] for row in rows)
            if least == 0 and writes >= updates:
                (folder / "over").touch()
            elif least and not faults.is_alive() and writes >= CALM_SHARE * updates and not faults.is_over.is_set():
                (folder / "faults").touch()
                faults.start()
            if writes >= updates and faults.is_alive() and sum(faults.done.values()) >= least:
                faults.is_over.set()
                faults.join(30)
                (folder / "over").touch()
            if time.monotonic() - told > 10.0:
                told = time.monotonic()
                line = progress_line(seed, rows, updates, sum(faults.done.values()), told - begun)
                print(line, file=sys.stderr, flush=True)
        for worker in workers:
            worker.join(5)
        rows = read_rows(folder, nodes)
        failed = [worker.exitcode for worker in workers if worker.exitcode != 0]
    return _result(rows, faults, failed, seed=seed, staleness=staleness, plant=plant, seconds=time.monotonic() - begun)


def _result(rows: list[dict[str, Any]], faults: Faults, failed: list[Any], **given: Any) -> dict[str, Any]:
    total = {name: sum(row[name] for row in rows) for name in ("writes", "revocations", "loads", "hits", "stale")}
    total |= {name: sum(row[name] for row in rows) for name in ("errors", "epochs", "losses", "watchdog", "refusals")}
    ages = {phase: worst(rows, phase) for phase in ("calm", "faults")}
    return {
        **given,
        **total,
        "processes": len(rows),
        "faults": dict(faults.done),
        "worst_calm": ages["calm"],
        "worst_with_faults": ages["faults"],
        "failed_processes": len(failed),
        "holds": not failed and total["hits"] > 0 and max(ages.values()) <= given["staleness"],
    }


def _tell(result: dict[str, Any]) -> None:
    print(
        f"prove staleness, seed {result['seed']}: {result['processes']} processes, {result['writes']:,} acknowledged writes "
        f"({result['revocations']:,} revocations), {result['hits']:,} local hits of {result['loads']:,} loads\n"
        f"  faults: {', '.join(f'{kind} {count}' for kind, count in sorted(result['faults'].items())) or 'none'}; "
        f"{result['losses']:.0f} links lost, {result['watchdog']:.0f} by watchdog, {result['refusals']:.0f} answers "
        f"overtaken\n"
        f"  worst staleness of a local hit: {result['worst_calm'] * 1000:.1f} ms calm, "
        f"{result['worst_with_faults'] * 1000:.1f} ms with faults; allowed {result['staleness'] * 1000:.0f} ms\n"
        f"  {'the guarantee holds' if result['holds'] else 'THE GUARANTEE IS BROKEN'} ({result['seconds']:.0f} s)"
    )


def main() -> int:
    """Prove it and say so."""
    parser = argparse.ArgumentParser(prog="./dev prove staleness", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cluster", action="store_true", help="on a Redis Cluster of 3 + 3 whose primaries fail")
    parser.add_argument(
        "--updates", type=int, help="acknowledged updates and revocations (100,000; 40,000 on a cluster)"
    )
    parser.add_argument("--staleness", type=float, default=0.5, help="the staleness allowed, in seconds")
    parser.add_argument("--processes", type=int, default=3, help="nodes, the last one with threads")
    parser.add_argument("--slots", type=int, default=120, help="sessions alive at a time")
    parser.add_argument("--faults", type=_count, help="at least so many faults (24; 6 on a cluster), or `none`")
    parser.add_argument("--plant", choices=PLANTS, default="", help="break the protocol, to see it noticed")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    given = parser.parse_args()
    common = {"seed": given.seed, "staleness": given.staleness, "nodes": max(3, given.processes), "slots": given.slots}
    if given.cluster:
        faults = 6 if given.faults is None else given.faults
        result = prove_on_cluster(updates=given.updates or 40_000, faults=faults, plant=given.plant, **common)
    else:
        least = 24 if given.faults is None else given.faults
        result = prove(updates=given.updates or 100_000, least=least, plant=given.plant, **common)
    if given.json:
        print(json.dumps(result))
    else:
        (tell_of_cluster if given.cluster else _tell)(result)
    return 0 if result["holds"] else 1


def _count(text: str) -> int:
    return 0 if text == "none" else int(text)
