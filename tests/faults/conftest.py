"""Sites over asyncio and over threads, for every test of what a fault does to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sojourn.testing import FakeClock
from tests.faults.sites import Site


@pytest.fixture(params=["asyncio", "blocking"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_site(kind: str) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(url: str, *, timeout: str = "2s", clock: FakeClock | None = None, **settings: Any) -> Site:
        made.append(Site(kind, url, timeout=timeout, clock=clock, settings=settings))
        return made[-1]

    yield make
    for site in made:
        site.close()
