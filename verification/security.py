"""Security in figures: the score of the fuzz targets, and an OWASP-style checklist over real HTTP (`./dev prove security`)."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[1]


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
    options = parser.parse_args()
    warnings.simplefilter("ignore", ResourceWarning)
    score = fuzzing(options.runs, options.seed)
    held, points = checklist()
    print(
        f"\nfuzzing: {score['executions']:,} executions, {score['crashes']} crashes, {score['hangs']} hangs over 1 s, "
    )
    print(f"         {score['forgeries']} forgeries accepted (seed {options.seed})")
    print(f"checklist: {held} of {points} points hold")
    return 0 if held == points and not (score["crashes"] or score["hangs"] or score["forgeries"]) else 1
