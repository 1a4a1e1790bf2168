"""Speed in figures: every target held against runs of the benchmarks one after the other (`./dev prove speed`).

A target is met when every run meets it. Exit status 1 when one is missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.http_load import TARGET
from benchmarks.suite.report import columns
from benchmarks.suite.results import ROOT

HEAD = ("ours", "scenario", "ratio to", "target")


@dataclass(frozen=True, slots=True)
class Held:
    """One target, and the ratio that each run found; None where it was not measured."""

    ours: str
    scenario: str
    to: str
    target: float
    ratios: tuple[float | None, ...]

    @property
    def is_met(self) -> bool:
        """Tell whether every run meets it."""
        return all(ratio is not None and ratio <= self.target for ratio in self.ratios)

    def cells(self) -> list[str]:
        """Return the row of the table."""
        found = ["-" if ratio is None else f"{ratio:.2f}" for ratio in self.ratios]
        return [self.ours, self.scenario, self.to, f"{self.target:.2f}", *found, "met" if self.is_met else "MISSED"]


def held(tables: Sequence[dict[str, Any]], loads: Sequence[dict[str, Any]]) -> list[Held]:
    """Return the targets of the tables in the order in which they first appear, then that of the load."""
    found: dict[tuple[str, str, str], tuple[float, list[float | None]]] = {}
    for number, table in enumerate(tables):
        for verdict in table["verdicts"]:
            for to in ("best_peer", "best_equal"):
                comparison = verdict[to]
                if comparison is not None and comparison["target"] is not None:
                    key = (verdict["name"], verdict["scenario"], to.replace("_", " "))
                    _, ratios = found.setdefault(key, (comparison["target"], [None] * len(tables)))
                    ratios[number] = comparison["ratio"]
    return [
        *(Held(*key, target, tuple(ratios)) for key, (target, ratios) in found.items()),
        Held("sojourn on redis", "read", "starsessions, uvicorn", TARGET, tuple(load["session"] for load in loads)),
    ]


def measured(what: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run one of the benchmarks in its own environment and return what it found."""
    command = [str(ROOT / "dev"), "bench", what, "--json", *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=False)
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise SystemExit(f"the benchmark {what} found nothing (exit {done.returncode}); see above") from None
    return found


def main() -> int:
    """Measure, print what each run found, and say what holds."""
    parser = argparse.ArgumentParser(prog="./dev prove speed", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="makes the order of turns repeatable")
    parser.add_argument("--runs", type=int, default=2, help="runs one after the other (2)")
    parser.add_argument("--rounds", type=int, default=50, help="rounds of measurements in each (50)")
    options = parser.parse_args()
    arguments = ["--seed", str(options.seed), "--rounds", str(options.rounds)]
    tables, loads = [], []
    for number in range(1, options.runs + 1):
        print(f"run {number} of {options.runs}", file=sys.stderr, flush=True)
        tables.append(measured("peers", arguments))
        loads.append(measured("http_load", arguments))
    targets = held(tables, loads)
    head = [*HEAD, *(f"run {number}" for number in range(1, options.runs + 1)), ""]
    print("\n".join(tables[0]["measured_with"]), end="\n\n")
    print(columns([head, *(each.cells() for each in targets)]), end="\n\n")
    failures = {message for table in tables for message in table["failures"].values()}
    print("".join(f"left out: {message}\n" for message in sorted(failures)), end="")
    met = sum(each.is_met for each in targets)
    print(f"{met} of {len(targets)} targets met in all of {options.runs} runs (seed {options.seed})")
    return 0 if met == len(targets) and not failures else 1
