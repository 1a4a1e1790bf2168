"""What the applications of all frameworks keep, and where: in one Redis, whichever of them a visitor asks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from sojourn import Merge, Session, SessionManager


@dataclass
class Visitor:
    name: str = ""
    added: Annotated[set[int], Merge.union] = field(default_factory=set)
    count: Annotated[int, Merge.counter] = 0


def connected() -> SessionManager[Visitor]:
    """Return a manager that has a connection: servers that load the application before they fork hand it on."""
    sessions = SessionManager.from_env(Visitor)
    sessions.blocking.list("nobody")
    return sessions


def shown(session: Session[Visitor]) -> dict[str, object]:
    """Return what a page shows of a session."""
    return {"principal": session.principal, "name": session.data.name, "added": sorted(session.data.added)}
