"""How many functions of the package a call of the store takes: each costs every request, and none may come unseen."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import sojourn_store_redis
from sojourn.testing import make_label, make_record, make_write_id
from sojourn_store_redis import RedisStore
from tests.servers import RedisServer

FOLDER = str(Path(sojourn_store_redis.__file__).parent)


async def _functions(call: Awaitable[Any]) -> list[str]:
    """Return the names of the functions of the package that are entered during *call*, in order."""
    frames: list[FrameType] = []  # kept, so that none is taken for another one that is at its place in memory

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(FOLDER) and frame not in frames:
            frames.append(frame)

    sys.setprofile(note)
    try:
        await call
    finally:
        sys.setprofile(None)
    return [frame.f_code.co_qualname for frame in frames]


async def _counts(url: str) -> tuple[list[str], list[str]]:
    store = RedisStore.from_url(url)
    record = make_record(now=time.time(), index_label=make_label())
    await store.create(record, write_id=make_write_id(1))
    # from now on the server knows the script
    await store.replace(replace(record, version=2), expected=1, write_id=make_write_id(2))
    load = await _functions(store.load(record.id))
    write = await _functions(store.replace(replace(record, version=3), expected=2, write_id=make_write_id(3)))
    await store.aclose()
    return load, write


def test_a_load_and_a_write_take_few_calls(clean_redis: RedisServer) -> None:
    load, write = asyncio.run(_counts(clean_redis.url))
    assert len(load) <= 9, load
    assert len(write) <= 11, write
