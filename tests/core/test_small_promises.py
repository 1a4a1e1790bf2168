"""Small promises of the documentation: writes after the end, copies of a session, files and URLs as people write them."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import Session, StoreIO
from sojourn.errors import ConfigurationError, SessionStateError
from sojourn.settings import SessionSettings
from sojourn_store_redis import RedisStore
from sojourn_store_sql import SqlStore
from tests.core.asgi_bench import Bench, headers_of
from tests.core.models import make_manager

pytestmark = pytest.mark.anyio


# -- data after destroy() ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_stored", [False, True])
def test_data_that_is_changed_in_place_after_destroy_raises_at_the_commit(is_stored: bool) -> None:
    node = make_manager().blocking
    session = node.open(None)
    if is_stored:
        session.data.note = "mine"
        session = node.open(node.commit(session).token)
    session.destroy()
    assert session.data.note == ""
    node.commit(session)
    session.data.note = "too late"
    with pytest.raises(SessionStateError, match=r"after destroy\(\)"):
        node.commit(session)
    with pytest.raises(SessionStateError):
        session.data = session.data
    assert node.count() == 0


async def test_it_ends_the_session_all_the_same_and_answers_500() -> None:
    bench = Bench(StoreIO.ASYNC)
    token = await bench.begin(principal="42")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        session = bench.sessions.of(scope)
        session.destroy()
        session.data.note = "too late"
        await send({"type": "http.response.start", "status": 200, "headers": []})

    sent = await bench.send(app, token)
    assert sent[0]["status"] == 500
    assert headers_of(sent[0], "set-cookie") == []
    assert (await bench.read(token)).outcome.value == "unknown"


def test_f7_what_is_written_to_a_session_that_somebody_else_ended_is_dropped_and_no_error() -> None:
    node = make_manager().blocking
    session = node.open(None)
    session.login("42")
    token = node.commit(session).token
    session = node.open(token)
    node.revoke_all("42")
    session.data.note = "mine"
    node.commit(session)
    session.data.note = "later"
    node.commit(session)
    assert node.count() == 0


# -- copies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, pickle.dumps], ids=["copy", "deepcopy", "pickle"])
def test_a_session_says_why_it_cannot_be_copied_or_pickled(make: Any) -> None:
    session: Session[Any] = make_manager().blocking.open(None)
    with pytest.raises(TypeError, match=r"belongs to its request.*session\.data"):
        make(session)


def test_the_session_of_a_request_is_copied_as_a_dict_and_not_pickled() -> None:
    request = make_manager().blocking.begin({}, "")
    request["key"] = [1]
    copied: Any = copy.copy(request)
    assert type(copied) is dict
    assert json.dumps(copied) == '{"key": [1]}'
    for make in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"dict\(request\.session\)"):
            make(request)


# -- .env ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le with its mark", "latin-1"])
def test_an_env_file_is_read_in_the_encoding_that_it_has(encoding: str, tmp_path: Path) -> None:
    text = "# für alle\nSOJOURN_PRESET=testing\nSOJOURN_IDLE_TIMEOUT=7m\n"
    name, marked, _ = encoding.partition(" with")
    path = tmp_path / ".env"
    path.write_bytes(("\ufeff" + text).encode(name) if marked else text.encode(name))
    settings = SessionSettings(_env_file=path)
    assert (settings.preset, settings.origin_of("idle_timeout")) == ("testing", ".env")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32"])
def test_an_env_file_that_is_no_text_is_refused_and_not_passed_over(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes("SOJOURN_PRESET=testing\n".encode(encoding))
    with pytest.raises(ConfigurationError, match="save it as UTF-8"):
        SessionSettings(_env_file=path)


# -- the URL of a server -------------------------------------------------------------------------------------------


PARTS = st.just("") | st.text("abcXYZ", min_size=6, max_size=8)
SERVERS = ("redis://{}localhost:6379/0", "rediss://{}localhost", "unix://{}/run/redis.sock?db=1")


@given(
    url=st.sampled_from((*SERVERS, "redis+sentinel://{}one:1,two:2/main/0", "redis+cluster://{}one:1,two:2/")),
    user=st.sampled_from(["", "user"]),
    before=PARTS,
    raw=st.sampled_from("/#?"),
    after=st.text("uvwUVW", min_size=6, max_size=8),
)
def test_a_raw_character_in_a_password_is_named_without_a_part_of_it(
    url: str, user: str, before: str, raw: str, after: str
) -> None:
    with pytest.raises(ConfigurationError, match="user or password holds") as refused:
        RedisStore.from_url(url.format(f"{user}:{before}{raw}{after}@"))
    assert not before or before not in str(refused.value)
    assert after not in str(refused.value)
    assert refused.value.__cause__ is refused.value.__context__ is None


@pytest.mark.parametrize(
    "url", ["redis://user/hidden@localhost:6379/0", "unix://run/redis.sock", "redis://localhost/x"]
)
def test_what_a_url_says_beyond_what_is_read_is_refused_and_not_passed_over(url: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        RedisStore.from_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis://:6379",
        "redis://[::1]:6379/0",
        "redis://:p@ss@localhost:6379/0",
        "redis://localhost?db=1&client_name=a@b",
        "unix:///run/a@b.sock",
    ],
)
def test_whatever_else_a_url_may_hold_is_read_as_it_is_meant(url: str) -> None:
    RedisStore.from_url(url)


@pytest.mark.parametrize("raw", ["{0}@{1}", "{0}@{1}:third", "{0}@{1}/third", "{0}@{1}?third", "@{1}", "{0}@"])
@pytest.mark.parametrize("driver", ["postgresql", "postgres", "postgresql+psycopg"])
def test_an_at_sign_in_the_password_of_a_database_is_refused_without_a_part_of_it(driver: str, raw: str) -> None:
    password = raw.format("hidden", "secret")
    with pytest.raises(ConfigurationError, match="%40 for an '@' in the user or password") as refused:
        SqlStore.from_url(f"{driver}://user:{password}@db.example:5432/shop")
    for part in ("hidden", "secret", "third"):
        assert part not in str(refused.value)
    assert refused.value.__cause__ is refused.value.__context__ is None


@pytest.mark.parametrize("password", ["a#b", "a/b", "a?b", "a:b", "a%40b"])
def test_other_characters_in_the_password_of_a_database_are_read_as_they_are_meant(password: str) -> None:
    store = SqlStore.from_url(f"postgresql://user:{password}@db.example:5432/shop")
    assert "postgresql://user:***@db.example:5432/shop" in repr(store)
    SqlStore.from_url("sqlite:////tmp/a@b/c@d.db")


def test_an_at_sign_in_a_password_is_read_as_it_is_meant() -> None:
    assert "localhost:6379" in repr(RedisStore.from_url("redis://:p@ss@localhost:6379/0"))
