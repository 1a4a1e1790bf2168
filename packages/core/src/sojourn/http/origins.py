"""Which origins are this host's, or were allowed.

The one rule: every function is total; what it cannot understand it treats as the unsafe case.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_ORIGIN: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://([^/?#@\\\s]+)")
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z_.\-]+)(?::([0-9]{1,5}))?")
_SCHEMES: Final = {"ws": "http", "wss": "https"}
_PORTS: Final = {"http": 80, "https": 443}


def same_origin(origin: str | None, *, scheme: str, host: str, allowed: Sequence[str] = ()) -> bool:
    """Tell whether the Origin header names this site, or one of the *allowed* origins (SECURITY R34, R36).

    *scheme* (``ws`` counts as ``http``, ``wss`` as ``https``) and *host* (the Host header) are the request's own;
    *allowed* are origins such as ``https://app.example.com``. Browsers send Origin with every WebSocket handshake, so
    none, ``null`` and whatever does not parse are refused.
    """
    theirs = _origin(origin) if origin else None
    if theirs is None:
        return False
    return theirs == _origin(f"{scheme}://{host}") or any(theirs == _origin(entry) for entry in allowed)


def _origin(text: str) -> tuple[str, str, int | None] | None:
    """Return scheme, host and port of an origin, in lower case and with the default port filled in."""
    match = _ORIGIN.fullmatch(text)
    authority = _HOST.fullmatch(match[2]) if match else None
    if match is None or authority is None:
        return None
    scheme = match[1].lower()
    scheme = _SCHEMES.get(scheme, scheme)
    return scheme, authority[1].lower(), int(authority[2]) if authority[2] else _PORTS.get(scheme)
