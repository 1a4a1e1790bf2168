"""What a session costs in each framework on Redis: ours by the framework's adapter, beside what it has without us.

The one rule: both stand in an application of that framework, and every ratio is taken within one round.
"""

from __future__ import annotations

import argparse
import json
import sys
from random import Random

from benchmarks.suite import page
from benchmarks.suite.contract import SCENARIOS, Contender, Place
from benchmarks.suite.figures import Ratio, ratio
from benchmarks.suite.machine import cores, describe
from benchmarks.suite.registry import adapters
from benchmarks.suite.report import columns
from benchmarks.suite.results import save_json, save_text
from benchmarks.suite.rounds import Rounds
from benchmarks.suite.server import redis_server
from benchmarks.suite.verdicts import Measured

TARGET = 1.0
"""No adapter is slower than the sessions that its framework has without us."""


def run(arguments: argparse.Namespace) -> bool:
    """Measure and print; say whether an adapter is slower or a contender failed."""
    chosen = {
        framework: everybody
        for framework, everybody in adapters().items()
        if not arguments.only or framework.lower() in arguments.only.lower()
    }
    measured_core, _ = cores()
    with redis_server(measured_core) as redis:
        rounds = Rounds(
            [one for everybody in chosen.values() for one in everybody],
            list(SCENARIOS),
            place=Place(redis.url),
            core=measured_core,
            random=Random(arguments.seed),
            batch=arguments.batch / 1000,
            tell=_tell,
        )
        done = rounds.run(arguments.rounds, minutes=arguments.minutes)
        head = [*describe(redis.program), f"rounds: {done}, seed {arguments.seed}"]
    ratios = ratios_of(chosen, rounds.series)
    slower = [
        (name, scenario, found)
        for (name, scenario), found in ratios.items()
        if is_judged(name, scenario) and found.value > TARGET
    ]
    text = "\n\n".join(
        (
            "CPU that the session adds to one request, in microseconds (median)",
            *(table_of_costs(framework, everybody, rounds.series) for framework, everybody in chosen.items()),
            "Ours, of the sessions that the framework has without us (median of the ratios of all rounds, and quartiles)",
            table_of_ratios(ratios),
            summary(ratios, slower),
            *(f"left out: {message}" for message in rounds.failures.values()),
        )
    )
    values = {
        "ratios": [
            {"name": name, "scenario": scenario, "ratio": found.value, "quartiles": [found.low, found.high]}
            for (name, scenario), found in ratios.items()
        ],
        "costs": [
            {"name": name, "scenario": scenario, "microseconds": series.cost * 1e6, "alone": series.baseline * 1e6}
            for (name, scenario), series in rounds.series.items()
        ],
    }
    sys.stdout.write(json.dumps({"measured_with": head, **values}, indent=1) + "\n" if arguments.json else text + "\n")
    if arguments.save:
        save_text("adapters", head, text)
        save_json("adapters", head, values)
        page.fill("adapters", page.fenced(head, text))
    return bool(rounds.failures or slower)


def is_judged(name: str, scenario: str) -> bool:
    """Tell whether the target applies: what is not used is loaded by neither where ours, too, loads it late."""
    has_lazy = any(one.name == f"{name.rpartition('-')[0]}-lazy" for found in adapters().values() for one in found)
    return not has_lazy or (scenario in {"anon", "untouched"}) == name.endswith("-lazy")


def ratios_of(chosen: dict[str, list[Contender]], measured: Measured) -> dict[tuple[str, str], Ratio]:
    """Return what ours costs of what the framework has without us, by contender and scenario."""
    found: dict[tuple[str, str], Ratio] = {}
    for peer, *ours in chosen.values():
        for one in ours:
            for scenario in SCENARIOS:
                keys = (one.name, scenario), (peer.name, scenario)
                if all(key in measured for key in keys) and (value := ratio(measured[keys[0]], measured[keys[1]])):
                    found[keys[0]] = value
    return found


def table_of_costs(framework: str, everybody: list[Contender], measured: Measured) -> str:
    """Return microseconds of CPU, and what the application costs without a session."""
    rows = [[framework, *SCENARIOS, "app alone"]]
    for one in everybody:
        series = [measured.get((one.name, scenario)) for scenario in SCENARIOS]
        baselines = [each.baseline for each in series if each is not None]
        alone = f"{min(baselines) * 1e6:.1f}" if baselines else "-"
        rows.append([one.label, *("-" if each is None else f"{each.cost * 1e6:.1f}" for each in series), alone])
    return columns(rows)


def table_of_ratios(ratios: dict[tuple[str, str], Ratio]) -> str:
    """Return the ratios, a line for each of ours."""
    rows = [["ours", *SCENARIOS]]
    for name in dict.fromkeys(name for name, _ in ratios):
        cells = [ratios.get((name, scenario)) for scenario in SCENARIOS]
        marks = ["" if is_judged(name, scenario) else " *" for scenario in SCENARIOS]
        rows.append(
            [
                name.removeprefix("adapter-"),
                *(
                    "-" if one is None else f"{one.value:.2f} ({one.low:.2f}-{one.high:.2f}){mark}"
                    for one, mark in zip(cells, marks, strict=True)
                ),
            ]
        )
    return columns(rows)


def summary(ratios: dict[tuple[str, str], Ratio], slower: list[tuple[str, str, Ratio]]) -> str:
    """Return how many are no slower, and which are; what is not judged has a line of the same framework that is."""
    judged = sum(is_judged(*key) for key in ratios)
    lines = [f"{judged - len(slower)} of {judged} at most {TARGET:.2f}; * is judged in another line"]
    return "\n".join([*lines, *(f"SLOWER: {name}, {scenario}: {found}" for name, scenario, found in slower)])


def _tell(text: str) -> None:
    if text.startswith("left out"):
        sys.stderr.write(f"{text}\n")
