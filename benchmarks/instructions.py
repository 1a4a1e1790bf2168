"""Instructions per request in user space, by callgrind: ours beside the fair and the bare floors.

Other than time they repeat within 1 %, whatever else the machine does. Every figure is the application with sessions
minus the same one without, counted twice.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.suite import page
from benchmarks.suite.callgrind import COUNTED, CROWD
from benchmarks.suite.contract import Contender, Kind
from benchmarks.suite.machine import describe
from benchmarks.suite.registry import contenders
from benchmarks.suite.report import columns
from benchmarks.suite.results import save_json, save_text
from benchmarks.suite.rounds import ROOT
from benchmarks.suite.server import redis_server

STORES = ("memory", "cookie", "redis")
SHOWN = ("anon", "untouched", "read", "write", "create", CROWD)
REQUESTS = 100
OF_THE_FAIR_FLOOR: dict[str, dict[str, float]] = {
    "memory": {"read": 1.40, "write": 1.40, "create": 1.70},
    "cookie": {"read": 1.40, "write": 1.40, "create": 1.70},
    "redis": {"read": 1.05, "write": 1.00, "create": 1.30},
}
"""The most that ours may cost there, as multiples of the fair floor."""

Counts = dict[str, dict[str, tuple[float, float]]]
"""By contender and scenario: the two counts of one request."""


def run(arguments: argparse.Namespace) -> bool:
    """Count and print; tell whether a target was missed."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise SystemExit(
            "valgrind is not installed: apt-get install valgrind (or your system's package), then try again"
        )
    everybody, scenarios = chosen(arguments.only)
    Random(arguments.seed).shuffle(turns := [*everybody])
    counts: Counts = {}
    with redis_server(None) as redis, tempfile.TemporaryDirectory() as folder:
        head = [*describe(redis.program), f"{REQUESTS} requests twice, seed {arguments.seed}"]
        for number, one in enumerate(turns, 1):
            found = counts[one.name] = {}
            for answer in _answers(valgrind, one, redis.url, Path(folder), scenarios):
                first, second = (
                    with_sessions - without
                    for with_sessions, without in zip(answer["with"], answer["without"], strict=True)
                )
                found[answer["scenario"]] = (first, second)
                sys.stderr.write(f"{number} of {len(turns)}: {one.name}, {answer['scenario']}\n")
    text = f"{_table(everybody, counts)}\n\n{_verdicts(counts)}"
    values = {"instructions": counts, "of_the_fair_floor": ratios(counts)}
    if arguments.json:
        sys.stdout.write(json.dumps({"measured_with": head, **values}, indent=1) + "\n")
    else:
        sys.stdout.write(text + "\n")
    if arguments.save:
        save_text("instructions", head, text)
        save_json("instructions", head, values)
        page.fill("instructions", page.fenced(head, text))
    return any(ratio > target for _, _, ratio, target in _judged(counts))


def chosen(only: str) -> tuple[list[Contender], list[str]]:
    """Return whose requests are counted, and which; words name stores, scenarios or parts of contenders' names."""
    words = [word for word in only.replace(",", " ").split() if word]
    scenarios = [word for word in words if word in COUNTED] or list(SHOWN)
    stores = [word for word in words if word in STORES] or list(STORES)
    wanted = [word for word in words if word not in COUNTED and word not in STORES]
    names = [f"{who}-{store}-asgi" for store in stores for who in ("floor", "fair", "sojourn")]
    names += [f"sojourn-{store}-wsgi" for store in stores]
    everybody = [one for one in contenders(clustered=False) if one.name in names]
    if wanted:
        everybody = [one for one in everybody if any(word in one.name for word in wanted)]
    if not everybody:
        raise SystemExit(f"--only {only} chooses nobody; choose among: {', '.join(names)}")
    return everybody, scenarios


def _answers(
    valgrind: str, one: Contender, redis_url: str, folder: Path, scenarios: list[str]
) -> Iterator[dict[str, Any]]:
    """Yield what the process of a contender says of each scenario, as it says it."""
    out = folder / one.name
    wanted = [name for name in scenarios if COUNTED[name].name in one.scenarios]
    command = [
        *(valgrind, "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"),
        *(sys.executable, "-W", "ignore", "-m", "benchmarks.suite.callgrind"),
        *(one.name, redis_url, str(out), ",".join(wanted), str(REQUESTS)),
    ]
    # Where hash tables collide is the same in every run.
    environment = {"PYTHONHASHSEED": "0"}
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)
        _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"{one.name} failed under valgrind:\n{errors[-2000:]}")


def ratios(counts: Mapping[str, Mapping[str, tuple[float, float]]]) -> dict[str, dict[str, float]]:
    """Return ours as multiples of the fair floor, by contender and scenario."""
    found: dict[str, dict[str, float]] = {}
    for name, counted in counts.items():
        who, store, _ = name.split("-")
        floor = counts.get(f"fair-{store}-asgi", {})
        if who == "sojourn":
            found[name] = {
                scenario: round(sum(both) / sum(floor[scenario]), 3)
                for scenario, both in counted.items()
                if scenario in floor and sum(floor[scenario]) > 0
            }
    return found


def _judged(counts: Counts) -> list[tuple[str, str, float, float]]:
    """Return contender, scenario, ratio and target wherever there is one; the floors are written for ASGI."""
    return [
        (name, scenario, ratio, OF_THE_FAIR_FLOOR[store][scenario])
        for name, found in ratios(counts).items()
        for scenario, ratio in found.items()
        if (store := name.split("-")[1]) and scenario in OF_THE_FAIR_FLOOR[store]
        if store != "redis" or name.endswith("-asgi")
    ]


def _table(everybody: list[Contender], counts: Counts) -> str:
    names = [name for name in SHOWN if any(name in found for found in counts.values())]
    rows = [["thousand instructions", "gateway", *names]]
    for store in STORES:
        for one in (one for kind in (Kind.FLOOR, Kind.OURS) for one in everybody if one.kind is kind):
            if one.store == store:
                cells = ["-" if name not in counts[one.name] else _cell(counts[one.name][name]) for name in names]
                rows.append([f"{store}: {one.label.split(',')[0]}", one.driver.value, *cells])
    return columns(rows)


def _cell(both: tuple[float, float]) -> str:
    return " / ".join(f"{count / 1000:.1f}" for count in both)


def _verdicts(counts: Counts) -> str:
    rows = [["ours", "scenario", "of the fair floor", "target", ""]]
    rows += [
        [name, scenario, f"{ratio:.2f}", f"<= {target:.2f}", "met" if ratio <= target else "MISSED"]
        for name, scenario, ratio, target in _judged(counts)
    ]
    return columns(rows)
