"""Run every target for a bounded number of executions and print the score: ``./dev fuzz``.

Its one rule: it ends with 1 when anything was accepted that is not genuine, crashed, or took over a second.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fuzz.engine import has_atheris
from fuzz.targets import TARGETS


def fuzz(names: list[str], *, runs: int, seed: int, engine: str, corpus: Path) -> list[dict[str, Any]]:
    """Run each target in a process of its own; return their reports."""
    reports: list[dict[str, Any]] = []
    with TemporaryDirectory() as folder:
        for name in names:
            path = Path(folder, f"{name}.json")
            command = [sys.executable, "-m", "fuzz.engine", name, "--runs", str(runs), "--seed", str(seed)]
            command += ["--engine", engine, "--report", str(path), "--corpus", str(corpus / name)]
            done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - our own module
            if not path.exists():
                raise RuntimeError(f"the target {name} ended without a report:\n{done.stderr[-2000:]}")
            reports.append(json.loads(path.read_text(encoding="utf-8")))
            print(_line(reports[-1]), flush=True)  # noqa: T201 - a command prints
    return reports


def _line(report: dict[str, Any]) -> str:
    return (
        f"{report['target']:<14} {report['executions']:>10,} {report['crashes']:>8} {report['hangs']:>6} "
        f"{report['forgeries']:>10} {report['slowest'] * 1000:>11.1f} {report['seconds']:>8.1f}"
    )


def main() -> int:
    """Run the targets that the command line names, or all."""
    parser = argparse.ArgumentParser(prog="./dev fuzz", description="Fuzz what reads foreign bytes.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"any of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--runs", type=int, default=int(os.environ.get("RUNS") or 20_000), help="executions a target")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEED") or 1))
    parser.add_argument("--engine", choices=("atheris", "random"), default="atheris" if has_atheris() else "random")
    parser.add_argument("--corpus", type=Path, default=Path(".cache/corpus"), help="where inputs are kept")
    parser.add_argument("--json", type=Path, help="write the reports to this file, too")
    options = parser.parse_args()
    unknown = set(options.targets) - set(TARGETS)
    if unknown:
        parser.error(f"there is no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    print(f"{options.engine}, seed {options.seed}, {options.runs:,} executions a target")  # noqa: T201
    print("target         executions  crashes  hangs  forgeries  slowest(ms) seconds")  # noqa: T201
    reports = fuzz(
        options.targets or list(TARGETS),
        runs=options.runs,
        seed=options.seed,
        engine=options.engine,
        corpus=options.corpus,
    )
    total = {key: sum(report[key] for report in reports) for key in ("executions", "crashes", "hangs", "forgeries")}
    total |= {"target": "total", "slowest": max(report["slowest"] for report in reports)}
    total["seconds"] = sum(report["seconds"] for report in reports)
    print(_line(total))  # noqa: T201
    for report in reports:
        for finding in report["findings"]:
            print(f"\n{report['target']}: {finding['kind']} {finding['input']}\n{finding['error']}")  # noqa: T201
    if options.json:
        options.json.write_text(json.dumps(reports, indent=1), encoding="utf-8")
    return 1 if total["crashes"] or total["hangs"] or total["forgeries"] else 0


if __name__ == "__main__":
    sys.exit(main())
