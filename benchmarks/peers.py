"""What a session costs per request: ours beside the peers and the floors, on every store and in every scenario.

The one rule: process CPU minus the same application's without a session, every ratio taken within one round.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from random import Random

from benchmarks.suite import page
from benchmarks.suite.contract import SCENARIOS, Contender, Place
from benchmarks.suite.machine import cores, describe
from benchmarks.suite.plot import draw
from benchmarks.suite.registry import STORES, contenders, is_clustered_installed
from benchmarks.suite.report import as_json, summary, table_of_costs, table_of_verdicts
from benchmarks.suite.results import save_figure, save_json, save_text
from benchmarks.suite.rounds import Rounds
from benchmarks.suite.server import postgres_program, postgres_url, redis_server
from benchmarks.suite.verdicts import Measured, Verdict, judge

PARTS = {"peers": tuple(store for store in STORES if store != "sql"), "peers-sql": ("sql",)}
"""The stores of each part of the page, and of its results; a part none of whose stores was measured stays as it is."""


def run(arguments: argparse.Namespace) -> bool:
    """Measure and print; say whether a target was missed or a contender failed."""
    everybody, scenarios = chosen(arguments.only)
    if arguments.store:
        everybody = [one for one in everybody if one.store == arguments.store]
    measured_core, _ = cores()
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server(measured_core))
        uses_sql = any(one.store == "sql" for one in everybody)
        postgres = stack.enter_context(postgres_url(measured_core)) if uses_sql else ""
        rounds = Rounds(
            everybody,
            scenarios,
            place=Place(redis.url, postgres),
            core=measured_core,
            random=Random(arguments.seed),
            batch=arguments.batch / 1000,
            tell=_tell,
        )
        done = rounds.run(arguments.rounds, minutes=arguments.minutes)
    seen = f"rounds: {done}, seed {arguments.seed}"
    _tell("")
    verdicts = judge(everybody, rounds.series)
    if arguments.json:
        programs = [redis.program, *([postgres_program()] if uses_sql else [])]
        told = {
            "measured_with": [*describe(*programs), seen],
            **as_json(everybody, rounds.series, verdicts),
            "failures": rounds.failures,
        }
        sys.stdout.write(json.dumps(told, indent=1) + "\n")
    else:
        sys.stdout.write(_text(everybody, rounds.series, verdicts, rounds.failures) + "\n")
    if arguments.save:
        for name, stores in PARTS.items():
            if present := [one for one in everybody if one.store in stores]:
                program = postgres_program() if name == "peers-sql" else redis.program
                _save(name, [*describe(program), seen], present, rounds)
    return bool(rounds.failures) or any(one.missed for one in verdicts)


def _text(
    everybody: Sequence[Contender], measured: Measured, verdicts: Sequence[Verdict], failures: Mapping[str, str]
) -> str:
    return "\n\n".join(
        (
            "CPU that the session adds to one request, in microseconds (median)",
            table_of_costs(everybody, measured),
            "Ours beside the best peer and the floor (median of the ratios of all rounds)",
            table_of_verdicts(verdicts),
            summary(verdicts),
            *(f"left out: {message}" for message in failures.values()),
        )
    )


def _save(name: str, head: Sequence[str], everybody: list[Contender], rounds: Rounds) -> None:
    """Write what was measured of *everybody* to the results, the page and its figures."""
    measured, verdicts = rounds.series, judge(everybody, rounds.series)
    failures = {one.name: rounds.failures[one.name] for one in everybody if one.name in rounds.failures}
    save_text(name, head, _text(everybody, measured, verdicts, failures))
    save_json(name, head, as_json(everybody, measured, verdicts) | {"failures": failures})
    page.fill(name, f"{page.told_with(head)}\n\n{page.peers(everybody, measured, verdicts, summary(verdicts))}")
    for store, svg in draw(everybody, measured).items():
        save_figure(f"peers-{store}", svg)


def chosen(only: str) -> tuple[list[Contender], list[str]]:
    """Return who takes part in what: words that name scenarios choose those, the others choose contenders."""
    words = [word for word in only.replace(",", " ").split() if word]
    scenarios = [word for word in words if word in SCENARIOS] or list(SCENARIOS)
    wanted = [word for word in words if word not in SCENARIOS]
    everybody = contenders(clustered=is_clustered_installed())
    if wanted:
        everybody = [one for one in everybody if any(word == one.store or word in one.name for word in wanted)]
    if not everybody:
        names = ", ".join(one.name for one in contenders(clustered=True))
        raise SystemExit(f"--only {only} chooses nobody; choose among: {names}")
    return everybody, scenarios


def _tell(text: str) -> None:
    """Show how far it is, where somebody watches."""
    if text.startswith("left out"):
        sys.stderr.write(f"{text}\n")
    elif sys.stderr.isatty():
        sys.stderr.write(f"\r{text:40}\r" if not text else f"\r{text:40}")
        sys.stderr.flush()
