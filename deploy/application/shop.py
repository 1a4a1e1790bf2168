# ruff: noqa: INP001 - a file of the image, in no package
"""The application of these files: one page that counts, probes for whoever runs it, and figures for Prometheus on port 9464."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import set_meter_provider
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import start_http_server

from sojourn import SessionManager
from sojourn.asgi import HealthMiddleware, SessionMiddleware


@dataclass
class Visit:
    """What a session holds."""

    pages: int = 0


set_meter_provider(MeterProvider([PrometheusMetricReader()]))
start_http_server(int(os.environ.get("METRICS_PORT", "9464")))
sessions = SessionManager.from_env(Visit)


async def page(scope: Any, receive: Any, send: Any) -> None:
    """Count the visits of each browser."""
    if scope["type"] == "lifespan":
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})
        return
    session = sessions.of(scope)
    session.data.pages += 1
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"page %d of your visit\n" % session.data.pages})


app = HealthMiddleware(SessionMiddleware(page, sessions), sessions)
