"""Session metrics over statsd: the plugin behind ``SOJOURN_METRICS=statsd``.

A missing, slow or restarting agent never delays or breaks a request (FAILURES F22).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.hookspecs import hookimpl
from sojourn_metrics_statsd.metrics import StatsdMetrics

if TYPE_CHECKING:
    from sojourn.settings import SessionSettings
    from sojourn_metrics_statsd.settings import StatsdSettings

__all__ = ["StatsdMetrics", "sojourn_create_metrics", "sojourn_settings"]


@hookimpl
def sojourn_settings(name: str) -> type[StatsdSettings] | None:
    """Return the class of ``SOJOURN_STATSD_*``."""
    if name != "statsd":
        return None
    from sojourn_metrics_statsd.settings import StatsdSettings

    return StatsdSettings


@hookimpl
def sojourn_create_metrics(name: str, settings: SessionSettings) -> StatsdMetrics | None:
    """Return the sink called ``statsd``, as ``SOJOURN_STATSD_*`` describes it."""
    if name != "statsd":
        return None
    from sojourn_metrics_statsd.settings import StatsdSettings

    return StatsdMetrics.from_settings(StatsdSettings.build(settings))
