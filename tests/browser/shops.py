"""The shop as a real server process, for a real browser to visit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.servers import LOOPBACK
from tests.web_servers import WebServer

if TYPE_CHECKING:  # names what the process needs, for the build; nothing of it is imported here
    import uvicorn  # noqa: F401

    from shop import app  # noqa: F401

SOURCES = Path(__file__).parents[2] / "examples" / "shop" / "src"
UVICORN = ["-W", "error", "-m", "uvicorn", "shop.app:app", "--host", LOOPBACK, "--no-access-log", "--port", "{port}"]


class Shop(WebServer):
    """One shop on a free port; *variables* are its environment. Entering the context starts it."""

    def __init__(self, folder: Path, **variables: str) -> None:
        super().__init__(folder, UVICORN, {"SOJOURN_PRESET": "development", **variables}, paths=[SOURCES])

    @property
    def store(self) -> str:
        return self.variables.get("SOJOURN_STORE", "memory")
