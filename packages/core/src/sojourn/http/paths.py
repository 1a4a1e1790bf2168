"""Which paths are meant, and where a redirect may lead.

The one rule: every function is total; what it cannot understand it treats as the unsafe case.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, unquote

_STRAY_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")
_UNQUOTE_ROUNDS: Final = 4


def normalise_path(path: str) -> str:
    """Return the path as a careful reader would understand it (SECURITY R35).

    *path* is percent-decoded already, as servers hand it over. Backslashes count as slashes, slashes in a row as one,
    ``.`` and ``..`` are resolved and never lead above the root; a slash at the end is kept, as are letter case and
    ``;`` parameters. Idempotent.
    """
    if path[:1] == "/" and "//" not in path and "/." not in path and "\\" not in path:
        return path
    segments: list[str] = []
    parts = path.replace("\\", "/").split("/")
    for part in parts:
        if part == "..":
            if segments:
                segments.pop()
        elif part not in {"", "."}:
            segments.append(part)
    if segments and parts[-1] in {"", ".", ".."}:
        segments.append("")
    return "/" + "/".join(segments)


def path_matches(path: str, patterns: Sequence[str]) -> bool:
    """Tell whether the normalised *path* is named by one of the *patterns*.

    ``/public`` names that path alone, ``/public/*`` names ``/public`` and all below it. To open paths to everybody
    use ``path_is_exempt``: a router may read a path otherwise than this function does.
    """
    path = normalise_path(path)
    for pattern in patterns:
        if pattern == path:
            return True
        if pattern.endswith("/*") and (path.startswith(pattern[:-1]) or path == pattern[:-2]):
            return True
    return False


def path_is_exempt(path: str, patterns: Sequence[str]) -> bool:
    """Tell whether *path* needs no login: it matches, and is written so that no router can read it otherwise.

    ``/admin/../public/x`` is not exempt even if ``/public/*`` is, since a router may hand it to ``/admin/{rest}``.
    """
    return normalise_path(path) == path and path_matches(path, patterns)


def safe_redirect(path: str) -> str:
    """Return *path* percent-encoded when it surely leads to this host, else ``/`` (SECURITY R35).

    The result starts with exactly one slash and is plain ASCII. A query is kept. Escapes are kept and a stray ``%`` is
    encoded, so the function is idempotent. A path that is not normal, before or after any decoding (``//host``,
    ``/%2F/host``, ``/%252Fhost``), or that holds a backslash or a control character, becomes ``/``.
    """
    if path[:1] != "/" or _CONTROL.search(path):
        return "/"
    try:
        location = quote(_STRAY_PERCENT.sub("%25", path), safe="/?%:@!$&'()*+,;=-._~")
    except UnicodeEncodeError:
        return "/"
    decoded = location.partition("?")[0]
    for _ in range(_UNQUOTE_ROUNDS):
        if _CONTROL.search(decoded) or normalise_path(decoded) != decoded:
            return "/"
        previous, decoded = decoded, unquote(decoded, errors="replace")
        if previous == decoded:
            return location
    return "/"
