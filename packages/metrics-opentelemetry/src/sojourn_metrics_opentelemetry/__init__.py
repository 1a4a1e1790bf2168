"""Session metrics and spans over OpenTelemetry: the plugin behind ``SOJOURN_METRICS=opentelemetry``.

It speaks to the API alone: what is exported, and where to, is set up by the application.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.hookspecs import hookimpl
from sojourn_metrics_opentelemetry.metrics import OpenTelemetryMetrics

if TYPE_CHECKING:
    from sojourn.settings import SessionSettings

__all__ = ["OpenTelemetryMetrics", "sojourn_create_metrics"]


@hookimpl
def sojourn_create_metrics(name: str, settings: SessionSettings) -> OpenTelemetryMetrics | None:  # noqa: ARG001
    """Return the sink called ``opentelemetry``; it has no settings of its own."""
    return OpenTelemetryMetrics() if name == "opentelemetry" else None
