"""Where results are kept: text for people, JSON for programs, both headed by what they were measured with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
FIGURES = ROOT / "docs" / "figures"


def save_text(name: str, head: Sequence[str], body: str) -> None:
    """Write results/NAME.txt."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.txt").write_text("\n".join(head) + "\n\n" + body.strip("\n") + "\n", encoding="utf-8")


def save_json(name: str, head: Sequence[str], values: dict[str, Any]) -> None:
    """Write results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    told = {"measured_with": list(head), **values}
    (RESULTS / f"{name}.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def save_figure(name: str, svg: str) -> None:
    """Write docs/figures/NAME.svg."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    (FIGURES / f"{name}.svg").write_text(svg, encoding="utf-8")
