"""Responses of the middlewares themselves, caching headers, and the rules for origins, paths and redirects.

Every function is defined for every input; what it cannot parse it treats as the unsafe case.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, cast
from urllib.parse import quote, unquote

from msgspec import Struct

from sojourn.crypto.ciphers import Undisclosed
from sojourn.errors import (
    ConfigurationError,
    SessionConflictError,
    SessionTooLargeError,
    SessionUnavailableError,
    SojournError,
    TooManySessionsError,
)

RETRY_AFTER_LIMIT: Final = 3600
"""The longest Retry-After in seconds."""
UNAVAILABLE: Final = "Sessions are unavailable at the moment. Try again later."
"""The sentence in the body of a 503 (FAILURES F5)."""
NOT_LOGGED_OUT: Final = "You are not logged out: sessions are unavailable at the moment. Try again later."
"""The sentence in the body of a 503 for a logout (FAILURES F9)."""
PROTECTS_SET_COOKIE: Final = 'no-cache="Set-Cookie"'
"""The minimum of Cache-Control in a response with Set-Cookie (SECURITY R23)."""

_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_DIRECTIVE: Final = re.compile(
    rf"[ \t,]*({_TOKEN})(?:=({_TOKEN}|\"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*\"))?[ \t]*(?=,|\Z)"
)

_ORIGIN: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://([^/?#@\\\s]+)")
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z_.\-]+)(?::([0-9]{1,5}))?")
_SCHEMES: Final = {"ws": "http", "wss": "https"}
_PORTS: Final = {"http": 80, "https": 443}

_STRAY_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")
_UNQUOTE_ROUNDS: Final = 4


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response that the middleware sends itself; it never sets a cookie."""

    status: int
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def status_line(self) -> str:
        """Return code and phrase as WSGI's ``start_response`` takes them, such as ``503 Service Unavailable``."""
        return f"{self.status} {HTTPStatus(self.status).phrase}"


