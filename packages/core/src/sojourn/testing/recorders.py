"""A metrics sink and an observer that keep what they were told."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from sojourn.metrics import Tags

if TYPE_CHECKING:
    from sojourn.hookspecs import Event


class RecordingMetrics:
    """Keep every figure: ``counts`` added up, ``timings`` in order, ``gauges`` at their last level."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.timings: dict[str, list[float]] = {}
        self.gauges: dict[str, float] = {}
        self.calls: list[tuple[str, float, dict[str, str]]] = []
        """Name, figure and tags of every call, in order."""

    def increment(self, name: str, value: int = 1, tags: Tags | None = None) -> None:
        """Add *value* to a counter."""
        self.counts[name] += value
        self._note(name, value, tags)

    def timing(self, name: str, seconds: float, tags: Tags | None = None) -> None:
        """Keep a duration in seconds."""
        self.timings.setdefault(name, []).append(seconds)
        self._note(name, seconds, tags)

    def gauge(self, name: str, value: float, tags: Tags | None = None) -> None:
        """Set a level."""
        self.gauges[name] = value
        self._note(name, value, tags)

    def clear(self) -> None:
        """Forget everything."""
        self.counts.clear()
        self.timings.clear()
        self.gauges.clear()
        self.calls.clear()

    def _note(self, name: str, figure: float, tags: Tags | None) -> None:
        self.calls.append((name, figure, dict(tags or {})))


class RecordingObserver:
    """Keep every event, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        """Keep the event."""
        self.events.append(event)

    @property
    def names(self) -> list[str]:
        """Return the names of the events, in order."""
        return [event.name for event in self.events]

    def clear(self) -> None:
        """Forget everything."""
        self.events.clear()
