"""Whether a contender did what it was timed at.

The one rule: a figure for work that was not done is an error, never a line in a table.
"""

from __future__ import annotations

from benchmarks.suite.contract import Contender, Kind, Scenario
from benchmarks.suite.payload import FIRST_VISITS, USER_ID, Witness


class NotDoneError(AssertionError):
    """The work was not done; the message says by whom and how much was missing."""


MOST_MISSED = 0.02
"""The share of reads that a local cache may miss, for a lease may lapse on a busy machine."""


def check_hits(contender: Contender, count: int, hits: float) -> None:
    """See that reads were served by the local cache."""
    if hits < count * (1 - MOST_MISSED):
        raise NotDoneError(f"{contender.name}: {hits:.0f} of {count} reads were local hits")


def check(
    contender: Contender, scenario: Scenario, count: int, before: Witness, after: Witness, set_cookies: list[str]
) -> None:
    """Compare what the handlers saw and the client got with *count* requests."""

    def expect(found: object, wanted: object, what: str) -> None:
        if found != wanted:
            raise NotDoneError(f"{contender.name}, {scenario.name}: {what}: {found} instead of {wanted}")

    if scenario.name == "read":
        expect(after.users - before.users, USER_ID * count, "sum of the user ids read")
    if scenario.writes:
        # one more request has counted once more, to tell what was stored
        expect(after.visits - 1 - FIRST_VISITS, count, "the counter moved by")
    if scenario.name in {"create", "rotate"}:
        expect(len(set_cookies), count, "cookies handed out")
        if contender.kind is Kind.OURS or contender.store != "cookie":  # what is merely signed comes out the same
            expect(len(set(set_cookies)), count, "different cookies handed out")
    if scenario.name in {"anon", "untouched", "read"} and contender.kind is Kind.OURS:
        expect(len(set_cookies), 0, "cookies set although nothing changed")
