"""Security in figures: the tests of every rule, the score of the fuzz targets, and an OWASP-style checklist over real HTTP.

`./dev prove security`; properties draw their examples from the seed. `--rules 38-53` proves some of the rules.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree as ET

ROOT = Path(__file__).parents[1]


def rules(wanted: str, seed: int, *where: str) -> dict[int, Counter[str]]:
    """Run the tests of the rules in the table of SECURITY.md; return how many of each passed, failed or were skipped.

    All tests are looked through by every processor, unless *where*, as arguments of pytest, says otherwise.
    """
    first, _, last = wanted.partition("-")
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    numbers = [int(number) for number in re.findall(r"^\| R(\d+) \|", text, re.MULTILINE)]
    found = {number: Counter[str]() for number in numbers if int(first) <= number <= int(last or first)}
    with TemporaryDirectory() as folder:
        path = Path(folder, "results.xml")
        named = " or ".join(f"test_r{number}_" for number in found)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += [f"--hypothesis-seed={seed}", f"--junitxml={path}", "-k", named]
        command += where or ("-n", "auto", "--dist", "loadgroup", "tests")
        environment = {**os.environ, "HYPOTHESIS_PROFILE": "seeded"}
        done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
        if not path.exists():
            raise SystemExit(f"the tests of the rules did not run (exit {done.returncode}); see above")
        cases = list(ET.parse(path).iter("testcase"))
    for case in cases:
        rule = re.match(r"test_r(\d+)_", case.get("name", ""))
        if rule is not None and int(rule[1]) in found:
            kinds = {part.tag for part in case}
            result = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
            found[int(rule[1])][result] += 1
    print("\nrules, by their tests")
    for number, counts in found.items():
        print(
            f"R{number:<4} {'yes' if holds(counts) else 'NO':<4}" + ", ".join(f"{n} {how}" for how, n in counts.items())
        )
    return found


def holds(counts: Counter[str]) -> bool:
    """Tell whether a rule holds: it has tests, and all of them ran and passed."""
    return bool(counts) and set(counts) == {"passed"}


def checklist() -> tuple[int, int]:
    """Print the points; return how many hold and how many there are."""
    from tests.security.checklist import POINTS, PRESETS, SERVERS, points_of, serving

    places = [(server, preset) for server in SERVERS for preset in PRESETS]
    held: dict[tuple[str, str, str], bool] = {}
    for server, preset in places:
        with serving(server, preset) as target:
            for point in points_of(server):
                try:
                    held[point.__name__, server, preset] = point(target)
                except Exception as error:  # noqa: BLE001 - a point that fails is a figure, too
                    print(f"{point.__name__} on {server}, {preset}: {type(error).__name__}: {error}")
                    held[point.__name__, server, preset] = False
    print("\nchecklist over HTTP    " + " ".join(f"{server}/{preset}".ljust(23) for server, preset in places))
    alone = [point for server in SERVERS for point in points_of(server) if point not in POINTS]
    for point in (*POINTS, *alone):
        marks = [held.get((point.__name__, server, preset)) for server, preset in places]
        words = {True: "yes", False: "NO", None: "-"}
        print(f"{point.__name__:<23}" + " ".join(words[mark].ljust(23) for mark in marks).rstrip())
    for server in SERVERS:
        here = [mark for (_, where, _), mark in held.items() if where == server]
        print(f"{server}: {sum(here)} of {len(here)} points hold")
    return sum(held.values()), len(held)


def fuzzing(runs: int, seed: int) -> dict[str, int]:
    """Run the fuzz targets as `make fuzz` does, and return the totals."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "score.json")
        environment = {**os.environ, "RUNS": str(runs), "SEED": str(seed)}
        done = subprocess.run([str(ROOT / "dev"), "fuzz", "--json", str(path)], cwd=ROOT, env=environment, check=False)
        if not path.exists():
            raise SystemExit(f"the fuzzers did not run (exit {done.returncode}); see above")
        reports: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return {key: sum(one[key] for one in reports) for key in ("executions", "crashes", "hangs", "forgeries")}


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev prove security", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=int(os.environ.get("RUNS") or 20_000), help="executions a target")
    parser.add_argument("--rules", default="1-99", metavar="FIRST-LAST", help="rules whose tests are run")
    options = parser.parse_args()
    warnings.simplefilter("ignore", ResourceWarning)
    score = fuzzing(options.runs, options.seed)
    held, points = checklist()
    proved = rules(options.rules, options.seed)
    print(
        f"\nfuzzing: {score['executions']:,} executions, {score['crashes']} crashes, {score['hangs']} hangs over 1 s, "
    )
    print(f"         {score['forgeries']} forgeries accepted (seed {options.seed})")
    print(f"checklist: {held} of {points} points hold")
    holding = sum(map(holds, proved.values()))
    print(f"rules: {holding} of {len(proved)} hold, in {sum(map(Counter.total, proved.values())):,} tests")
    return (
        0
        if held == points
        and holding == len(proved) > 0
        and not (score["crashes"] or score["hangs"] or score["forgeries"])
        else 1
    )
