"""What one token's session went through: who began it, who ended it, what it was seen to hold.

An operation took effect at some moment of its interval; one that nobody answered, at some moment from
its beginning on, or never.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from verification.history.model import View
from verification.history.recorder import CONFLICT, DONE, UNKNOWN, Row

ENDING: Final = frozenset({"logout", "destroy", "login", "rotate"})
WRITING: Final = frozenset({"write", "login", "rotate"})


@dataclass(frozen=True, slots=True)
class End:
    """Something that ended a session, or may have."""

    row: Row
    certain: bool

    @property
    def latest(self) -> float:
        """By when it had taken effect."""
        return self.row.ended if self.certain else math.inf


@dataclass(slots=True)
class Lineage:
    """One token."""

    token: str
    browser: int = -1
    birth: Row | None = None
    principal: str = ""
    sent: list[Row] = field(default_factory=list)
    """Every operation that sent the token and opened a session with it."""
    ends: list[End] = field(default_factory=list)
    heirs: list[Row] = field(default_factory=list)
    """Logins and rotations that moved the content under another token, this one's or one that it was moved from."""
    root: Row | None = None
    """What began the session, before any rotation."""
    last: View | None = None

    @property
    def dead_at(self) -> float:
        """From when on it must not open any more."""
        return min((end.row.ended for end in self.ends if end.certain), default=math.inf)

    @property
    def may_die_at(self) -> float:
        """Before which it must open."""
        return min((end.row.started for end in self.ends), default=math.inf)

    @property
    def killer(self) -> Row | None:
        """What certainly ended it first."""
        return min((end.row for end in self.ends if end.certain), key=lambda row: row.ended, default=None)


def trace(rows: list[Row], last: dict[str, View]) -> dict[str, Lineage]:
    """Return the lineage of every token that was handed out or sent."""
    lines: dict[str, Lineage] = {}
    for row in rows:
        if row.cookie == "set" and row.new_token:
            line = lines.setdefault(row.new_token, Lineage(row.new_token))
            line.birth, line.browser = row, row.browser
            line.principal = _principal_at_birth(row)
    for row in rows:
        if row.token and row.kind != "revoke-all":
            line = lines.setdefault(row.token, Lineage(row.token, row.browser))
            if row.kind != "revoke":
                line.sent.append(row)
            _note_end(line, row)
    for token, view in last.items():
        lines.setdefault(token, Lineage(token)).last = view
    for line in lines.values():
        line.root = _root(line, lines)
        _note_ends_of_former_tokens(line, lines)
    _note_revocations_of_all(rows, lines)
    return lines


def inherits(row: Row) -> bool:
    """Tell whether a login or rotation took over the content of the session that it opened."""
    before = row.before
    if row.cookie != "set" or before is None or before.outcome != "loaded":
        return False
    if row.kind == "login" and before.principal not in ("", row.account):
        return False
    return row.after is None or row.after.length > 1


def is_optional(row: Row) -> bool:
    """Tell whether nobody knows if the operation was applied."""
    return row.result == UNKNOWN


def is_acknowledged_write(row: Row) -> bool:
    """Tell whether the client was told that its write is stored."""
    return row.kind in WRITING and row.result == DONE


def _principal_at_birth(row: Row) -> str:
    if row.kind == "login":
        return row.account
    if row.kind == "rotate" and row.before is not None and row.before.outcome == "loaded":
        return row.before.principal
    return ""


def _note_end(line: Lineage, row: Row) -> None:
    opened = row.before is not None and row.before.outcome == "loaded"
    if row.kind == "revoke":
        if row.result in (DONE, UNKNOWN):
            line.ends.append(End(row, certain=row.result == DONE))
    elif row.kind in ENDING and opened and row.result in (DONE, UNKNOWN, CONFLICT):
        # a rotation that gave up on a conflict has ended nothing, but for one whose reply was lost
        if row.result != CONFLICT:
            line.ends.append(End(row, certain=row.result == DONE))
        if row.result == DONE and row.after is not None and inherits(row):
            line.heirs.append(row)  # what a request's login took over, its client was not told


def _root(line: Lineage, lines: dict[str, Lineage]) -> Row | None:
    birth = line.birth
    for _ in range(len(lines)):
        if birth is None or birth.kind != "rotate" or not inherits(birth):
            return birth
        parent = lines.get(birth.token)
        birth = parent.birth if parent is not None else None
    return birth


def _chain(line: Lineage, lines: dict[str, Lineage]) -> set[str]:
    chain = {line.token}
    birth = line.birth
    while birth is not None and birth.kind == "rotate" and inherits(birth) and birth.token not in chain:
        chain.add(birth.token)
        parent = lines.get(birth.token)
        birth = parent.birth if parent is not None else None
    return chain


def _note_ends_of_former_tokens(line: Lineage, lines: dict[str, Lineage]) -> None:
    """Note who ended the session by a token that rotations moved it from, before or after they did (SECURITY R40)."""
    for former in _chain(line, lines) - {line.token}:
        for end in [*lines[former].ends] if former in lines else ():
            if end.row.token == former and end.row.kind != "rotate":
                line.ends.append(end)
                if end.row in lines[former].heirs:
                    line.heirs.append(end.row)


def _note_revocations_of_all(rows: list[Row], lines: dict[str, Lineage]) -> None:
    of_principal: dict[str, list[Lineage]] = {}
    for line in lines.values():
        if line.principal:
            of_principal.setdefault(line.principal, []).append(line)
    for row in rows:
        if row.kind != "revoke-all" or row.result not in (DONE, UNKNOWN):
            continue
        for line in of_principal.get(row.account, ()):
            birth, root = line.birth, line.root
            if birth is None or root is None or line.token == row.spared or birth.started > row.ended:
                continue
            # a rotation that overlaps it moves a session that was there before: that one is to end as well
            covered = root.ended < row.started and row.spared not in _chain(line, lines)
            line.ends.append(End(row, certain=covered and row.result == DONE))
