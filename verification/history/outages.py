"""What outages may do to clients: how long an answer takes, how soon all is well again, what becomes of cookies.

A request that passes a middleware is answered within SOJOURN_REQUEST_DEADLINE and a little.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

from verification.history.faults import Done
from verification.history.recorder import CONFLICT, DONE, LOST, Row
from verification.history.verdict import LOSSES, Violation

ANSWERED: Final = frozenset({DONE, LOST, CONFLICT})
BY_REQUEST: Final = frozenset({"asgi", "wsgi"})
NEAR: Final = 1.0
"""Seconds before and after a failover in which what was acknowledged may be lost with the old master."""
QUICKLY: Final = 8.0
"""Seconds after a fault by which every process must have been served again; a breaker that opened waits 2 s and more."""


def judge_times(rows: list[Row], *, deadline: float, slack: float) -> list[Violation]:
    """Return the requests that took too long; operations of a manager have no deadline of their own."""
    return [
        Violation("too slow", f"answered after {row.ended - row.started:.2f} s, more than {deadline:g} s", (row,))
        for row in rows
        if row.way in BY_REQUEST and row.ended - row.started - row.stalled > deadline + slack
    ]


def recoveries(rows: list[Row], faults: list[Done]) -> list[tuple[Done, int, float]]:
    """Return for each fault and process how long after its end something was done again."""
    by_process: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        by_process[row.process].append(row)
    found: list[tuple[Done, int, float]] = []
    for turn, fault in enumerate(faults):
        following = faults[turn + 1].began if turn + 1 < len(faults) else float("inf")
        for process, own in by_process.items():
            later = [row for row in own if row.started >= fault.ended]
            well = next((row for row in later if row.result in ANSWERED), None)
            if well is not None and well.ended < following:
                found.append((fault, process, well.ended - fault.ended))
            elif later and later[-1].ended - fault.ended > QUICKLY and following - fault.ended > QUICKLY:
                found.append((fault, process, float("inf")))
    return found


def judge_recoveries(found: list[tuple[Done, int, float]], *, slack: float = 0.0) -> list[Violation]:
    """Return the recoveries that took too long, by more than *slack* seconds."""
    return [
        Violation(
            "slow recovery", f"process {process} was served {seconds:.1f} s after the fault {fault.name} had ended"
        )
        for fault, process, seconds in found
        if seconds > QUICKLY + slack
    ]


def split_losses(found: list[Violation], faults: list[Done]) -> tuple[list[Violation], list[Violation]]:
    """Return what failovers may have cost, and everything else.

    A loss needs an operation from the time of a failover, or one from before that the server which took over had not got
    by then; it may be found much later, when somebody looks.
    """
    excused = [one for one in found if one.kind in LOSSES and any(_may_have_cost(fault, one) for fault in faults)]
    return excused, [one for one in found if one not in excused]


def _may_have_cost(fault: Done, loss: Violation) -> bool:
    if any(_is_from(row, fault.began, fault.ended) for row in loss.rows):
        return True
    was_lost_before = len(loss.rows) > 1 and max(row.ended for row in loss.rows) < fault.began
    return not was_lost_before and any(_is_from(row, fault.whole_at, fault.ended) for row in loss.rows)


def _is_from(row: Row, began: float, ended: float) -> bool:
    return row.ended > began - NEAR and row.started < ended + NEAR


def figures(rows: list[Row], faults: list[Done], found: list[tuple[Done, int, float]]) -> dict[str, Any]:
    """Return what is worth telling about a run with faults."""
    slowest = {
        way: round(max((row.ended - row.started for row in rows if row.way == way), default=0.0), 2)
        for way in ("async", "blocking", "asgi", "wsgi")
    }
    worst = {
        fault.name: round(max((seconds for one, _, seconds in found if one is fault), default=0.0), 2)
        for fault in faults
    }
    stalled = round(max((row.stalled for row in rows), default=0.0), 2)
    return {"slowest_answer_s": slowest, "longest_stall_of_the_machine_s": stalled, "recovery_s_after": worst}
