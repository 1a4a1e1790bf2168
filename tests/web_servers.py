"""Web servers for tests, each a process of its own on a free port of the loopback interface."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.servers import LOOPBACK, free_port, release_port, require_mark

START_SECONDS = 60.0
STOP_SECONDS = 20.0


class WebServerStartError(RuntimeError):
    """The server did not start; the message ends with its log."""


class WebServer:
    """One server on a free port; entering the context starts it.

    *arguments* are those of the interpreter, with ``{port}`` and ``{address}`` filled in, *paths* go before those of this
    process, and *variables* are its environment. It has started once *health* answers.
    """

    def __init__(
        self,
        folder: Path,
        arguments: Sequence[str],
        variables: Mapping[str, str],
        *,
        paths: Sequence[Path] = (),
        health: str = "/healthz",
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.log = folder / f"{self.port}.log"
        self.variables = variables
        self._arguments = arguments
        self._paths = paths
        self._health = health
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Start the process, and wait until it serves."""
        require_mark()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SOJOURN_")}
        paths = [*map(str, self._paths), *(str(Path(entry).resolve()) for entry in sys.path if entry)]
        filled = {"port": str(self.port), "address": f"{LOOPBACK}:{self.port}"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *(argument.format(**filled) for argument in self._arguments)],
                cwd=self.folder,
                env={**inherited, "PYTHONPATH": os.pathsep.join(paths), **self.variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        give_up = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process is None or self._process.poll() is not None or time.monotonic() > give_up:
                self.stop()
                raise WebServerStartError(f"{self._arguments} did not start:\n{self.log.read_text()}")
            time.sleep(0.05)

    def tracebacks(self) -> list[str]:
        """Return the lines of the log that show code of ours in a traceback; servers log some of their own when they stop."""
        return [line for line in self.log.read_text().splitlines() if re.search(r'^ +File ".*\bsrc/sojourn', line)]

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process that was started."""
        if self._process is not None:
            self._process.send_signal(number)

    def stop(self) -> None:
        """End it as a deployment does: what is in flight may come to its end."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + self._health, timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop it for good."""
        self.stop()
        release_port(self.port)