class Ending(Undisclosed, Struct, frozen=True):
    """What the response has to say of the session."""

    error: SojournError | TypeError | ValueError | None = None
    """Because of this error the application's response must not go out."""
    set_cookie: str | None = None
    """One Set-Cookie line."""
    accessed: bool = False
    """Whether the response depends on the session: ``Vary: Cookie`` (SECURITY R23)."""
    is_logout: bool = False
    """Whether it is a logout that failed (FAILURES F9)."""
    cookie_name: str = ""

    def __repr__(self) -> str:
        """Show no cookie (SECURITY R6)."""
        return f"<Ending error={type(self.error).__name__} accessed={self.accessed}>"

    def answer(self, accept: str = "", method: str = "GET") -> Answer | None:
        """Return the response to send in the place of the application's, for its *accept* header; None without error."""
        error = self.error
        if error is None:
            return None
        if isinstance(error, SessionUnavailableError):
            answer = unavailable(error.retry_after, accept, detail=NOT_LOGGED_OUT if self.is_logout else UNAVAILABLE)
        elif isinstance(error, SessionConflictError | TooManySessionsError):  # FAILURES F8
            answer = _answer(
                HTTPStatus.CONFLICT, "The session was changed by another request at the same time.", accept
            )
        elif isinstance(error, SessionTooLargeError):  # the last good state and the old cookie are kept (FAILURES F16)
            answer = _answer(HTTPStatus.INTERNAL_SERVER_ERROR, "The session has grown too large to be saved.", accept)
        else:  # its content cannot be stored (FAILURES F15)
            answer = _answer(HTTPStatus.INTERNAL_SERVER_ERROR, "The session could not be saved.", accept)
        return Answer(answer.status, answer.headers, b"") if method == "HEAD" else answer

    def headers(self, present: Callable[[str], Iterable[str]]) -> dict[str, str]:
        """Return the headers to set, each in the place of all values of its name (SECURITY R23).

        *present* returns the values that the response has of a name.
        """
        needed: dict[str, str] = {}
        if self.set_cookie is not None:
            control = cache_control([*present("Cache-Control")])
            if control is not None:
                needed["Cache-Control"] = control
        if self.accessed:
            varies = [*present("Vary")]
            added = add_vary(varies)
            if added is not None or len(varies) > 1:
                needed["Vary"] = ", ".join(varies if added is None else [*varies, added])
        return needed

    def apply(self, pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the headers of the response with all that the session asks for; applying it again changes nothing."""
        given = [(pair[0].lower(), pair) for pair in pairs]
        needed = self.headers(lambda name: [pair[1] for key, pair in given if key == name.lower()])
        replaced = {*map(str.lower, needed)}
        if self.set_cookie is None:
            return [*(pair for key, pair in given if key not in replaced), *needed.items()]
        own = f"{self.cookie_name}="
        given = [one for one in given if one[0] != "set-cookie" or not one[1][1].lstrip(" \t").startswith(own)]
        kept = [pair for key, pair in given if key not in replaced]
        return [*kept, *needed.items(), ("Set-Cookie", self.set_cookie)]


NOTHING: Final = Ending()
"""The session was not used: the response stays as it is."""
ACCESSED: Final = Ending(accessed=True)
"""The session was read and nothing else."""


def unavailable(retry_after: float, accept: str = "", *, detail: str = UNAVAILABLE) -> Answer:
    """Return the 503 for a session that cannot be loaded or saved now (FAILURES F1, F5).

    *retry_after* is in seconds; sent rounded up, from 1 to 3600. JSON for callers whose Accept prefers it; *detail* is
    the sentence in the body, ``NOT_LOGGED_OUT`` for a logout that failed (FAILURES F9).
    """
    seconds = 1
    if retry_after > 1:
        seconds = RETRY_AFTER_LIMIT if retry_after >= RETRY_AFTER_LIMIT else math.ceil(retry_after)
    return _answer(HTTPStatus.SERVICE_UNAVAILABLE, detail, accept, ("Retry-After", str(seconds)))


def health(state: str, method: str, *, is_well: bool) -> Answer:
    """Return what a probe is told: 200, or 503 which takes the node out of service."""
    body = json.dumps({"status": state}).encode()
    answer = _whole(HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE, "application/json", body)
    return Answer(answer.status, answer.headers, b"") if method == "HEAD" else answer


def refuse_anonymous(
    path: str, *, query: str, method: str, accept: str, signin_path: str, allow: Sequence[str], root: str = ""
) -> Answer | None:
    """Return the answer for a visitor who is not logged in, or None where the path is open to all (SECURITY R35).

    A page is redirected to *signin_path* with the way back in ``redirect_to``; other methods, and callers that
    prefer JSON, get 401. *path*, *signin_path* and *allow* are those of the application; *root* is where that is
    mounted, which the browser has to hear of.
    """
    if path_is_exempt(path, allow):
        return None
    if method not in {"GET", "HEAD"} or _prefers_json(accept):
        return _answer(HTTPStatus.UNAUTHORIZED, "Log in first.", accept, ("Vary", "Cookie"))
    prefix = safe_redirect(root.rstrip("/")).rstrip("/")
    back = safe_redirect(f"{prefix}{path}?{query}" if query else f"{prefix}{path}")
    location = f"{prefix}{signin_path}?redirect_to={quote(back, safe='/')}"
    return _answer(HTTPStatus.SEE_OTHER, "Log in first.", accept, ("Location", location), ("Vary", "Cookie"))


def require_signin_path(path: str) -> str:
    """Return *path*; raise ConfigurationError unless it is a plain path on this site (SECURITY R35)."""
    if safe_redirect(path) != path or {"?", "%", "*"} & {*path}:
        msg = f"signin_path is {path!r}; use a plain path on this site that begins with one slash, such as '/signin'"
        raise ConfigurationError(msg)
    return path


def _answer(status: HTTPStatus, detail: str, accept: str, *extra: tuple[str, str]) -> Answer:
    if not _prefers_json(accept):
        return _whole(status, "text/plain; charset=utf-8", f"{detail}\n".encode(), *extra)
    problem = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
    return _whole(status, "application/problem+json", json.dumps(problem).encode(), *extra)


def _whole(status: HTTPStatus, content_type: str, body: bytes, *extra: tuple[str, str]) -> Answer:
    headers = (("Content-Type", content_type), ("Content-Length", str(len(body))), ("Cache-Control", "no-store"))
    return Answer(status.value, (*headers, *extra), body)


def _prefers_json(accept: str) -> bool:
    """Return whether a JSON type has the highest weight; the first of equal weights wins, a malformed weight is 0."""
    best, prefers = 0.0, False
    for member in accept.split(","):
        media_type, *parameters = (part.strip(" \t").lower() for part in member.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                weight = _weight(parameter[2:])
        if weight > best:
            best, prefers = weight, media_type == "application/json" or media_type.endswith("+json")
    return prefers


def _weight(text: str) -> float:
    return float(text) if re.fullmatch(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?", text) else 0.0


def add_vary(values: Iterable[str]) -> str | None:
    """Return the value to add to the Vary headers with *values*, or None when they name Cookie or ``*`` already."""
    for value in values:
        for member in value.split(","):
            if member.strip(" \t").lower() in {"cookie", "*"}:
                return None
    return "Cookie"


def cache_control(values: Iterable[str]) -> str | None:
    """Return the Cache-Control value that replaces all *values*, or None when they are strict enough.

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


def same_origin(origin: str | None, *, scheme: str, host: str, allowed: Sequence[str] = ()) -> bool:
    """Return whether the Origin header names this site or one of the *allowed* origins (SECURITY R34, R36).

    *scheme* (``ws`` counts as ``http``, ``wss`` as ``https``) and *host* (the Host header) are the request's own;
    *allowed* are origins such as ``https://app.example.com``. Browsers send Origin with every WebSocket handshake, so
    a missing one, ``null`` and what does not parse are refused.
    """
    if isinstance(allowed, str):
        raise TypeError("allowed is one string, of which each character would be an origin; put [ ] around it")
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


def normalise_path(path: str) -> str:
    """Return *path* in normal form (SECURITY R35).

    *path* is percent-decoded already, as servers hand it over. Backslashes count as slashes, slashes in a row as one,
    ``.`` and ``..`` are resolved and never lead above the root; a slash at the end is kept, as are letter case and
    ``;`` parameters. Idempotent.
    """
    # The usual path is in normal form already.
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


def path_below(path: str, root: str) -> str:
    """Return *path* as an application that is mounted at *root* routes it; some servers put the one before the other."""
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in {"", "/"}:
        path = path[len(root) :]
    return path or "/"


def path_matches(path: str, patterns: Sequence[str]) -> bool:
    """Return whether the normalised *path* matches one of the *patterns*.

    ``/public`` matches that path alone, ``/public/*`` matches ``/public`` and all below it. To open paths to everybody
    use ``path_is_exempt``: a router may read a path differently.
    """
    path = normalise_path(path)
    if isinstance(patterns, str):
        raise TypeError("patterns is one string, of which each character would be a pattern; put [ ] around it")
    for pattern in patterns:
        if pattern == path:
            return True
        if pattern.endswith("/*") and (path.startswith(pattern[:-1]) or path == pattern[:-2]):
            return True
    return False


def require_patterns(patterns: Sequence[str], *, name: str) -> tuple[str, ...]:
    """Return the patterns of paths that stand in the argument *name*; ConfigurationError for what was meant otherwise.

    Of one string each character would be a pattern, and ``/`` open. A pattern that is no path in normal form, perhaps
    with ``/*`` at its end, would match nothing (SECURITY R51).
    """
    if isinstance(patterns, str | bytes):
        msg = f"{name} is {patterns!r}, of which each character would be a pattern; put [ ] around it"
        raise ConfigurationError(msg)
    given = tuple(patterns)
    for pattern in given:
        path = (
            pattern.removesuffix("*") if isinstance(cast("object", pattern), str) and pattern[-2:] == "/*" else pattern
        )
        if not isinstance(cast("object", path), str) or "*" in path or path[:1] != "/" or normalise_path(path) != path:
            msg = f"{name} holds {pattern!r}; write a path such as '/about', or '/public/*' for it and all below it"
            raise ConfigurationError(msg)
    return given


def path_is_exempt(path: str, patterns: Sequence[str]) -> bool:
    """Return whether *path* needs no login: it matches, and is in normal form, which every router reads alike.

    ``/admin/../public/x`` is not exempt even if ``/public/*`` is, since a router may hand it to ``/admin/{rest}``.
    """
    return normalise_path(path) == path and path_matches(path, patterns)


def safe_redirect(path: str) -> str:
    """Return *path* percent-encoded when it certainly leads to this host, else ``/`` (SECURITY R35).

    The result starts with exactly one slash and is plain ASCII. A query is kept. Escapes are kept and a stray ``%`` is
    encoded, so the function is idempotent. A path that is not in normal form, before or after any decoding
    (``//host``, ``/%2F/host``, ``/%252Fhost``), or that holds a backslash or a control character, becomes ``/``.
    """
    if path[:1] != "/" or _CONTROL.search(path):
        return "/"
    try:
        location = quote(_STRAY_PERCENT.sub("%25", path), safe="/?%:@!$&'()*+,;=-._~")
    except UnicodeEncodeError:
        return "/"
    decoded = location.partition("?")[0]
    # Proxies and applications may decode several times: every reading has to lead to this host.
    for _ in range(_UNQUOTE_ROUNDS):
        if _CONTROL.search(decoded) or normalise_path(decoded) != decoded:
            return "/"
        previous, decoded = decoded, unquote(decoded, errors="replace")
        if previous == decoded:
            return location
    return "/"
