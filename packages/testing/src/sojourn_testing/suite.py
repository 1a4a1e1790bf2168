"""The published contracts of a store and of a client-side store, as pytest classes to subclass.

    class TestMyStore(StoreSuite):
        def make_store(self, clock):
            return MyStore(clock=clock)

A failure names the rule of docs/stores.md that is broken. This module and `machine` need hypothesis, the others do not.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sojourn import ClientSideStore, Clock, Record
from sojourn_testing.bench import Driver
from sojourn_testing.capabilities import CapabilityRules
from sojourn_testing.contract import DeadlineRules, WriteRules
from sojourn_testing.fakes import FakeClock, make_id, make_label, make_record, make_write_id
from sojourn_testing.machine import run_machine
from sojourn_testing.model import violated
from sojourn_testing.races import RaceRules

T = TypeVar("T")


class StoreSuite(WriteRules, DeadlineRules, CapabilityRules, RaceRules):
    """The rules S1 to S26 as tests of a store; ``make_store`` is all that a subclass needs."""

    machine_settings: settings | None = None
    """Settings of the state machine; None: the profile's, or few and short examples where time really passes."""

    def test_any_calls_in_any_order_agree_with_the_model(self) -> None:
        """The state machine makes any calls, repeated writes, faults and waits, in any order."""
        chosen = self.machine_settings
        if chosen is None:
            chosen = settings(max_examples=15, stateful_step_count=12) if self.real_time else settings()
        with Driver() as driver:
            run_machine(lambda: self.bench(driver), self.tick, chosen)


_COOKIE_CHARACTERS = frozenset(map(chr, range(0x21, 0x7F))) - frozenset('",;\\')

_RECORDS = st.builds(
    Record,
    id=st.integers(0, 99).map(make_id),
    version=st.integers(1, 2**40),
    payload=st.binary(max_size=600),
    idle_deadline=st.integers(0, 4_000).map(lambda quarter: 1_900_000_000 + quarter / 4),
    absolute_deadline=st.integers(4_000, 8_000).map(lambda quarter: 1_900_000_000 + quarter / 4),
    index_label=st.none() | st.integers(0, 99).map(make_label),
)


class _Asked:
    """A store, and the way to run its coroutines."""

    def __init__(self, store: ClientSideStore, driver: Driver) -> None:
        self.store = store
        self._driver = driver

    def run(self, awaitable: Awaitable[T]) -> T:
        return self._driver.run(awaitable, self.store.io)

    def create(self, record: Record) -> str:
        return self.run(self.store.create(record, write_id=make_write_id()))

    def load(self, token: str) -> Record | None:
        return self.run(self.store.load(token))


