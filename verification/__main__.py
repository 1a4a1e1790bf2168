"""`./dev prove`: prove one guarantee from a seed; the exit status is 1 when it does not hold."""

from __future__ import annotations

import sys
from importlib import import_module

WHAT = {
    "races": "many processes on the same few sessions, without faults: nothing acknowledged is lost or comes back",
    "rolling": "the store or the secret changes node by node under load: nobody is logged out",
    "security": "the tests of every rule, the fuzz targets, and an OWASP-style checklist over real HTTP",
    "faults": "the same clients while servers die, freeze and answers get lost",
    "soak": "processes that live for long with all of that: nothing is lost, comes back or piles up",
    "staleness": "local caches whose links fail: no answer is older than allowed",
    "speed": "the targets of the benchmarks, in runs one after the other",
}


def main() -> int:
    """Run the proof that the first argument names, with the other arguments."""
    if len(sys.argv) > 1 and sys.argv[1] in WHAT:
        what = sys.argv.pop(1)
        code: int = import_module(f"verification.{what}").main()
        return code
    asked_for = sys.argv[1:2] in (["--help"], ["-h"])
    lines = "\n".join(f"  {name:10} {text}" for name, text in WHAT.items())
    text = f"usage: ./dev prove WHAT [ARGS]; what to prove:\n{lines}\n./dev prove WHAT --help names the arguments\n"
    (sys.stdout if asked_for else sys.stderr).write(text)
    return 0 if asked_for else 2


if __name__ == "__main__":
    sys.exit(main())
