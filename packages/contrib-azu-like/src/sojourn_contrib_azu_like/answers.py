"""What an endpoint may return, and how it becomes a response.

What is no answer of its own is data, and data is sent as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol, runtime_checkable

import msgspec
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from sojourn.http import safe_redirect


@runtime_checkable
class Answer(Protocol):
    """A value that knows how to be sent."""

    def as_response(self) -> Response:
        """Return the response."""
        ...


@dataclass(frozen=True, slots=True)
class Html:
    """A page."""

    body: str = field(repr=False)
    status: int = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)

    def as_response(self) -> Response:
        """Return the page."""
        return HTMLResponse(self.body, self.status, dict(self.headers))


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text."""

    body: str = field(repr=False)
    status: int = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)

    def as_response(self) -> Response:
        """Return the text."""
        return PlainTextResponse(self.body, self.status, dict(self.headers))


@dataclass(frozen=True, slots=True)
class Redirect:
    """A way to another page of this site; whatever might lead elsewhere leads to ``/`` (SECURITY R35)."""

    to: str
    status: int = HTTPStatus.SEE_OTHER

    def as_response(self) -> Response:
        """Return the redirection."""
        return Response(status_code=self.status, headers={"location": safe_redirect(self.to)})


@dataclass(frozen=True, slots=True)
class Empty:
    """Nothing but a status."""

    status: int = HTTPStatus.NO_CONTENT

    def as_response(self) -> Response:
        """Return the head alone."""
        return Response(status_code=self.status)


def respond(value: object, status: int = HTTPStatus.OK) -> Response:
    """Return the response for what an endpoint returned: itself, an Answer's, none for None, else JSON.

    *status* is that of JSON. Raises TypeError for a value that has no JSON.
    """
    match value:
        case Response():
            return value
        case Answer():
            return value.as_response()
        case None:
            return Empty().as_response()
        case _:
            return Response(msgspec.json.encode(value), status, media_type="application/json")
