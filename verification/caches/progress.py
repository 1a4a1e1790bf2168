"""What the processes of the prover report while they run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_rows(folder: Path, nodes: int) -> list[dict[str, Any]]:
    """Return the latest report of each process."""
    paths = [folder / f"node{number}.json" for number in range(nodes)]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def worst(rows: list[dict[str, Any]], phase: str) -> float:
    """Return the worst staleness of a phase."""
    return max((row["worst"][phase] for row in rows), default=0.0)


def progress_line(seed: int, rows: list[dict[str, Any]], updates: int, faults: int, seconds: float) -> str:
    """Return how far it has come."""
    return (
        f"[{seconds:5.0f} s] seed {seed}: {sum(row['writes'] for row in rows):,} of {updates:,} writes acknowledged, "
        f"{sum(row['hits'] for row in rows):,} local hits, {faults} faults, worst staleness "
        f"{worst(rows, 'calm') * 1000:.1f} ms calm, {worst(rows, 'faults') * 1000:.1f} ms with faults"
    )
