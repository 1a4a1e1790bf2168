"""Drive one target in this process and count: ``python -m fuzz.engine NAME --runs N --report FILE``.

Its one rule: whatever a target raises is counted and its input kept, then the run goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import json
import os
import random
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fuzz.target import Check, Target

HANG: Final = 1.0
"""Seconds of this process's own time after which one execution counts as a hang."""
_KEPT: Final = 5
_INSTRUMENTED: Final = ("sojourn", "sojourn_store_cookie", "sojourn_store_redis")


@dataclass
class Report:
    """What became of a run."""

    target: str
    engine: str
    executions: int = 0
    crashes: int = 0
    hangs: int = 0
    forgeries: int = 0
    slowest: float = 0.0
    seconds: float = 0.0
    findings: list[dict[str, str]] = field(default_factory=list)


class Recorder:
    """Run a check, and keep the score."""

    def __init__(self, check: Check, report: Report, path: Path | None) -> None:
        from fuzz.target import ForgeryError

        self._check = check
        self._forgery = ForgeryError
        self._path = path
        self._begun = time.monotonic()
        self.report = report

    def __call__(self, data: bytes) -> None:
        """Execute the target once."""
        report, begun = self.report, time.thread_time()
        report.executions += 1
        try:
            self._check(data)
        except self._forgery as error:
            report.forgeries += 1
            self._keep("forgery", data, error)
        except Exception as error:  # noqa: BLE001 - that is what is counted
            report.crashes += 1
            self._keep("crash", data, error)
        took = time.thread_time() - begun
        report.slowest = max(report.slowest, took)
        if took > HANG:
            report.hangs += 1
            self._keep("hang", data, None)

    def _keep(self, kind: str, data: bytes, error: Exception | None) -> None:
        if len(self.report.findings) < _KEPT:
            told = "".join(traceback.format_exception(error)[-3:]) if error else ""
            name = hashlib.sha256(data).hexdigest()[:12]
            self.report.findings.append({"kind": kind, "input": data.hex(), "name": name, "error": told})

    def save(self) -> None:
        """Write the report."""
        self.report.seconds = time.monotonic() - self._begun
        if self._path is not None:
            self._path.write_text(json.dumps(asdict(self.report), indent=1), encoding="utf-8")


def run_random(target: Target, recorder: Recorder, runs: int, seed: int) -> None:
    """Feed damaged seeds and noise: no coverage guides it, and no package is needed."""
    from fuzz.target import damage

    draw = random.Random(seed)  # noqa: S311 - to be repeatable
    for _ in range(runs):
        start = draw.choice(target.seeds)
        match draw.randrange(3):
            case 0:
                data = draw.randbytes(draw.randrange(64))
            case 1:
                data = start[:1] + draw.randbytes(draw.randrange(24))
            case _:
                data = damage(start, draw.randbytes(4 * draw.randrange(6)))
        recorder(data[: target.max_length])


def has_atheris() -> bool:
    """Tell whether coverage can guide the run."""
    return importlib.util.find_spec("atheris") is not None


def main() -> None:
    """Run one target."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--engine", choices=("atheris", "random"), required=True)
    options = parser.parse_args()
    if options.engine == "random":
        from fuzz.targets import TARGETS

        target = TARGETS[options.name]
        recorder = Recorder(target.make(), Report(target.name, "random"), options.report)
        run_random(target, recorder, options.runs, options.seed)
        recorder.save()
        return
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=list(_INSTRUMENTED), enable_loader_override=False):
        from fuzz.targets import TARGETS

    target = TARGETS[options.name]
    recorder = Recorder(target.make(), Report(target.name, "atheris"), options.report)
    corpus: Path = options.corpus
    corpus.mkdir(parents=True, exist_ok=True)
    for place, seed in enumerate(target.seeds):
        (corpus / f"seed-{place}").write_bytes(seed)

    def execute(data: bytes) -> None:
        recorder(data)
        if recorder.report.executions >= options.runs:  # the fuzzer itself never returns
            recorder.save()
            os._exit(0)

    arguments = ["-runs=-1", f"-seed={options.seed}", f"-max_len={target.max_length}", "-timeout=60", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *arguments, str(corpus)], execute)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
