"""What the clients keep in their sessions, and what they note when they look into one.

Every write counts one up, appends its own name and sets one field, so that any look tells what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Annotated, Final
from zlib import crc32

import msgspec

from sojourn import Merge, Session
from sojourn.session.transitions import LoadOutcome

FIELDS: Final = ("first", "second", "third")
"""The plain fields: a write sets the one that the rest of its number by four names; with rest three it sets none."""


@dataclass
class Basket:
    """The application's model."""

    owner: str = ""
    account: str = ""
    count: Annotated[int, Merge.counter] = 0
    log: Annotated[list[str], Merge.append] = field(default_factory=list)
    first: str = ""
    second: str = ""
    third: str = ""
    ballast: str = ""
    """What makes the session large, behind its own checksum."""


class View(msgspec.Struct, frozen=True, array_like=True):
    """What one look into a session showed."""

    outcome: str
    state: str
    owner: str
    account: str
    principal: str
    length: int
    """How many writes the session has seen."""
    digest: int
    """Of all of their names, in order."""
    flaw: str
    """What does not fit together inside this one look; empty when all does."""
    entries: tuple[str, ...] | None = None


def look(session: Session[Basket], *, whole: bool = False) -> View:
    """Return what the session shows; with *whole* the names of all writes too."""
    data = session.data
    return View(
        outcome=session.outcome.value,
        state=session.state.value,
        owner=data.owner,
        account=data.account,
        principal=session.principal or "",
        length=len(data.log),
        digest=digest_of(data.log),
        flaw=_flaw(data, session.principal or ""),
        entries=tuple(data.log) if whole and session.outcome is LoadOutcome.LOADED else None,
    )


def digest_of(entries: list[str] | tuple[str, ...], before: int = 0) -> int:
    """Return the digest of a log; that of a longer one goes on from that of its beginning."""
    return crc32("".join([f"{entry}," for entry in entries]).encode(), before)


def name_of(number: int) -> str:
    """Return the name under which the operation of that number writes."""
    return format(number, "x")


def ballast_of(number: int, size: int) -> str:
    """Return some *size* characters that do not compress, behind their checksum; the same for the same number."""
    body = Random(number).randbytes(size // 2).hex()
    return f"{crc32(body.encode())}:{body}"


def write(basket: Basket, number: int, owner: str, weight: int = 0) -> None:
    """Do to the data what every writing operation does; with *weight* make it as large, in bytes."""
    name = name_of(number)
    basket.owner = owner
    basket.count += 1
    basket.log.append(name)
    if weight:
        basket.ballast = ballast_of(number, weight)
    if number % 4 < len(FIELDS):
        setattr(basket, FIELDS[number % 4], name)


def _flaw(data: Basket, principal: str) -> str:
    log = data.log
    if data.count != len(log):
        return f"the counter says {data.count}, but {len(log)} writes are in the log"
    if len(set(log)) != len(log):
        twice = sorted({name for name in log if log.count(name) > 1})
        return f"applied twice: {', '.join(twice)}"
    told, _, body = data.ballast.partition(":")
    if data.ballast and told != str(crc32(body.encode())):
        return f"{len(body)} characters of ballast do not have the checksum {told}"
    if data.account not in ("", principal):
        return f"the data of account {data.account!r} under the principal {principal!r}"
    wanted: dict[str, str] = {}
    for name in reversed(log):
        rest = int(name, 16) % 4
        if rest < len(FIELDS):
            wanted.setdefault(FIELDS[rest], name)
            if len(wanted) == len(FIELDS):
                break
    for each in FIELDS:
        if getattr(data, each) != wanted.get(each, ""):
            return f"the field {each} holds {getattr(data, each)!r}, but {wanted.get(each, '')!r} wrote it last"
    return ""
