"""A model that cannot be kept is refused when the manager is built, and content that no longer fits is migrated once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from sojourn.errors import ConfigurationError
from sojourn.session.transitions import LoadOutcome
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock
from tests.core.models import make_manager


@dataclass
class Needy:
    name: str


@dataclass
class Live:
    connection: Any = field(default_factory=object)


@dataclass
class Forgetful:
    pair: Any = b"kept as text"


@dataclass
class Old:
    name: str = ""


@dataclass
class New:
    name: list[str] = field(default_factory=list)


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        (Needy, r"cannot make a new Needy: .*'name'; give every field a default, or pass new="),
        (Live, "a new Live does not survive the serializer"),
        (
            Forgetful,
            "field pair of Forgetful, declared as Any, holds a bytes that json brings back as a str; .*=msgpack",
        ),
    ],
)
def test_a_model_that_does_not_survive_is_refused_by_name(model: type[Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        make_manager(model=model)


def test_a_model_without_defaults_is_taken_with_a_way_to_make_one() -> None:
    session = make_manager(model=Needy, new=lambda: Needy("nobody")).blocking.open(None)
    assert session.data == Needy("nobody")


def reopen(migrate: Any) -> Any:
    """Store an old session, and open it with a model that has changed."""
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    before = make_manager(store, clock=clock, model=Old).blocking
    session = before.open(None)
    session.data.name = "ada"
    token = before.commit(session).token
    return make_manager(store, clock=clock, model=New, migrate=migrate).blocking.open(token)


def test_content_that_no_longer_fits_is_migrated() -> None:
    session = reopen(lambda fields: {**fields, "name": [fields["name"]]})
    assert (session.outcome, session.data) == (LoadOutcome.LOADED, New(["ada"]))


def fails(fields: dict[str, Any]) -> dict[str, Any]:
    raise KeyError("surname")


def test_content_of_another_serializer_is_nothing_to_migrate() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    before = make_manager(store, clock=clock, model=Old, serializer="msgpack").blocking
    session = before.open(None)
    session.data.name = "ada"
    token = before.commit(session).token
    after = make_manager(store, clock=clock, model=New, serializer="json", migrate=lambda fields: fields).blocking
    assert after.open(token).outcome is LoadOutcome.CORRUPT


@dataclass(frozen=True)
class Frozen:
    count: int = 0


def test_a_frozen_model_is_changed_by_assigning_another() -> None:
    sessions = make_manager(model=Frozen).blocking
    token: str | None = None
    for count in range(3):
        session = sessions.open(token)
        assert session.data == Frozen(count)
        session.data = Frozen(count + 1)
        token = sessions.commit(session).token or token
    assert sessions.open(token).data == Frozen(3)


@pytest.mark.parametrize("migrate", [None, fails, lambda fields: {"name": 7}], ids=["none", "raises", "misfits"])
def test_content_that_cannot_be_migrated_is_no_session(migrate: Any) -> None:
    session = reopen(migrate)
    assert (session.outcome, session.data) == (LoadOutcome.CORRUPT, New())


def test_a_struct_is_a_model_as_well() -> None:
    class Basket(msgspec.Struct):
        books: list[str] = []

    session = make_manager(model=Basket).blocking.open(None)
    assert session.data.books == []
