"""The responses that the middlewares give themselves.

The one rule: every function is total; what it cannot understand it treats as the unsafe case.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from sojourn.errors import ConfigurationError
from sojourn.http.paths import path_is_exempt, safe_redirect

RETRY_AFTER_LIMIT: Final = 3600
"""The longest Retry-After in seconds."""
UNAVAILABLE: Final = "Sessions are unavailable at the moment. Try again later."
"""What the 503 says (FAILURES F5)."""
NOT_LOGGED_OUT: Final = "You are not logged out: sessions are unavailable at the moment. Try again later."
"""What the 503 says to a logout (FAILURES F9)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response that the middleware gives itself; it never sets a cookie."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def status_line(self) -> str:
        """Return code and phrase, as WSGI's ``start_response`` wants them: ``503 Service Unavailable``."""
        return f"{self.status} {HTTPStatus(self.status).phrase}"


def unavailable(retry_after: float, accept: str = "", *, detail: str = UNAVAILABLE) -> Answer:
    """Return the 503 for a session that cannot be had or saved now (FAILURES F1, F5).

    *retry_after* is in seconds; sent rounded up, from 1 to 3600. JSON for callers whose Accept prefers it; *detail* is
    the sentence in the body, ``NOT_LOGGED_OUT`` for a logout that failed (FAILURES F9).
    """
    seconds = 1
    if retry_after > 1:
        seconds = RETRY_AFTER_LIMIT if retry_after >= RETRY_AFTER_LIMIT else math.ceil(retry_after)
    return _answer(HTTPStatus.SERVICE_UNAVAILABLE, detail, accept, ("Retry-After", str(seconds)))


def too_large(accept: str = "") -> Answer:
    """Return the 500 for a session that does not fit; the last good state and the old cookie are kept (FAILURES F16)."""
    return _answer(HTTPStatus.INTERNAL_SERVER_ERROR, "The session has grown too large to be saved.", accept)


def conflict(accept: str = "") -> Answer:
    """Return the 409 for a session that another request changed first (FAILURES F8)."""
    return _answer(HTTPStatus.CONFLICT, "The session was changed by another request at the same time.", accept)


def failed(accept: str = "") -> Answer:
    """Return the 500 for a session whose content cannot be stored (FAILURES F15)."""
    return _answer(HTTPStatus.INTERNAL_SERVER_ERROR, "The session could not be saved.", accept)


def refuse_anonymous(
    path: str, *, query: str, method: str, accept: str, signin_path: str, allow: Sequence[str]
) -> Answer | None:
    """Return the answer for a visitor who is not logged in, None where the path is open to everybody (SECURITY R35).

    A page is redirected to *signin_path* with the way back in ``redirect_to``; other methods, and callers that
    prefer JSON, get 401.
    """
    if path_is_exempt(path, allow):
        return None
    if method not in {"GET", "HEAD"} or _prefers_json(accept):
        return _answer(HTTPStatus.UNAUTHORIZED, "Log in first.", accept, ("Vary", "Cookie"))
    back = safe_redirect(f"{path}?{query}" if query else path)
    location = f"{signin_path}?redirect_to={quote(back, safe='/')}"
    return _answer(HTTPStatus.SEE_OTHER, "Log in first.", accept, ("Location", location), ("Vary", "Cookie"))


def require_signin_path(path: str) -> str:
    """Return the path of the sign-in page; ConfigurationError for one that is no plain path on this site (SECURITY R35)."""
    if safe_redirect(path) != path or {"?", "%", "*"} & {*path}:
        msg = f"signin_path is {path!r}; use a plain path on this site that begins with one slash, such as '/signin'"
        raise ConfigurationError(msg)
    return path


def _answer(status: HTTPStatus, detail: str, accept: str, *extra: tuple[str, str]) -> Answer:
    if _prefers_json(accept):
        content_type = "application/problem+json"
        problem = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
        body = json.dumps(problem).encode()
    else:
        content_type = "text/plain; charset=utf-8"
        body = f"{detail}\n".encode()
    headers = (
        ("Content-Type", content_type),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        *extra,
    )
    return Answer(status.value, headers, body)


def _prefers_json(accept: str) -> bool:
    """Tell whether a JSON type has the highest weight; of equal weights the first counts, junk weighs nothing."""
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
