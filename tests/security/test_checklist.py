"""The checklist over real HTTP, under both interfaces and both strict presets."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.security.checklist import POINTS, PRESETS, SERVERS, Target, serving


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=PRESETS)
def target(request: pytest.FixtureRequest, server: str) -> Iterator[Target]:
    with serving(server, str(request.param)) as target:
        yield target


@pytest.mark.parametrize("point", POINTS, ids=lambda point: str(point.__name__))
def test_the_checklist_holds(target: Target, point: Callable[[Target], bool]) -> None:
    assert point(target), point.__doc__
