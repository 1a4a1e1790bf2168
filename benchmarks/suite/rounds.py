"""Run the contenders against each other, round by round.

The one rule: within a round every contender has its turn, in an order drawn anew, on one core of its own.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.suite.contract import Contender, Place
from benchmarks.suite.figures import Series

ROOT = Path(__file__).resolve().parents[2]
FIRST_TRY = 40
MOST_REQUESTS = 5_000
RENEW_EVERY = 10
"""Rounds after which every worker starts anew: where a process happens to lie in memory must not decide."""

Key = tuple[str, str]


class WorkerFailedError(RuntimeError):
    """A contender could not be built, or did not do what it was timed at; the message names it."""


class Worker:
    """The process of one contender."""

    def __init__(self, contender: Contender, place: Place, core: int | None) -> None:
        self.contender = contender
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-W",
                "ignore",
                "-m",
                "benchmarks.suite.worker",
                contender.name,
                place.redis_url,
                place.postgres_url,
                "-" if core is None else str(core),
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def measure(self, scenario: str, count: int) -> tuple[float, float]:
        """Return the CPU seconds of one request: of the session alone, and of the application without one."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"scenario": scenario, "count": count}) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        return (answer["with"] - answer["without"]) / count, answer["without"] / count

    def close(self) -> None:
        """End the process."""
        if self._process.poll() is None:
            self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            _, errors = self._process.communicate()
            raise WorkerFailedError(f"{self.contender.name}: {(errors.strip().splitlines() or ['no answer'])[-1]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Rounds:
    """All contenders, and what they have been measured at so far."""

    def __init__(
        self,
        contenders: Sequence[Contender],
        scenarios: Sequence[str],
        *,
        place: Place,
        core: int | None,
        random: Random,
        batch: float,
        tell: Callable[[str], None],
    ) -> None:
        self.series: dict[Key, Series] = {}
        self.failures: dict[str, str] = {}
        self._contenders = list(contenders)
        self._scenarios = scenarios
        self._where = (place, core)
        self._random = random
        self._batch = batch
        self._tell = tell
        self._workers: dict[str, Worker] = {}
        self._counts: dict[Key, int] = {}

    def run(self, rounds: int, *, minutes: float = 0.0) -> int:
        """Measure *rounds* times, or until so many *minutes* have passed; return how often.

        Contenders that fail are left out and listed in ``failures``.
        """
        until = time.monotonic() + minutes * 60 if minutes else math.inf
        done = 0
        try:
            for number in range(rounds):
                if time.monotonic() >= until:
                    break
                if number % RENEW_EVERY == 0:
                    self._renew()
                self._tell(f"round {number + 1} of {rounds}")
                turns = [(one, name) for one in self._contenders for name in self._scenarios if name in one.scenarios]
                self._random.shuffle(turns)
                for contender, scenario in turns:
                    self._turn(number, contender, scenario)
                done += 1
        finally:
            self._close()
        return done

    def _turn(self, number: int, contender: Contender, scenario: str) -> None:
        worker = self._workers.get(contender.name)
        if worker is None:
            return
        key = (contender.name, scenario)
        try:
            if key not in self._counts:
                self._counts[key] = self._count(worker, scenario)
            cost, baseline = worker.measure(scenario, self._counts[key])
        except WorkerFailedError as error:
            self._leave_out(contender, error)
            return
        self.series.setdefault(key, Series()).add(number, cost, baseline)

    def _count(self, worker: Worker, scenario: str) -> int:
        """Return how many requests fill a batch of the wanted length, after warming up."""
        worker.measure(scenario, FIRST_TRY)
        cost, baseline = worker.measure(scenario, FIRST_TRY)
        return max(FIRST_TRY, min(MOST_REQUESTS, int(self._batch / max(cost + 2 * baseline, 1e-7))))

    def _renew(self) -> None:
        self._close()
        for contender in self._contenders:
            if contender.name not in self.failures:
                try:
                    self._workers[contender.name] = Worker(contender, *self._where)
                except WorkerFailedError as error:
                    self._leave_out(contender, error)

    def _leave_out(self, contender: Contender, error: WorkerFailedError) -> None:
        self._tell(f"left out: {error}")
        self.failures[contender.name] = str(error)
        self._workers.pop(contender.name, None)
        for key in [key for key in self.series if key[0] == contender.name]:
            del self.series[key]

    def _close(self) -> None:
        for worker in self._workers.values():
            worker.close()
        self._workers = {}
