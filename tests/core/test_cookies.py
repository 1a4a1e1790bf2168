"""The cookie header is read without surprises, and nothing can be smuggled into Set-Cookie."""

from __future__ import annotations

import re
from collections.abc import Callable
from http.cookies import SimpleCookie
from typing import Any

import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

from sojourn.cookies import MAX_AGE_LIMIT, MAX_COOKIE_BYTES, CookiePolicy, read_cookies
from sojourn.crypto import is_token
from sojourn.errors import ConfigurationError, CookieTooLargeError, SerializationError
from sojourn.manager.client_side import ClientSide
from sojourn.manager.committing import ServerSide
from sojourn.manager.opening import find_tokens
from tests.steps import Counted

NAME = "__Host-session"
TOKEN = "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmE"
TOKEN_CHARACTERS = "!#$%&'*+-.^_`|~0123456789abcXYZ"
ATTRIBUTES = {"expires", "path", "comment", "domain", "max-age", "secure", "httponly", "version", "samesite"}

cookie_names = st.text(TOKEN_CHARACTERS, min_size=1, max_size=20)
cookie_values = st.text([chr(code) for code in range(0x21, 0x7F) if chr(code) not in '",;\\'], max_size=60)
junk = st.text(st.one_of(st.sampled_from('; =",\t\\\r\n\xa0\u2003a' + NAME), st.characters()), max_size=200)


def parse_set_cookie(header: str) -> tuple[str, str, dict[str, str | None]]:
    """Parse as RFC 6265bis 5.7 tells browsers to."""
    pair, *rest = header.split(";")
    name, _, value = pair.partition("=")
    attributes: dict[str, str | None] = {}
    for part in rest:
        key, mark, text = part.partition("=")
        assert key.strip().lower() not in attributes
        attributes[key.strip().lower()] = text.strip() if mark else None
    return name.strip(" \t"), value.strip(" \t"), attributes


def reference_read(header: str, name: str) -> list[str]:
    """Read the slow and obvious way."""
    values = []
    for pair in header.split(";"):
        key, mark, value = pair.strip(" \t").partition("=")
        if mark and key == name:
            value = value.strip(" \t")
            values.append(value[1:-1] if re.fullmatch(r'".*"', value, re.DOTALL) else value)
    return values


@st.composite
def policies(draw: st.DrawFn) -> CookiePolicy:
    secure = draw(st.booleans())
    return CookiePolicy(
        name=draw(cookie_names.filter(lambda name: name.lower() not in ATTRIBUTES and not name.startswith("$"))),
        path="/" + draw(st.text("abc/%2~-.=", max_size=10)),
        domain=draw(st.none() | st.sampled_from(["example.com", ".example.com", "localhost", "xn--bcher-kva.example"])),
        secure=secure,
        same_site=draw(st.sampled_from(["lax", "strict", "none"] if secure else ["lax", "strict"])),
        partitioned=secure and draw(st.booleans()),
        persistent=draw(st.booleans()),
    )


@given(header=junk, name=cookie_names | st.just(NAME))
def test_any_header_reads_like_the_obvious_reader_and_never_raises(header: str, name: str) -> None:
    assert read_cookies(header, name) == reference_read(header, name)


@given(header=st.lists(st.sampled_from([NAME, "=", ";", "; ", " ", "\t", '"', "x", "session"]), max_size=30))
def test_headers_made_of_our_own_name_read_like_the_obvious_reader(header: list[str]) -> None:
    assert read_cookies("".join(header), NAME) == reference_read("".join(header), NAME)


@given(
    header=st.lists(
        st.sampled_from(
            [NAME, "=", ";", "; ", " ", "\t", '"', "x", TOKEN, TOKEN[:-1], f"{NAME}={TOKEN}", f"; {NAME}={TOKEN}"]
        ),
        max_size=12,
    )
)
def test_the_short_ways_find_what_the_obvious_reader_finds(header: list[str]) -> None:
    policy, sent = CookiePolicy(), "".join(header)
    values = list(dict.fromkeys(reference_read(sent, NAME)))
    tokens = [value for value in values if is_token(value)]
    event("found" if tokens else "none")
    assert list(find_tokens(policy, sent)) == (tokens if len(tokens) <= 2 else [])
    whole = [value for value in values if value]
    assert list(ClientSide().find_tokens(policy, sent)) == (whole if len(whole) <= 8 else [])
    others = sent.replace(NAME, "")
    for keeping in (ClientSide(), ServerSide()):
        assert keeping.find_tokens(policy, f"x=y; {NAME}={TOKEN}; z={others}") == (TOKEN,)


