"""Requests and responses of the stand-in."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl


class HttpRequest:
    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ
        self.GET = dict(parse_qsl(environ["QUERY_STRING"]))


class JsonResponse:
    def __init__(self, data: object, *, safe: bool = True) -> None:
        assert isinstance(data, dict) or not safe
        self.content = json.dumps(data).encode()
