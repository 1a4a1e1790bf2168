"""Records from before a change of settings: what another serializer wrote, and what was not sealed yet (SECURITY R55)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import LoadOutcome, MemoryStore, new_secret
from sojourn.crypto import token_id
from sojourn.errors import ConfigurationError, SessionReadOnlyError
from sojourn.plugins import PluginLoader
from sojourn.serializers import JsonSerializer, builtin_serializer
from sojourn.stores import ClientSideStore
from sojourn.testing import FakeClock, RecordingMetrics, RecordingObserver
from sojourn_store_cookie import CookieStore
from tests.core.models import Visit, make_manager
from tests.security.houses import begin, outcome

BUILT_IN = ("json", "msgpack", "pydantic")


@dataclass
class Basket:
    """Data of every kind that the built-in serializers keep."""

    name: str = ""
    count: int = 0
    ratio: float = 0.0
    seen: datetime | None = None
    raw: bytes = b""
    tags: set[str] = field(default_factory=set)
    inner: list[dict[str, int]] = field(default_factory=list)


@dataclass
class Newer(Basket):
    """The same of a later release."""

    theme: str = "light"


baskets = st.builds(
    Basket,
    name=st.text(max_size=5),
    count=st.integers(-(2**31), 2**31),
    ratio=st.floats(allow_nan=False, allow_infinity=False),
    seen=st.none() | st.datetimes(timezones=st.just(UTC)),
    raw=st.text("abc", max_size=3).map(str.encode),
    tags=st.sets(st.text(max_size=3), max_size=3),
    inner=st.lists(st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=2), max_size=2),
)


class Fleet:
    """Nodes with settings of their own over one store."""

    def __init__(self, *, client_side: bool = False) -> None:
        self.clock, self.secret, self.observer = FakeClock(), new_secret(), RecordingObserver()
        self.store: Any = CookieStore() if client_side else MemoryStore(clock=self.clock)

    def node(self, *, model: type[Any] = Basket, parts: dict[str, Any] | None = None, **settings: Any) -> Any:
        name = settings.pop("serializer", "json")
        values = {"secret": self.secret, "encrypt": True, **settings}
        given_ = {"observers": [self.observer], "serializer": name, **(parts or {})}
        return make_manager(self.store, clock=self.clock, model=model, settings=values, **given_).blocking


@given(basket=baskets, before=st.sampled_from(BUILT_IN), after=st.sampled_from(BUILT_IN), client_side=st.booleans())
def test_r55_what_one_built_in_serializer_wrote_every_other_one_opens(
    basket: Basket, before: str, after: str, client_side: bool
) -> None:
    fleet = Fleet(client_side=client_side)
    old, new = fleet.node(serializer=before), fleet.node(serializer=after)
    session = old.open(None)
    session.data = basket
    session["extra"] = 1
    token = old.commit(session).token
    session = new.open(token)
    assert session.data == basket
    assert new.commit(session).action.value == "keep", "to look writes nothing"
    session = new.open(token)
    session.data.count += 1
    token = new.commit(session).token or token
    session = old.open(token)
    assert session.data == Basket(**{**vars(basket), "count": basket.count + 1})
    assert session["extra"] == 1


@pytest.mark.parametrize(("before", "after"), [("json", "msgpack"), ("msgpack", "json"), ("pydantic", "msgpack")])
def test_r55_fields_of_a_newer_node_are_carried_through_another_serializer(before: str, after: str) -> None:
    fleet = Fleet()
    newer = fleet.node(model=Newer, serializer=before)
    session = newer.open(None)
    session.data.theme = "dark"
    session.data.seen = datetime(2026, 1, 2, tzinfo=UTC)
    token = newer.commit(session).token
    older = fleet.node(serializer=after)
    session = older.open(token)
    session.data.count += 1
    older.commit(session)
    data = newer.open(token).data
    assert (data.theme, data.count, data.seen) == ("dark", 1, datetime(2026, 1, 2, tzinfo=UTC))


def test_r55_requests_of_nodes_with_other_serializers_merge() -> None:
    fleet = Fleet()
    old, new = fleet.node(model=Visit), fleet.node(model=Visit, serializer="msgpack")
    token = begin(old)
    first, second = old.open(token), new.open(token)
    for session in (first, second):
        session.data.count += 1
    first.data.tags.add("x")
    second.data.tags.add("y")
    old.commit(first)
    new.commit(second)
    assert vars(old.open(token).data) == vars(new.open(token).data)
    assert (old.open(token).data.count, old.open(token).data.tags) == (2, {"x", "y"})


def test_r55_migrate_is_given_the_fields_that_another_model_wrote_by_whatever_serializer() -> None:
    @dataclass
    class Renamed:
        title: str = ""

    def migrate(fields: dict[str, object]) -> dict[str, object]:
        return {"title": fields["name"]} if "name" in fields else fields

    fleet = Fleet()
    old = fleet.node(serializer="msgpack")
    session = old.open(None)
    session.data.name = "a name"
    token = old.commit(session).token
    node = fleet.node(model=Renamed, parts={"migrate": migrate})
    assert node.open(token).data.title == "a name"


class Marked:
    """A serializer of a plugin."""

    name = "marked"

    def __init__(self, model: type[Any]) -> None:
        self._inner: JsonSerializer[Any] = JsonSerializer(model)
        self.known = self._inner.known

    def encode(self, data: Any) -> bytes:
        return b"!" + self._inner.encode(data)

    def decode(self, payload: bytes) -> Any:
        return self._inner.decode(payload[1:])

    def encode_fields(self, fields: Mapping[str, object]) -> bytes:
        return b"!" + self._inner.encode_fields(fields)

    def decode_fields(self, payload: bytes) -> dict[str, object]:
        return self._inner.decode_fields(payload[1:])


def test_r55_what_a_plugin_s_serializer_wrote_is_opened_where_the_settings_name_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(PluginLoader, "serializer", lambda _self, name: {"marked": Marked}[name])
    fleet = Fleet()
    writer = fleet.node(parts={"serializer": Marked(Basket)})
    session = writer.open(None)
    session.data.name = "by a plugin"
    token = writer.commit(session).token
    unready, ready = fleet.node(), fleet.node(read_serializers="marked")
    session = unready.open(token)
    assert (session.outcome, session.principal) == (LoadOutcome.FUTURE, None)
    with pytest.raises(SessionReadOnlyError):
        session["a"] = 1
    assert ready.open(token).data.name == "by a plugin"
    assert writer.open(token).data.name == "by a plugin", "nobody has overwritten it"


@pytest.mark.parametrize(("settings", "seconds"), [({}, 1800), ({"idle_timeout": "10m"}, 1)], ids=["touch", "shorter"])
def test_r55_a_cookie_that_another_serializer_makes_too_long_is_left_as_it_is(
    settings: dict[str, Any], seconds: int
) -> None:
    fleet = Fleet(client_side=True)
    old = fleet.node(serializer="msgpack")
    session = old.open(None)
    session.data.raw = b"\xfe" * 2500
    token = old.commit(session).token
    fleet.clock.advance(seconds)
    node = fleet.node(**settings)
    session = node.open(token)
    session._state.accessed = True
    assert session.data.raw == b"\xfe" * 2500
    assert node.commit(session).action.value == "keep"


def test_r55_a_value_that_the_own_serializer_cannot_keep_is_left_alone() -> None:
    fleet = Fleet()
    old = fleet.node()
    session = old.open(None)
    session.data.raw = b"\xff"
    token = old.commit(session).token
    assert fleet.node(serializer="pydantic").open(token).outcome is LoadOutcome.FUTURE
    assert old.open(token).data.raw == b"\xff"


def test_r55_no_serializer_sees_what_is_not_authentic(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet()
    token = begin(fleet.node(model=Visit))
    blob = fleet.store._blobs[token_id(token).encode()]
    fleet.store._blobs[token_id(token).encode()] = blob[:-1] + bytes((blob[-1] ^ 1,))
    node = fleet.node(model=Visit, serializer="msgpack")
    asked: list[str] = []

    def ask(name: str, model: type[Any]) -> Any:
        asked.append(name)
        return builtin_serializer(name, model)

    monkeypatch.setattr("sojourn.session.model.builtin_serializer", ask)
    assert outcome(node, token) == "corrupt"
    assert asked == []


# -- what was not sealed -----------------------------------------------------------------------------------------


@pytest.fixture
def unsealed() -> tuple[Fleet, str]:
    """Return a fleet whose records were not sealed so far, and a token from then."""
    fleet = Fleet()
    token = begin(fleet.node(model=Visit, encrypt=False), principal="42")
    fleet.observer.clear()
    return fleet, token


def until(fleet: Fleet, **ahead: float) -> datetime:
    return datetime.fromtimestamp(fleet.clock.time(), UTC) + timedelta(**ahead)


def test_r55_what_is_not_sealed_is_opened_until_the_date_counted_and_sealed(unsealed: tuple[Fleet, str]) -> None:
    fleet, token = unsealed
    metrics = RecordingMetrics()
    date = until(fleet, minutes=10)
    node = fleet.node(model=Visit, accept_unsealed_until=date, parts={"metrics": metrics})
    assert outcome(fleet.node(model=Visit), token) == "corrupt", "without the date"
    session = node.open(token)
    assert (session.principal, session.data.note) == ("42", "a note")
    assert node.commit(session).action.value == "keep"
    assert [event.name for event in fleet.observer.events if event.name == "unsealed"] == ["unsealed"]
    assert metrics.counts["session.unsealed"] == 1
    assert outcome(fleet.node(model=Visit), token) == "loaded", "it is sealed by now"
    node.open(token)
    assert [event.name for event in fleet.observer.events if event.name == "unsealed"] == ["unsealed"]


def test_r55_after_the_date_what_is_not_sealed_is_damage(unsealed: tuple[Fleet, str]) -> None:
    fleet, token = unsealed
    node = fleet.node(model=Visit, accept_unsealed_until=until(fleet, minutes=10))
    fleet.clock.advance(600)
    assert outcome(node, token) == "corrupt"


def test_r55_reseal_seals_what_was_not(unsealed: tuple[Fleet, str]) -> None:
    fleet, token = unsealed
    assert fleet.node(model=Visit, accept_unsealed_until=until(fleet, minutes=10)).reseal() == 1
    assert outcome(fleet.node(model=Visit), token) == "loaded"


def test_r55_the_date_is_bounded_warned_of_and_refused_where_it_opens_too_much(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fleet, cookies = Fleet(), Fleet(client_side=True)
    with pytest.raises(ConfigurationError, match="more than 400 days ahead"):
        fleet.node(accept_unsealed_until=until(fleet, days=401))
    with pytest.raises(ConfigurationError, match="keeps records in the browser"):
        cookies.node(accept_unsealed_until=until(cookies, days=1), encrypt=None)
    with pytest.raises(
        ConfigurationError, match="SOJOURN_ACCEPT_UNSEALED_UNTIL cannot be set in the high_security preset"
    ):
        strict: dict[str, Any] = {"idle_timeout": "15m", "absolute_timeout": "12h"}
        fleet.node(preset="high_security", accept_unsealed_until=until(fleet, days=1), **strict)
    with pytest.raises(ConfigurationError, match="SOJOURN_ACCEPT_UNSEALED_UNTIL"):
        fleet.node(accept_unsealed_until="2027-01-31T12:00:00")  # of which zone?
    with caplog.at_level(logging.WARNING, "sojourn"):
        fleet.node(accept_unsealed_until=until(fleet, days=1))
        fleet.node(accept_unsealed_until=until(fleet, days=-1))
    warned, passed = (record.message for record in caplog.records)
    assert warned.startswith(f"until {until(fleet, days=1).isoformat()} records that are not encrypted are opened")
    assert passed.startswith("SOJOURN_ACCEPT_UNSEALED_UNTIL has passed")
    assert isinstance(cookies.store, ClientSideStore)
