"""The routes of the stand-in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def path(route: str, view: Callable[..., Any]) -> tuple[str, Callable[..., Any]]:
    return f"/{route}", view
