"""The models and the short way to a manager that the tests of the core share."""

from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, TypeVar

from sojourn import Merge, SessionManager
from sojourn.serializers import JsonSerializer
from sojourn.settings import SessionSettings
from sojourn.stores import ClientSideStore, Store
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock

T = TypeVar("T")


@dataclass
class Visit:
    """What most tests keep in a session."""

    user_id: int | None = None
    count: Annotated[int, Merge.counter] = 0
    note: str = ""
    cart: list[str] = field(default_factory=list)
    log: Annotated[list[str], Merge.append] = field(default_factory=list)
    tags: Annotated[set[str], Merge.union] = field(default_factory=set)


@cache
def _serializer() -> JsonSerializer[Visit]:
    """Return one for all managers: to look through the model takes longer than most of what is tested."""
    return JsonSerializer(Visit)


def make_manager(
    store: Store | ClientSideStore | None = None,
    *,
    clock: FakeClock | None = None,
    model: type[Any] = Visit,
    settings: dict[str, Any] | None = None,
    **parts: Any,
) -> SessionManager[Any]:
    """Return a manager with the testing preset and an injected clock."""
    clock = clock or FakeClock()
    values: dict[str, Any] = {"preset": "testing", "idle_timeout": "1h", "absolute_timeout": "24h", **(settings or {})}
    if model is Visit and "serializer" not in values:
        parts.setdefault("serializer", _serializer())
    return SessionManager(
        model,
        store if store is not None else MemoryStore(clock=clock),
        settings=SessionSettings(_env_file=None, **values),
        clock=clock,
        **parts,
    )
