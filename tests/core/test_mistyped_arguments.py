"""Arguments that are not what was meant are refused, where taking them would let somebody in (SECURITY R51)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from sojourn import MemoryStore, Session, asgi, wsgi
from sojourn.binding import TrustedProxies
from sojourn.errors import ConfigurationError, FreshLoginRequiredError
from sojourn.http import path_is_exempt, path_matches, same_origin
from sojourn.settings import SessionSettings
from sojourn.testing import FakeClock
from tests.core.models import Visit, make_manager

MIDDLEWARES: dict[str, Callable[..., object]] = {
    "asgi allow": lambda value: asgi.AuthenticationMiddleware(None, make_manager(), allow=value),  # type: ignore[arg-type]
    "wsgi allow": lambda value: wsgi.AuthenticationMiddleware(None, make_manager(), allow=value),  # type: ignore[arg-type]
    "asgi exclude": lambda value: asgi.SessionMiddleware(None, make_manager(), exclude=value),  # type: ignore[arg-type]
    "wsgi exclude": lambda value: wsgi.SessionMiddleware(None, make_manager(), exclude=value),  # type: ignore[arg-type]
}


@pytest.fixture
def logged_in() -> Session[Visit]:
    session = make_manager().blocking.open(None)
    session.login("ada")
    return session


@pytest.mark.parametrize("name", MIDDLEWARES)
@pytest.mark.parametrize("value", ["/public/*", "/", "", b"/public/*"])
def test_r51_one_string_is_not_taken_for_a_list_of_patterns(name: str, value: object) -> None:
    argument = name.partition(" ")[2]
    with pytest.raises(
        ConfigurationError, match=rf"^{argument} is b?'.*', of which each character .* put \[ \] around"
    ):
        MIDDLEWARES[name](value)


@pytest.mark.parametrize("name", MIDDLEWARES)
@pytest.mark.parametrize(
    "pattern",
    ["public/*", "", "*", "/public*", "/public/**", "/*/x", "//x", "/a/../b", "\\x", "https://x/", None, 1, b"/x"],
)
def test_r51_a_pattern_that_matches_nothing_is_refused(name: str, pattern: object) -> None:
    with pytest.raises(ConfigurationError, match="holds .*; write a path such as '/about', or '/public/\\*'"):
        MIDDLEWARES[name](["/open", pattern])


@pytest.mark.parametrize("name", MIDDLEWARES)
def test_paths_and_what_is_below_them_are_taken_from_any_collection(name: str) -> None:
    for patterns in (["/", "/a", "/a/", "/a/*", "/*", "/é;x"], ("/a",), {"/a"}, iter(["/a"]), []):
        assert MIDDLEWARES[name](patterns)


@pytest.mark.parametrize("judge", [path_matches, path_is_exempt])
def test_r51_a_string_of_patterns_opens_no_path(judge: Callable[..., bool]) -> None:
    with pytest.raises(TypeError, match=r"put \[ \] around"):
        judge("/", "/public/*")


def test_r51_a_string_of_origins_is_not_taken_for_a_list() -> None:
    with pytest.raises(TypeError, match=r"put \[ \] around"):
        same_origin("https://a", scheme="https", host="b", allowed="https://a")


@pytest.mark.parametrize("networks", ["unix", "10.0.0.0/8", "unix10.0.0.0/8"])
def test_r51_a_string_of_networks_is_not_taken_for_a_list(networks: str) -> None:
    with pytest.raises(ConfigurationError, match=r"put \[ \] around"):
        TrustedProxies(networks)


@pytest.mark.parametrize("network", [None, 10, 0, True])
def test_r51_a_number_is_not_taken_for_a_network(network: Any) -> None:
    with pytest.raises(ConfigurationError, match="which is no address and no network"):
        TrustedProxies([network])


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("trusted_proxies", ["0.0.0.0/0"], "trusts every client"),
        ("trusted_proxies", ["::/0"], "trusts every client"),
        ("trusted_proxies", ["10.0.0.1/8"], "host bits"),
        ("trusted_proxies", ["::ffff:10.0.0.0/104"], "IPv4 network"),
        ("binding_ipv6_prefix", 47, "greater than or equal to 48"),
        ("binding_ipv6_prefix", 129, "less than or equal to 128"),
        ("binding_ipv4_prefix", 23, "greater than or equal to 24"),
        ("binding_ipv4_prefix", 33, "less than or equal to 32"),
    ],
)
def test_r51_settings_refuse_what_only_their_use_refused(name: str, value: Any, fault: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^SOJOURN_{name.upper()} = .*{fault}"):
        SessionSettings(preset="testing", **{name: value})


def test_a_proxy_on_a_unix_socket_can_be_trusted_by_the_settings() -> None:
    settings = SessionSettings(preset="testing", trusted_proxies="unix,10.0.0.0/8")
    assert settings.make_trusted_proxies().address(None, ["203.0.113.9"]) == "203.0.113.9"


@pytest.mark.parametrize("seconds", [math.nan, -1, -math.inf])
def test_r51_no_login_counts_as_fresh_by_a_number_that_is_none(logged_in: Session[Visit], seconds: float) -> None:
    with pytest.raises(ValueError, match=r"^require_fresh\(\) takes a number of seconds"):
        logged_in.require_fresh(seconds)


def test_a_login_is_fresh_for_no_time_and_for_all_time() -> None:
    clock = FakeClock()
    session = make_manager(clock=clock).blocking.open(None)
    session.login("ada")
    session.require_fresh(0)
    clock.advance(1)
    session.require_fresh(math.inf)
    with pytest.raises(FreshLoginRequiredError):
        session.require_fresh(0)


@pytest.mark.parametrize("remember", [14, math.nan, "14d", True])
def test_r51_a_lifetime_is_a_timedelta(logged_in: Session[Visit], remember: Any) -> None:
    with pytest.raises(TypeError, match=r"^login\(remember=...\) takes a timedelta"):
        logged_in.login("bob", remember=remember)
    assert logged_in.principal == "ada"


def test_r51_what_is_no_text_is_no_csrf_token(logged_in: Session[Visit]) -> None:
    token = logged_in.csrf_token()
    assert logged_in.verify_csrf(token)
    for value in (None, 0, 1, 1.5, True, token.encode(), bytearray(token.encode()), [token], {token: token}, object()):
        assert not logged_in.verify_csrf(value)


@pytest.mark.parametrize("principal", [None, 0, 42, b"ada", ""])
def test_r51_nobodys_sessions_are_not_taken_for_ended(principal: Any) -> None:
    sessions = make_manager().blocking
    for ask in (sessions.list, sessions.revoke_all):
        with pytest.raises(TypeError, match="takes the principal as a non-empty str"):
            ask(principal)


@pytest.mark.parametrize("id_", [None, 0, 42, b"ada"])
def test_r51_an_id_is_text(id_: Any) -> None:
    sessions = make_manager().blocking
    with pytest.raises(TypeError, match=r"^revoke\(\) takes the id as a str"):
        sessions.revoke(id_)
    if id_ is not None:
        with pytest.raises(TypeError, match=r"^revoke_all\(\) takes except_id as a non-empty str"):
            sessions.revoke_all("ada", id_)


def test_the_id_that_a_form_left_empty_is_nobodys() -> None:
    assert make_manager().blocking.revoke("") is False


def test_r51_a_limit_that_is_no_number_is_not_taken_for_none() -> None:
    with pytest.raises(ValueError, match="max_sessions must be at least 1, not nan"):
        MemoryStore(max_sessions=math.nan)  # type: ignore[arg-type]
