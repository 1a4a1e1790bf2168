"""What a response that depends on a session, or sets its cookie, tells caches.

The one rule: every function is total; what it cannot understand it treats as the unsafe case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

PROTECTS_SET_COOKIE: Final = 'no-cache="Set-Cookie"'
"""The least that a response with Set-Cookie says in Cache-Control (SECURITY R23)."""

_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_DIRECTIVE: Final = re.compile(
    rf"[ \t,]*({_TOKEN})(?:=({_TOKEN}|\"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*\"))?[ \t]*(?=,|\Z)"
)


def add_vary(values: Iterable[str]) -> str | None:
    """Return the Vary header to append to those that have *values*, or None when they name Cookie or ``*`` already."""
    for value in values:
        for member in value.split(","):
            if member.strip(" \t").lower() in {"cookie", "*"}:
                return None
    return "Cookie"


def cache_control(values: Iterable[str]) -> str | None:
    """Return the one Cache-Control value to put in the place of all *values*, or None when they are strict enough.

    Strict enough are ``no-store``, ``private`` and ``no-cache`` without an argument and ``no-cache`` naming
    Set-Cookie (SECURITY R23). Other well-formed values are kept and made safe; a value that breaks the grammar could
    hide what is added to it from a cache, and becomes ``no-store``.
    """
    text = ", ".join(values).strip(" \t,")
    if not text:
        return PROTECTS_SET_COOKIE
    position = 0
    while position < len(text):
        match = _DIRECTIVE.match(text, position)
        if match is None:
            return "no-store"
        if _is_strict(match[1].lower(), match[2]):
            return None
        position = match.end()
    return f"{text}, {PROTECTS_SET_COOKIE}"


def _is_strict(name: str, argument: str | None) -> bool:
    if argument is None:
        return name in {"no-store", "private", "no-cache"}
    fields = argument.strip('"').lower().split(",")
    return name == "no-cache" and argument[0] == '"' and "set-cookie" in (field.strip(" \t") for field in fields)
