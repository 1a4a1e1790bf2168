"""What stops a request before or inside its endpoint, as an exception that knows its own answer (RFC 9457).

A problem names the field and the reason, never a value that was sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import Response


class Problem(Exception):  # noqa: N818 - the word of RFC 9457
    """End the request with *status*; *field* is the part of the request that is wrong, None for the whole.

    With *headers* the answer carries more than its status: a Location, a WWW-Authenticate.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.field = field
        self.headers = dict(headers or {})

    def as_response(self) -> Response:
        """Return the answer: a problem document, not to be cached."""
        document: dict[str, object] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.field is not None:
            document["field"] = self.field
        headers = {"cache-control": "no-store", **self.headers}
        return Response(json.dumps(document), self.status, headers, "application/problem+json")
