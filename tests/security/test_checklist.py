"""The checklist over real HTTP, under both interfaces and in the shop, with both strict presets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.security.checklist import PRESETS, SERVERS, Point, points_of, serving
from tests.security.visitors import Target

pytestmark = pytest.mark.server

PLACES = [(server, preset) for server in SERVERS for preset in PRESETS]
ASKED = [(place, point) for place in PLACES for point in points_of(place[0])]


@pytest.fixture(scope="module")
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    server, preset = request.param
    with serving(server, preset) as target:
        yield target


@pytest.mark.parametrize(
    ("target", "point"),
    ASKED,
    indirect=["target"],
    ids=[f"{server}-{preset}-{point.__name__}" for (server, preset), point in ASKED],
)
def test_the_checklist_holds(target: Target, point: Point) -> None:
    assert point(target), point.__doc__