def counted_ways(policy: CookiePolicy) -> list[tuple[Counted, Callable[[str], object]]]:
    """Return the ways to read a header, each in a module that counts its steps."""
    cookies, opening = Counted("sojourn.cookies"), Counted("sojourn.manager.opening")
    client_side = Counted("sojourn.manager.client_side")
    return [
        (cookies, lambda header: cookies.module.read_cookies(header, NAME)),
        (opening, lambda header: opening.module.find_tokens(policy, header)),
        (client_side, lambda header: client_side.module.ClientSide().find_tokens(policy, header)),
    ]


@given(header=junk, name=junk)
def test_reading_under_any_name_ends_and_never_raises(header: str, name: str) -> None:
    assert isinstance(read_cookies(header, name), list)


@pytest.mark.parametrize(
    "chunk",
    [f"x{NAME}=", f"{NAME}", f" {NAME}=1", f";{NAME}", ";", " ", "=", '"', f'{NAME}="', f"; {NAME}=a", f"x {NAME}=1;"],
)
def test_reading_takes_a_number_of_steps_linear_in_the_header(chunk: str) -> None:
    policy = CookiePolicy(name=NAME)
    for counted, read in counted_ways(policy):
        small, large = (counted.of(read, chunk * (size // len(chunk))) for size in (300, 2_400))
        assert large < 8 * 1.5 * small + 50  # quadratic would be 64 times


def test_other_cookies_are_looked_at_once_and_make_nothing() -> None:
    policy = CookiePolicy(name=NAME)
    others = "; ".join(f"_ga_{number:02}=GS1.1.17{number:08}.1.1.17{number:08}.0.0.0" for number in range(40))
    for counted, find in counted_ways(policy)[1:]:
        alone = counted.of(find, f"{NAME}={TOKEN}")
        for crowd in (f"{others}; {NAME}={TOKEN}", f"{NAME}={TOKEN}; {others}"):
            assert counted.of(find, crowd) - alone <= len(others) + 20


@given(before=st.lists(st.tuples(cookie_names, cookie_values), max_size=5), values=st.lists(cookie_values, max_size=3))
def test_every_value_of_our_name_is_found_in_order_among_others(
    before: list[tuple[str, str]], values: list[str]
) -> None:
    others = [f"{name}={value}" for name, value in before if name != NAME]
    header = "; ".join([*others, *(f"{NAME}={value}" for value in values), *others])
    assert read_cookies(header, NAME) == values


@pytest.mark.parametrize(
    ("header", "values"),
    [
        ("", []),
        (NAME, []),
        (f"{NAME}=", [""]),
        (f"{NAME}=a", ["a"]),
        (f'{NAME}="a"', ["a"]),
        (f'{NAME}="a', ['"a']),
        (f'{NAME}="', ['"']),
        (f'{NAME}=""', [""]),
        (f"{NAME}=a=b", ["a=b"]),
        (f"{NAME}=%61", ["%61"]),
        (f"{NAME}=a;{NAME}=b", ["a", "b"]),
        (f";\t {NAME}=a \t; x=y", ["a"]),
        (f"X{NAME}=a", []),
        (f"x={NAME}=a", []),
        (f"x {NAME}=a; {NAME}=b", ["b"]),
        (f"={NAME}=a", []),
        (f"{NAME.lower()}=a", []),
        (f"{NAME} =a", []),
        (f"x=1, {NAME}=a", []),
        (f'x="; {NAME}=a"', ['a"']),
    ],
)
def test_the_cookie_header_is_read_as_browsers_write_it(header: str, values: list[str]) -> None:
    assert read_cookies(header, NAME) == values


@pytest.mark.parametrize("space", ["\xa0", "\x85", "\x0b", "\x0c", "\x1c", "\u2000", "\u3000", "\r", "\n"])
def test_r19_only_spaces_and_tabs_are_stripped_so_no_foreign_cookie_passes_for_a_prefixed_one(space: str) -> None:
    assert read_cookies(f"x=1; {space}{NAME}=evil", NAME) == []


@given(policy=policies(), value=cookie_values, max_age=st.none() | st.integers(-10, 2 * MAX_AGE_LIMIT))
def test_what_is_written_parses_back_the_same(policy: CookiePolicy, value: str, max_age: int | None) -> None:
    name, parsed, attributes = parse_set_cookie(policy.set_header(value, max_age))
    assert (name, parsed) == (policy.name, value)
    assert attributes.pop("path") == policy.path
    assert attributes.pop("domain", None) == policy.domain
    assert ("secure" in attributes, attributes.pop("secure", None)) == (policy.secure, None)
    assert attributes.pop("httponly") is None
    assert attributes.pop("samesite") == policy.same_site.capitalize()
    assert ("partitioned" in attributes, attributes.pop("partitioned", None)) == (policy.partitioned, None)
    if max_age is None or not policy.persistent:
        assert attributes == {}
    else:
        assert attributes == {"max-age": str(min(max(max_age, 0), MAX_AGE_LIMIT))}


@given(policy=policies(), value=cookie_values)
def test_the_standard_library_parses_back_the_same(policy: CookiePolicy, value: str) -> None:
    assume(not policy.partitioned)  # unknown to it before 3.14
    parsed: SimpleCookie = SimpleCookie()
    parsed.load(policy.set_header(value, 60))
    morsel = parsed[policy.name]
    assert morsel.coded_value == value
    assert morsel["path"] == policy.path
    assert morsel["domain"] == (policy.domain or "")
    assert bool(morsel["secure"]) is policy.secure
    assert morsel["httponly"] is True
    assert morsel["samesite"] == policy.same_site.capitalize()
    assert morsel["max-age"] == ("60" if policy.persistent else "")


@given(value=cookie_values)
def test_what_is_written_is_read_again_from_the_request(value: str) -> None:
    policy = CookiePolicy()
    pair = policy.set_header(value, 60).split(";")[0]
    assert read_cookies(f"a=1; {pair}; b=2", policy.name) == [value]


@given(
    name=st.just("session") | junk,
    path=st.just("/") | junk.map(lambda text: "/" + text),
    domain=st.none() | junk,
    same_site=st.sampled_from(["lax", "strict"]) | junk,
    value=cookie_values | junk,
)
def test_r20_no_attribute_and_no_value_can_inject_anything(
    name: str, path: str, domain: str | None, same_site: Any, value: str
) -> None:
    try:
        policy = CookiePolicy(name=name, path=path, domain=domain, same_site=same_site)
        written = policy.set_header(value, 60)
    except (ConfigurationError, SerializationError):
        return
    for header in (written, policy.clear_header()):
        assert re.fullmatch(r"[ -~]+", header)
        assert header.count(";") == 5 + (domain is not None) + (header is not written)
    assert parse_set_cookie(written)[:2] == (name, value)


@pytest.mark.parametrize(
    "character", [chr(code) for code in [*range(0x21), *map(ord, '",;\\'), 0x7F, 0x80, 0xFF, 0x2028]]
)
def test_a_value_with_a_character_that_no_cookie_may_hold_is_refused_without_being_shown(character: str) -> None:
    with pytest.raises(SerializationError) as caught:
        CookiePolicy().set_header(f"hidden{character}", 60)
    assert "hidden" not in str(caught.value)
    assert NAME in str(caught.value)


def test_a_trailing_newline_is_refused_in_the_value_and_every_attribute() -> None:
    with pytest.raises(SerializationError):
        CookiePolicy().set_header("a\n", None)
    for setting in ({"name": "session\n"}, {"name": "s", "path": "/\n"}, {"name": "s", "domain": "example.com\n"}):
        with pytest.raises(ConfigurationError):
            CookiePolicy(**setting)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["s", "session", NAME])
def test_r20_4096_bytes_of_name_and_value_pass_and_one_more_is_refused(name: str) -> None:
    policy = CookiePolicy(name=name)
    room = MAX_COOKIE_BYTES - len(name)
    assert "v" * room in policy.set_header("v" * room, 60)
    with pytest.raises(CookieTooLargeError, match=r"4097 bytes.*server-side store") as caught:
        policy.set_header("v" * (room + 1), 60)
    assert "vv" not in str(caught.value)


def test_r18_the_default_cookie_is_host_only_secure_http_only_and_lax() -> None:
    expected = f"__Host-session={TOKEN}; Max-Age=3600; Path=/; Secure; HttpOnly; SameSite=Lax"
    assert CookiePolicy().set_header(TOKEN, 3600) == expected


def test_r18_the_cookie_of_development_needs_no_https() -> None:
    policy = CookiePolicy(name="session", secure=False)
    assert policy.set_header(TOKEN, None) == f"session={TOKEN}; Path=/; HttpOnly; SameSite=Lax"


def test_a_partitioned_cookie_says_so_last() -> None:
    header = CookiePolicy(same_site="none", partitioned=True).set_header(TOKEN, None)
    assert header.endswith("; Path=/; Secure; HttpOnly; SameSite=None; Partitioned")


@pytest.mark.parametrize(
    ("values", "setting"),
    [
        ({"domain": "example.com"}, "SOJOURN_COOKIE_DOMAIN"),
        ({"path": "/shop"}, "SOJOURN_COOKIE_PATH"),
        ({"secure": False}, "SOJOURN_COOKIE_SECURE"),
        ({"name": "__host-session", "domain": "example.com"}, "SOJOURN_COOKIE_DOMAIN"),
        ({"name": "__HOST-session", "path": "/shop"}, "SOJOURN_COOKIE_PATH"),
        ({"name": "__Secure-session", "secure": False}, "SOJOURN_COOKIE_SECURE"),
        ({"name": "__Http-session", "secure": False}, "SOJOURN_COOKIE_SECURE"),
        ({"name": "session", "secure": False, "same_site": "none"}, "SOJOURN_COOKIE_SAME_SITE"),
        ({"name": "session", "secure": False, "partitioned": True}, "SOJOURN_COOKIE_PARTITIONED"),
        ({"http_only": False}, "SOJOURN_COOKIE_HTTP_ONLY"),
        ({"same_site": "Lax"}, "SOJOURN_COOKIE_SAME_SITE"),
        ({"name": ""}, "SOJOURN_COOKIE_NAME"),
        ({"name": "a b"}, "SOJOURN_COOKIE_NAME"),
        ({"name": "séance"}, "SOJOURN_COOKIE_NAME"),
        ({"name": "n" * 1025}, "SOJOURN_COOKIE_NAME"),
        ({"name": "s", "path": ""}, "SOJOURN_COOKIE_PATH"),
        ({"name": "s", "path": "shop"}, "SOJOURN_COOKIE_PATH"),
        ({"name": "s", "path": "/a;b"}, "SOJOURN_COOKIE_PATH"),
        ({"name": "s", "path": "/a,b"}, "SOJOURN_COOKIE_PATH"),
        ({"name": "s", "path": "/" * 1025}, "SOJOURN_COOKIE_PATH"),
        ({"name": "s", "domain": ""}, "SOJOURN_COOKIE_DOMAIN"),
        ({"name": "s", "domain": "https://example.com"}, "SOJOURN_COOKIE_DOMAIN"),
        ({"name": "s", "domain": "example.com:8000"}, "SOJOURN_COOKIE_DOMAIN"),
        ({"name": "s", "domain": "example..com"}, "SOJOURN_COOKIE_DOMAIN"),
        ({"name": "s", "domain": "bücher.example"}, "SOJOURN_COOKIE_DOMAIN"),
        ({"name": "s", "domain": ".".join(["a" * 60] * 5)}, "SOJOURN_COOKIE_DOMAIN"),
    ],
)
def test_r19_a_cookie_that_browsers_drop_or_that_leaks_is_refused_at_start_up(
    values: dict[str, Any], setting: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"^{setting} "):
        CookiePolicy(**values)


def test_attributes_of_exactly_the_longest_length_pass() -> None:
    policy = CookiePolicy(name="n" * 1024, path="/" * 1024, domain=".".join(["a" * 62] * 4) + ".b")
    assert len(policy.clear_header()) > 2 * 1024 + 253


def test_r19_a_secure_prefix_allows_domain_and_path() -> None:
    header = CookiePolicy(name="__Secure-session", domain="example.com", path="/shop").set_header(TOKEN, None)
    assert header == f"__Secure-session={TOKEN}; Path=/shop; Domain=example.com; Secure; HttpOnly; SameSite=Lax"


@pytest.mark.parametrize(
    ("asked", "sent"), [(MAX_AGE_LIMIT + 1, 34_560_000), (MAX_AGE_LIMIT, 34_560_000), (1, 1), (0, 0), (-1, 0)]
)
def test_r21_max_age_is_at_most_400_days_and_never_negative(asked: int, sent: int) -> None:
    assert f"; Max-Age={sent};" in CookiePolicy().set_header(TOKEN, asked)


def test_r21_a_policy_that_is_not_persistent_sends_no_max_age() -> None:
    header = CookiePolicy(persistent=False).set_header(TOKEN, 3600)
    assert "max-age" not in header.lower()
    assert "expires" not in header.lower()


@given(policy=policies())
def test_r13_clearing_uses_the_same_name_and_attributes(policy: CookiePolicy) -> None:
    name, value, cleared = parse_set_cookie(policy.clear_header())
    assert (name, value) == (policy.name, "")
    assert cleared.pop("max-age") == "0"
    assert cleared.pop("expires") == "Thu, 01 Jan 1970 00:00:00 GMT"
    assert cleared == parse_set_cookie(policy.set_header(TOKEN, None))[2]


def test_equal_settings_make_equal_policies_whose_repr_shows_the_settings_alone() -> None:
    assert CookiePolicy() == CookiePolicy()
    assert CookiePolicy() != CookiePolicy(name="session")
    assert "_opening" not in repr(CookiePolicy())
