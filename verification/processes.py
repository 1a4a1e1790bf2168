"""Processes that begin afresh, each with nothing of the one that starts it but what it is handed."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext
from typing import Final

NEEDED: Final = ("sojourn_store_redis", "sojourn_store_sql", "verification.caches.node", "verification.history.worker")
"""What they work with: to import it takes most of a second of the processor, and there are up to four of them at once."""


def afresh() -> ForkServerContext:
    """Return where they come from: one process that has imported what they need, and has done nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(NEEDED))
    return context
