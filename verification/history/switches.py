"""Every change of master that sentinels make, the ones that nobody planned included: a busy machine makes some.

A change begins with the first doubt of any sentinel and ends when the last of them names the new master.
"""

from __future__ import annotations

import time
from contextlib import suppress
from threading import Event, Thread
from typing import Any, Final, Self

import redis

from tests.servers import SentinelSetup
from verification.history.faults import Done

_DOUBT: Final = ("+sdown", "+odown", "+try-failover")
_SWITCH: Final = "+switch-master"
_WORDS_FOR_MASTER: Final = "master"
_TOGETHER: Final = 10.0
"""Seconds for which a doubt may precede its change."""
_APART: Final = 2.0
"""Seconds that two changes are apart at least."""


class Switches:
    """Listen to every sentinel while the context is entered."""

    def __init__(self, setup: SentinelSetup) -> None:
        self._setup = setup
        self._over = Event()
        self._heard: list[tuple[float, bool]] = []
        self._threads = [Thread(target=self._listen, args=(each,), daemon=True) for each in setup.sentinels]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    @property
    def done(self) -> list[Done]:
        """Return the changes so far."""
        return joined(self._heard)

    def unplanned(self, planned: list[Done]) -> list[Done]:
        """Return those that began outside of every planned fault."""
        return [one for one in self.done if not any(each.began <= one.began <= each.ended for each in planned)]

    def _listen(self, sentinel: Any) -> None:
        while not self._over.is_set():
            with suppress(redis.RedisError, OSError), sentinel.client() as client:
                words = client.pubsub(ignore_subscribe_messages=True)
                words.subscribe(*_DOUBT, _SWITCH)
                while not self._over.is_set():
                    message = words.get_message(timeout=0.2)
                    if message is not None:
                        self._note(message["channel"].decode(), message["data"].decode())

    def _note(self, channel: str, text: str) -> None:
        if channel == _SWITCH:
            self._heard.append((time.monotonic(), True))
        elif text.split(" ", 1)[0] == _WORDS_FOR_MASTER:
            self._heard.append((time.monotonic(), False))


def joined(heard: list[tuple[float, bool]]) -> list[Done]:
    """Return the changes that doubts (False) and switches (True) at their moments tell of."""
    changes: list[Done] = []
    for moment in sorted(at for at, is_switch in heard if is_switch):
        began = min(
            (at for at, is_switch in heard if not is_switch and moment - _TOGETHER <= at <= moment), default=moment
        )
        if changes and began <= changes[-1].ended + _APART:
            changes[-1].ended = moment
        else:
            changes.append(Done("change of master", began, moment))
    return changes