class ClientSideStoreSuite:
    """The rules C1 to C5 as tests of a client-side store; ``make_store`` is all that a subclass needs."""

    tolerance: float = 0.001
    """How much of a deadline the token may lose, in seconds."""
    overhead: int = 240
    """How many characters a token may be longer than its payload in base64url."""

    def make_store(self, clock: Clock) -> ClientSideStore | Awaitable[ClientSideStore]:
        """Return a store, or a coroutine that does."""
        del clock
        raise TypeError(f"{type(self).__name__} must define make_store(self, clock) and return a store from it")

    @contextmanager
    def _asked(self) -> Generator[_Asked]:
        with Driver() as driver:
            made = self.make_store(FakeClock())
            store = driver.run(made) if inspect.isawaitable(made) else made
            yield _Asked(store, driver)

    def test_s24_the_store_says_that_it_is_client_side(self) -> None:
        """``client_side`` is true."""
        with self._asked() as asked:
            if not getattr(asked.store, "client_side", False):
                violated("S24", "client_side is not True")

    def test_c1_a_token_carries_the_whole_record(self) -> None:
        """Whatever create, replace and touch return leads back to the record."""
        with self._asked() as asked:

            @settings(deadline=None, report_multiple_bugs=False)
            @given(_RECORDS)
            def round_trip(record: Record) -> None:
                later = replace(record, version=record.version + 1, payload=record.payload[::-1])
                moved = replace(later, idle_deadline=record.idle_deadline + 0.25)
                self._expect(asked, record, asked.create(record), "create")
                token = asked.run(asked.store.replace(later, expected=record.version, write_id=make_write_id(2)))
                self._expect(asked, later, token, "replace")
                self._expect(asked, moved, asked.run(asked.store.touch(moved)), "touch")

            round_trip()

    def _expect(self, asked: _Asked, record: Record, token: str, method: str) -> None:
        found = asked.load(token)
        if found is None:
            violated("C1", f"the token that {method} returned gives None")
        if found.index_label not in (None, record.index_label):
            violated("C1", f"{method} was given another label than what came back; None would do")
        for name in ("id", "version", "payload"):
            if getattr(found, name) != getattr(record, name):
                violated("C1", f"{name} of what {method} was given did not come back")
        for name in ("idle_deadline", "absolute_deadline"):
            if abs(getattr(found, name) - getattr(record, name)) > self.tolerance:
                violated("C1", f"{name} came back as {getattr(found, name)!r} from {method}")

    def test_c2_junk_gives_none(self) -> None:
        """Whatever a browser sends, nothing raises; what no cookie can hold gives None."""
        with self._asked() as asked:
            good = asked.create(make_record())

            @settings(deadline=None, report_multiple_bugs=False)
            @given(st.text() | st.from_regex(r"[A-Za-z0-9_.~=-]{0,200}", fullmatch=True))
            @example("")
            @example("." * 5_000)
            @example("\0")
            @example("é")
            @example("A" * 43)
            def junk(text: str) -> None:
                if self._load(asked, text) is not None and not _COOKIE_CHARACTERS.issuperset(text or "\0"):
                    violated("C2", f"{text[:20]!r} is taken for a token")

            junk()

            @settings(deadline=None, report_multiple_bugs=False)
            @given(st.integers(0, len(good) - 1), st.characters(), st.sampled_from(["cut", "put", "set"]))
            def bent(at: int, character: str, how: str) -> None:
                rest = {"cut": good[at + 1 :][:0], "put": character + good[at:], "set": character + good[at + 1 :]}[how]
                self._load(asked, good[:at] + rest)

            bent()

    @staticmethod
    def _load(asked: _Asked, text: str) -> Record | None:
        try:
            return asked.load(text)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not be raised
            violated("C2", f"load raised {type(error).__name__} for {text[:20]!r}")

    def test_c3_equal_records_give_equal_tokens(self) -> None:
        """Two stores, two calls, two write ids: one token."""
        with self._asked() as one, self._asked() as two:
            first = one.create(make_record())
            if first != one.create(make_record()) or first != two.create(make_record()):
                violated("C3", "the same record gave two different tokens")
            if first == one.create(make_record(payload=b"other")):
                violated("C1", "two different records gave the same token")

    def test_c4_a_token_fits_into_a_cookie(self) -> None:
        """No space, comma, semicolon, quote, backslash or control character (RFC 6265)."""
        with self._asked() as asked:
            for payload in (b"", bytes(range(256)), b'; , " \\ \r\n'):
                wrong = set(asked.create(make_record(payload=payload, index_label=make_label()))) - _COOKIE_CHARACTERS
                if wrong:
                    violated("C4", f"a token holds {sorted(wrong)!r}")

    def test_c5_a_token_is_hardly_longer_than_its_payload(self) -> None:
        """Packing costs a constant, not a share."""
        with self._asked() as asked:
            for size in (0, 100, 1_000, 2_000):
                length = len(asked.create(make_record(payload=b"x" * size, index_label=make_label())))
                if length > size * 4 / 3 + self.overhead:
                    violated("C5", f"a payload of {size} bytes gives a token of {length} characters")

    def test_s22_aclose_may_be_called_twice(self) -> None:
        """Closing a store again does nothing."""
        with self._asked() as asked:
            asked.run(asked.store.aclose())
            try:
                asked.run(asked.store.aclose())
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not be raised
                violated("S22", f"the second aclose raised {type(error).__name__}")
