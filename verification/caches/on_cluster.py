"""`./dev prove staleness --cluster`: the same processes on a Redis Cluster of 3 + 3, whose primaries die and freeze under load.

The guarantee holds if no copy was older than the staleness allows, no acknowledged write is missing but those from
right before a failure, and the service is back within the node timeout and three seconds.
"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.servers import ClusterSetup
from verification.caches.failovers import Failovers
from verification.caches.node import Plan, run
from verification.caches.progress import progress_line, read_rows, worst
from verification.caches.verdict import Histories, describe
from verification.processes import afresh

CALM_SHARE = 0.25
LONGEST = 3_600.0
NODE_TIMEOUT = 1.0
GRACE = 3.0
"""Seconds beyond the node timeout after which the service must be back."""


def prove_on_cluster(
    *,
    seed: int,
    updates: int,
    staleness: float,
    nodes: int,
    slots: int,
    faults: int,
    plant: str = "",
    rest: float = 0.0,
) -> dict[str, Any]:
    """Play it: calm first, then with *faults* failovers, until there were enough writes."""
    begun = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="prove-staleness-")))
        setup = stack.enter_context(ClusterSetup(node_timeout=NODE_TIMEOUT))
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
                url=setup.cluster_url,
                link_url="",
                folder=str(folder),
                blocking=number == nodes - 1,
                plant=plant,
                is_cluster=True,
                rest=rest,
            )
            workers.append(context.Process(target=run, args=(plan,), daemon=True))
            workers[-1].start()
        failovers = Failovers(setup, count=faults, seed=seed)
        is_begun, told = False, 0.0
        while any(worker.is_alive() for worker in workers) and time.monotonic() < begun + LONGEST:
            time.sleep(0.2)
            rows = read_rows(folder, nodes)
            writes = sum(row["writes"] for row in rows)
            if not is_begun and writes >= CALM_SHARE * updates:
                is_begun = True
                if faults:
                    (folder / "faults").touch()
                failovers.start()
            if writes >= updates and is_begun and not failovers.is_alive():
                (folder / "over").touch()
            if time.monotonic() - told > 10.0:
                told = time.monotonic()
                print(
                    progress_line(seed, rows, updates, len(failovers.done), told - begun), file=sys.stderr, flush=True
                )
        for worker in workers:
            worker.join(5)
        rows = read_rows(folder, nodes)
        failed = [worker.exitcode for worker in workers if worker.exitcode != 0]
        if failovers.failure is not None:
            raise failovers.failure
        histories = Histories(folder, nodes)
    return _result(rows, histories, failovers, failed, seed=seed, staleness=staleness, seconds=time.monotonic() - begun)


def _result(
    rows: list[dict[str, Any]], histories: Histories, failovers: Failovers, failed: list[Any], **given: Any
) -> dict[str, Any]:
    names = ("writes", "revocations", "loads", "hits", "stale", "errors", "epochs", "losses")
    total = {name: sum(row[name] for row in rows) for name in names}
    within, others = histories.losses(failovers.done)
    outages = [histories.outage(fault) for fault in failovers.done]
    suspicious = histories.worst_staleness()
    with_faults = max(worst(rows, "faults"), suspicious if failovers.done else 0.0)
    calm = max(worst(rows, "calm"), 0.0 if failovers.done else suspicious)
    return {
        **given,
        **total,
        "processes": len(rows),
        "sessions": histories.sessions(),
        "faults": describe(failovers.done, outages),
        "lost_in_the_window": within,
        "lost_otherwise": len(others),
        "worst_calm": calm,
        "worst_with_faults": with_faults,
        "failed_processes": len(failed),
        "holds": not failed
        and total["hits"] > 0
        and not others
        and max(calm, with_faults) <= given["staleness"]
        and max(outages, default=0.0) <= NODE_TIMEOUT + GRACE,
    }


def tell(result: dict[str, Any]) -> None:
    """Print the result."""
    happened = ", ".join(
        f"{fault['kind']} (elected after {fault['elected_after']:.2f} s, back after {fault['back_after']:.2f} s)"
        for fault in result["faults"]
    )
    print(
        f"prove staleness on a cluster of 3 + 3, seed {result['seed']}: {result['processes']} processes, "
        f"{result['writes']:,} acknowledged writes to {result['sessions']:,} sessions ({result['revocations']:,} "
        f"revocations), {result['hits']:,} local hits of {result['loads']:,} loads\n"
        f"  failures: {happened or 'none'}\n"
        f"  acknowledged writes lost: {result['lost_in_the_window']} in the window before a failure, "
        f"{result['lost_otherwise']} otherwise\n"
        f"  worst age of a local hit: {result['worst_calm'] * 1000:.1f} ms calm, "
        f"{result['worst_with_faults'] * 1000:.1f} ms with failures; allowed {result['staleness'] * 1000:.0f} ms\n"
        f"  {'it holds' if result['holds'] else 'IT DOES NOT HOLD'} ({result['seconds']:.0f} s)"
    )
