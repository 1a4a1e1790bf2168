"""`./dev bench`: the benchmarks against peers and floors, and the smaller ones beside them."""

from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module
from typing import Any

from benchmarks.suite.registry import STORES

WHAT = {
    "peers": "cost of a session per request, beside peers and floors (the default)",
    "adapters": "our adapters for frameworks on Redis, beside the sessions that their applications have without us",
    "instructions": "instructions per request, by callgrind, beside the fair and the bare floors",
    "scale": "cost against the number of sessions, their size and concurrency; bytes per session",
    "breaker": "what the closed circuit breaker costs a call",
    "isolation": "what one visitor with a large session does to the others, over a line of 100 Mbit",
    "startup": "what `import sojourn` costs",
    "http_load": "CPU of a real server under load, beside starsessions",
    "profiles": "where the time of our own requests goes",
    "all": "all of them, written to benchmarks/results and docs",
}


def main() -> int:
    """Run the benchmarks asked for; the exit status tells whether a target was missed or something failed."""
    lines = "\n".join(f"  {name:12} {text}" for name, text in WHAT.items())
    parser = argparse.ArgumentParser(
        prog="./dev bench", description=f"What to run:\n{lines}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", default="peers", choices=WHAT)
    parser.add_argument("--seed", type=int, default=1, help="makes the order of turns repeatable")
    parser.add_argument("--rounds", type=int, default=50, help="rounds of measurements (50; a median needs them)")
    parser.add_argument("--batch", type=float, default=12.0, help="milliseconds of one measurement (12)")
    parser.add_argument(
        "--minutes", type=float, default=0.0, help="begin no round of `peers` after so many minutes (0: no limit)"
    )
    parser.add_argument("--only", default="", help="words of stores, scenarios and contenders: redis,read,starsessions")
    parser.add_argument("--store", choices=STORES, help="of `peers` those of one store alone")
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")
    parser.add_argument("--save", action="store_true", help="write to benchmarks/results and docs as well")
    arguments = parser.parse_args()
    if arguments.what == "all":
        arguments.save = True
    failed = []
    for name in _names(arguments.what):
        started = time.monotonic()
        if _run(name, arguments):
            failed.append(name)
        sys.stderr.write(f"{name}: took {(time.monotonic() - started) / 60:.1f} minutes\n")
    if failed:
        sys.stderr.write(f"targets missed or failures in: {', '.join(failed)}\n")
    return 1 if failed else 0


def _names(what: str) -> list[str]:
    return [name for name in WHAT if name != "all"] if what == "all" else [what]


def _run(name: str, arguments: argparse.Namespace) -> bool:
    module: Any = import_module(f"benchmarks.{name}")
    return bool(module.run(arguments))


if __name__ == "__main__":
    sys.exit(main())
