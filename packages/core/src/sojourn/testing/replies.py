"""One request to an application under test, and what it answered.

The one rule: both are plain values; the drivers turn them into what their interface wants.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to an application."""

    method: str
    path: str
    """Percent-encoded, with the query string behind ``?``."""
    headers: Headers = ()
    body: bytes = b""
    scheme: str = "http"

    @property
    def route(self) -> str:
        """Return the path as applications see it, decoded."""
        return unquote(self.path.partition("?")[0])

    @property
    def query(self) -> str:
        """Return the query string as it is."""
        return self.path.partition("?")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What an application answered; names of headers are in lower case."""

    status: int
    headers: Headers
    body: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """Return the body as UTF-8."""
        return self.body.decode()

    def json(self) -> Any:
        """Return the body as the JSON value that it holds."""
        return json.loads(self.body)

    def all(self, name: str) -> list[str]:
        """Return every value of a header, in order."""
        return [value for key, value in self.headers if key == name.lower()]

    def header(self, name: str) -> str | None:
        """Return the last value of a header, None where there is none."""
        values = self.all(name)
        return values[-1] if values else None
