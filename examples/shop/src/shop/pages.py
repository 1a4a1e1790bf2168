"""The templates, and what they need to know of time."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from shop.catalogue import price

HERE = Path(__file__).parent


def moment(at: datetime) -> str:
    """Write a moment by its distance from now."""
    seconds = (at - datetime.now(UTC)).total_seconds()
    distance = abs(seconds)
    if distance < 45:
        return "in a moment" if seconds > 0 else "just now"
    if distance < 5400:
        words = f"{distance / 60:.0f} min"
    elif distance < 129_600:
        words = f"{distance / 3600:.0f} h"
    else:
        words = f"{distance / 86400:.0f} days"
    return f"in {words}" if seconds > 0 else f"{words} ago"


def _address(name: str) -> str:
    """Return the address of a static file, which changes with its content."""
    return f"/static/{name}?{hashlib.sha256((HERE / 'static' / name).read_bytes()).hexdigest()[:12]}"


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["price"] = price
    made.filters["moment"] = moment
    made.globals["style"] = _address("shop.css")
    made.globals["live_script"] = _address("live.js")
    return made


_ENVIRONMENT = _environment()


def render(template: str, **values: object) -> str:
    """Return the page."""
    return _ENVIRONMENT.get_template(template).render(**values)
