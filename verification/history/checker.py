"""The judge of a history: nothing acknowledged is lost, nothing that was ended comes back, nobody sees another's data.

It believes what clients were told, and nothing else; what nobody was told may have happened or not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from verification.history.lineage import (
    WRITING,
    Lineage,
    is_acknowledged_write,
    trace,
)
from verification.history.model import View, digest_of, name_of
from verification.history.plan import owner_of
from verification.history.recorder import CONFLICT, DONE, ERROR, LOST, UNAVAILABLE, UNKNOWN, Row
from verification.history.verdict import Verdict, Violation


class Checker:
    """Judge one history; with *outages* two revocations of which one lost a reply may both say that they ended it."""

    def __init__(self, rows: list[Row], last: dict[str, View], *, outages: bool = False) -> None:
        self._outages = outages
        self._rows = rows
        self._by_name = {name_of(row.number): row for row in rows}
        self._lines = trace(rows, last)
        self._verdict = Verdict()

    def judge(self) -> Verdict:
        """Return every violation."""
        for row in self._rows:
            self._judge_row(row)
        for line in self._lines.values():
            self._judge_life(line)
            self._judge_order(line)
            self._judge_writes(line)
        return self._verdict

    def _find(self, kind: str, text: str, *rows: Row | None) -> None:
        self._verdict.violations.append(Violation(kind, text, tuple(row for row in rows if row is not None)))

    # -- one operation by itself -----------------------------------------------------------------------------

    def _judge_row(self, row: Row) -> None:
        if row.result == ERROR:
            self._find("error", f"a client met {row.error}", row)
        for view in (row.before, row.after):
            if view is not None:
                self._judge_view(view, row.browser, row)
        silent = row.result in (UNAVAILABLE, UNKNOWN, LOST, CONFLICT) or row.kind in ("read", "revoke", "revoke-all")
        if silent and row.cookie != "keep":
            self._find("cookie", f"the answer says {row.cookie} though it is {row.result}", row)
        moves = row.result == DONE and row.kind in ("login", "rotate") and row.way in ("async", "blocking")
        if moves and (row.cookie != "set" or row.new_token in ("", row.token)):
            self._find("token kept", "a login or rotation was acknowledged without a fresh token", row)

    def _judge_view(self, view: View, browser: int, row: Row | None) -> None:
        self._verdict.checked["looks"] += 1
        if view.owner not in ("", owner_of(browser)):
            self._find("another's data", f"{owner_of(browser)} saw data of {view.owner}", row)
        if view.principal and not view.principal.startswith(f"{owner_of(browser)}/"):
            self._find("another's data", f"{owner_of(browser)} was logged in as {view.principal}", row)
        if view.flaw:
            kind = "applied twice" if view.flaw.startswith("applied twice") else "inconsistent"
            if view.flaw.startswith("the data of account"):
                kind = "another's data"
            self._find(kind, view.flaw, row)
        if view.outcome in ("corrupt", "future", "binding"):
            self._find("mixed up", f"a session opened as {view.outcome}: the store answered with something else", row)
        for entry in view.entries or ():
            writer = self._by_name.get(entry)
            if writer is None or writer.browser != browser:
                self._find("another's data", f"{owner_of(browser)} has the write {entry} of somebody else", row, writer)

    # -- one session through its life --------------------------------------------------------------------------

    def _judge_life(self, line: Lineage) -> None:
        if line.birth is None:
            return  # nobody was told that it was begun
        dead_at, may_die_at, killer = line.dead_at, line.may_die_at, line.killer
        kind = "old token valid" if killer is not None and killer.kind in ("login", "rotate") else "resurrection"
        self._verdict.checked["ended sessions" if killer is not None else "sessions never ended"] += 1
        for row in line.sent:
            if row.before is None or row.before.outcome == "unavailable":
                continue
            if row.before.outcome == "loaded":
                if row.started > dead_at:
                    self._find(kind, f"opened after its end by {_what(killer)}", line.birth, killer, row)
            elif row.ended < may_die_at:
                self._find("lost session", f"opened as {row.before.outcome}, but nobody ended it", line.birth, row)
            if row.result == LOST and row.ended < may_die_at:
                self._find("lost session", "a write was dropped, but nobody ended the session", line.birth, row)
        for end in line.ends:
            if end.row.kind == "revoke" and end.row.answer == 0:
                others = min((one.row.started for one in line.ends if one.row is not end.row), default=math.inf)
                if end.row.ended < others and line.birth.ended < end.row.started:
                    self._find("lost session", "a revocation did not find it, but nobody ended it", line.birth, end.row)
        if line.last is not None:
            self._judge_view(line.last, line.browser, None)
            if line.last.outcome == "loaded" and killer is not None:
                self._find(kind, f"opens at the end of the run, after {_what(killer)}", line.birth, killer)
            if line.last.outcome != "loaded" and not line.ends:
                self._find("lost session", f"at the end {line.last.outcome}, but nobody ended it", line.birth)

    def _judge_order(self, line: Lineage) -> None:
        """Check that all looks agree on one order of writes, and that no look is older than an answer before it."""
        digests: dict[int, tuple[int, Row]] = {}
        events: list[tuple[float, int, int, Row]] = []
        for row in line.sent:
            before = row.before
            if before is None or before.outcome != "loaded":
                continue
            self._agree(digests, before.length, before.digest, row)
            moved = row.cookie == "set"
            known = before.length
            if row.after is not None and not moved and row.result == DONE:
                self._agree(digests, row.after.length, row.after.digest, row)
                known = row.after.length
            events += [(row.started, 1, before.length, row), (row.ended, 0, known, row)]
        if (birth := line.birth) is not None and birth.after is not None:
            self._agree(digests, birth.after.length, birth.after.digest, birth)
            events.append((birth.ended, 0, birth.after.length, birth))
        seen, source = 0, None
        for _, is_start, length, row in sorted(events, key=lambda event: event[:2]):
            if not is_start:
                seen, source = max((seen, source), (length, row), key=lambda one: one[0])
            elif length < seen:
                self._find("stale read", f"{length} writes were seen after {seen} had been acknowledged", source, row)
        for whole in self._whole(line):
            digest = 0
            for length, entry in enumerate(whole, start=1):
                digest = digest_of((entry,), digest)
                told = digests.get(length)
                if told is not None and told[0] != digest:
                    self._find("divergence", f"the first {length} writes are not those seen before", told[1])
                    break

    def _agree(self, digests: dict[int, tuple[int, Row]], length: int, digest: int, row: Row) -> None:
        other = digests.setdefault(length, (digest, row))
        if other[0] != digest:
            self._find("divergence", f"two different logs of {length} writes", other[1], row)

    def _whole(self, line: Lineage) -> Iterator[tuple[str, ...]]:
        """Yield every whole log of the session that somebody saw after it had taken in what came before."""
        if line.last is not None and line.last.entries is not None:
            yield line.last.entries
        if len(line.heirs) == 1:
            after = line.heirs[0].after
            if after is not None and after.entries is not None:
                yield after.entries

    # -- what was written ------------------------------------------------------------------------------------

    def _judge_writes(self, line: Lineage) -> None:
        writes = [row for row in self._of(line) if is_acknowledged_write(row)]
        positions: dict[int, Row] = {}
        for row in writes:
            if row.after is None:
                continue
            other = positions.setdefault(row.after.length, row)
            if other is not row:
                self._find("lost update", f"two writes were acknowledged as number {row.after.length}", other, row)
        self._judge_heirs(line)
        if line.last is not None and line.last.entries is not None:
            self._require(line, writes, line.last.entries, "the last look", None)
            self._refuse(line, line.last.entries)
        taken = [heir.after.entries for heir in line.heirs if heir.after is not None and heir.after.entries is not None]
        if taken:
            self._require(
                line, writes, tuple(entry for entries in taken for entry in entries), "its heir", line.heirs[0]
            )
            for entries in taken:
                self._refuse(line, entries)
        elif line.ends and not line.heirs and all(_should_inherit(end.row) for end in line.ends) and writes:
            self._find(
                "lost update", "the session was moved, but nobody took over its content", *(e.row for e in line.ends)
            )

    def _judge_heirs(self, line: Lineage) -> None:
        ended = [end.row for end in line.ends if end.row.kind == "revoke" and end.row.answer == 1]
        logins = [heir for heir in line.heirs if heir.kind == "login"]
        # a login takes over what a rotation has just moved to another token, and a revocation ends it there
        if len(logins) > 1 or len(line.heirs) - len(logins) > 1:
            self._find("forked", "two logins or rotations took over the same session", *line.heirs)
        if logins and ended:
            self._find("ended twice", "a revocation says that it ended what a login took over", *logins, *ended)
        if len(ended) > 1 and not self._outages:
            self._find("ended twice", "two revocations say that they ended the same session", *ended)

    def _of(self, line: Lineage) -> Iterator[Row]:
        if line.birth is not None:
            yield line.birth
        for row in line.sent:
            if row.cookie != "set" and row.before is not None and row.before.outcome == "loaded":
                yield row

    def _require(
        self, line: Lineage, writes: list[Row], entries: tuple[str, ...], where: str, heir: Row | None
    ) -> None:
        present = set(entries)
        for row in writes:
            self._verdict.checked["acknowledged writes"] += 1
            # a middleware answers 200 also when the session was ended while the handler ran, and drops the change
            excused = row.after is None and row is not line.birth and row.ended > line.may_die_at
            if name_of(row.number) not in present and not excused and row is not heir:
                self._find(
                    "lost update", f"the acknowledged write {name_of(row.number)} is missing in {where}", row, heir
                )

    def _refuse(self, line: Lineage, entries: tuple[str, ...]) -> None:
        for entry in entries:
            row = self._by_name.get(entry)
            if row is not None and (row.result not in (DONE, UNKNOWN, LOST) or row.kind not in WRITING):
                self._find("refused, but stored", f"the write {entry} was answered with {row.result}", row, line.birth)


def _should_inherit(row: Row) -> bool:
    """Tell whether what this login or rotation opened was to live on under its new token."""
    if row.kind not in ("login", "rotate") or row.result != DONE or row.after is None or row.before is None:
        return False
    return row.kind == "rotate" or row.before.principal in ("", row.account)


def _what(row: Row | None) -> str:
    return "nobody" if row is None else f"the {row.kind} {name_of(row.number)}"
