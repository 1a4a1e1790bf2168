"""A fleet whose settings change node by node logs nobody out; and a change that leaves a step out is found."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.servers import RedisServer
from verification import rolling

SMALL: dict[str, Any] = {"seed": 1, "visitors": 20, "requests": 60}


@pytest.mark.server
@pytest.mark.parametrize(("what", "then"), [("store", "second step"), ("keys", "the new one seals")])
def test_f31_nobody_is_logged_out_while_nodes_change_one_by_one(what: str, then: str) -> None:
    fleet = rolling.prove(what, **SMALL)
    assert fleet.problems == []
    assert fleet.done[then] >= 20
    assert fleet.counts["requests"] >= 720
    assert min(fleet.counts[name] for name in ("writes", "reads", "logouts", "looks at ended sessions")) > 0


@pytest.mark.server
@pytest.mark.parametrize("left_out", ["first step", "second step"])
def test_a_step_that_is_left_out_logs_somebody_out(left_out: str, redis_server: RedisServer) -> None:
    redis_server.start_if_stopped()
    old, new = f"{redis_server.url}1", f"{redis_server.url}2"
    stages = [stage for stage in rolling.change_store(old, new) if stage.name != left_out]
    fleet = rolling.Fleet(stages, **SMALL)
    asyncio.run(fleet.play())
    assert any("was logged out" in problem for problem in fleet.problems)
    redis_server.flush()
