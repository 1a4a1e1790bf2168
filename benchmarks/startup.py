"""What `import sojourn` costs, beside importing what it cannot do without: msgspec and AES-GCM.

The one rule: every import happens in a new interpreter, and the ratio is taken within one round.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from statistics import median

from benchmarks.suite import page
from benchmarks.suite.machine import describe
from benchmarks.suite.report import columns
from benchmarks.suite.results import ROOT, save_text

NEEDED = "import msgspec; from cryptography.hazmat.primitives.ciphers.aead import AESGCM"
IMPORTS = {
    "msgspec and AESGCM": NEEDED,
    "sojourn": "import sojourn",
    "sojourn and sojourn.asgi": "import sojourn, sojourn.asgi",
    "with sojourn.settings": "import sojourn, sojourn.asgi, sojourn.settings",
    "starsessions": "import starsessions",
}
TARGET = 1.25
NOT_YET = ("asyncio", "pluggy", "pydantic", "pydantic_settings", "redis", "starlette")
"""Modules that `import sojourn` must not load: they come when a manager is built."""
MEASURE = """
import json, sys, time
before = set(sys.modules)
started = time.process_time()
{code}
spent = time.process_time() - started
print(json.dumps([spent, sorted(set(sys.modules) - before)]))
"""


def run(arguments: argparse.Namespace) -> bool:
    """Measure and print; say whether the target was missed or a module came too early."""
    spent: dict[str, list[float]] = {name: [] for name in IMPORTS}
    loaded: dict[str, list[str]] = {}
    for code in IMPORTS.values():
        _spent_by(code)  # writes bytecode, warms the files
    for _ in range(arguments.rounds):
        for name, code in IMPORTS.items():
            seconds, loaded[name] = _spent_by(code)
            spent[name].append(seconds)
    needed = spent["msgspec and AESGCM"]
    rows = [["import", "ms of CPU", "of msgspec and AESGCM", "modules"]]
    ratios = {}
    for name, times in spent.items():
        ratios[name] = median(one / other for one, other in zip(times, needed, strict=True))
        rows.append([name, f"{median(times) * 1e3:.1f}", f"{ratios[name]:.2f}", str(len(loaded[name]))])
    early = [name for name in NOT_YET if name in loaded["sojourn"]]
    is_missed = ratios["sojourn"] > TARGET
    text = "\n".join(
        (
            columns(rows),
            "",
            f"import sojourn: {ratios['sojourn']:.2f}, target <= {TARGET:.2f}: {'MISSED' if is_missed else 'met'}",
            f"loaded too early: {', '.join(early) or 'nothing'}",
        )
    )
    sys.stdout.write(json.dumps(ratios | {"early": early}) + "\n" if arguments.json else text + "\n")
    if arguments.save:
        save_text("startup", describe(), text)
        page.fill("startup", page.fenced(describe(), text))
    return is_missed or bool(early)


def _spent_by(code: str) -> tuple[float, list[str]]:
    """Return CPU seconds of an import in a new interpreter, and the modules that it loaded."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURE.format(code=code)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, names = json.loads(done.stdout)
    return seconds, names
