"""The shop as a real server process, for a real browser to visit."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.servers import LOOPBACK, free_port, release_port, require_mark

if TYPE_CHECKING:  # names what the process needs, for the build; nothing of it is imported here
    import uvicorn  # noqa: F401

    from shop import app  # noqa: F401

SOURCES = Path(__file__).parents[2] / "examples" / "shop" / "src"
START_SECONDS = 60.0


class ShopStartError(RuntimeError):
    """The shop did not start; the message ends with its log."""


class Shop:
    """One shop on a free port; *variables* are its environment. Entering the context starts it."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        self.log = folder / "shop.log"
        self.variables = variables
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def store(self) -> str:
        return self.variables.get("SOJOURN_STORE", "memory")

    def start(self) -> None:
        require_mark()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SOJOURN_")}
        paths = os.pathsep.join([str(SOURCES), *(str(Path(entry).resolve()) for entry in sys.path if entry)])
        environment = {**inherited, "PYTHONPATH": paths, "SOJOURN_PRESET": "development", **self.variables}
        command = [
            sys.executable,
            "-W",
            "error",
            "-m",
            "uvicorn",
            "shop.app:app",
            "--host",
            LOOPBACK,
            "--no-access-log",
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--port", str(self.port)],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        give_up = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > give_up:
                self.stop()
                message = f"the shop did not start:\n{self.log.read_text()}"
                raise ShopStartError(message)
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        release_port(self.port)
