"""Responses are safe for shared caches, paths cannot be disguised and redirects stay on this host."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.errors import SessionTooLargeError
from sojourn.http import (
    NOT_LOGGED_OUT,
    PROTECTS_SET_COOKIE,
    Answer,
    Ending,
    add_vary,
    cache_control,
    normalise_path,
    path_is_exempt,
    path_matches,
    safe_redirect,
    same_origin,
    unavailable,
)
from tests.steps import Counted


def too_large(accept: str = "") -> Answer:
    answer = Ending(SessionTooLargeError()).answer(accept)
    assert answer is not None
    return answer


header_junk = st.lists(
    st.text(st.sampled_from('no-cache="Set-Cookie" ,;\\\t\r\nprivate*=') | st.characters(), max_size=60), max_size=4
)
DIRECTIVES = [
    "public",
    "private",
    "no-store",
    "no-cache",
    "NO-STORE",
    "max-age=60",
    's-maxage="60"',
    'private="X-A, X-B"',
    'no-cache="X-A"',
    'no-cache="x-a, SET-COOKIE"',
    "no-cache=Set-Cookie",
    'ext="a\\"b, private"',
    "",
]
directive_lists = st.lists(st.lists(st.sampled_from(DIRECTIVES), max_size=4).map(", ".join), max_size=3)
paths = st.lists(
    st.sampled_from(["/", "//", ".", "..", "\\", "a", "admin", "public", ";", ".a", "...", "%2e", "é", "?"]),
    max_size=12,
).map("".join)
hostile = st.lists(
    st.sampled_from(
        [
            *(
                "/",
                "\\",
                "//",
                "%2F",
                "%5c",
                "%252F",
                "%25",
                "%",
                "2",
                "F",
                "5C",
                "\t",
                "\n",
                "\r",
                " ",
                "%09",
                "%0d%0a",
                "@",
            ),
            *("evil.example", ":", "http:", "javascript:", ".", "..", "%2e", "?", "#", "é", "\u2215", "\uff0f", "\x00"),
        ]
    )
    | st.characters(),
    max_size=14,
).map("".join)


def parsed_directives(text: str) -> list[tuple[str, str | None]]:
    """Parse a Cache-Control value the way a lenient cache does."""
    return [
        (name.lower(), argument or None)
        for name, argument in re.findall(r'([\w-]+)(?:=("(?:[^"\\]|\\.)*"|[^\s,]*))?', text)
    ]


def is_safe_with_set_cookie(text: str) -> bool:
    return any(
        (name in {"no-store", "private", "no-cache"} and argument is None)
        or (name == "no-cache" and argument is not None and "set-cookie" in argument.lower())
        for name, argument in parsed_directives(text)
    )


@given(values=header_junk)
def test_r23_vary_names_cookie_whatever_was_there_and_is_added_once(values: list[str]) -> None:
    added = add_vary(values)
    after = [*values, added] if added else values
    assert any(member.strip(" \t").lower() in {"cookie", "*"} for value in after for member in value.split(","))
    assert add_vary(after) is None


@pytest.mark.parametrize(
    ("values", "added"),
    [
        ([], "Cookie"),
        (["Accept-Encoding"], "Cookie"),
        (["X-Cookie, Cookies"], "Cookie"),
        (["accept, cookie"], None),
        (["Accept", "COOKIE"], None),
        (["*"], None),
        (["Accept,\t* "], None),
    ],
)
def test_r23_vary_is_not_repeated(values: list[str], added: str | None) -> None:
    assert add_vary(values) == added


@given(values=header_junk | directive_lists)
def test_r23_cache_control_is_safe_for_any_values_and_idempotent(values: list[str]) -> None:
    replacement = cache_control(values)
    if replacement is not None:
        assert is_safe_with_set_cookie(replacement)
        assert re.fullmatch(r"[\t -~\x80-\xff]+", replacement)
        assert cache_control([replacement]) is None
    else:
        assert is_safe_with_set_cookie(", ".join(values))


@given(values=directive_lists)
def test_r23_what_the_application_said_is_kept(values: list[str]) -> None:
    replacement = cache_control(values)
    if replacement is not None:
        assert replacement.endswith(PROTECTS_SET_COOKIE)
        kept = [directive for value in values for directive in parsed_directives(value)]
        assert parsed_directives(replacement)[:-1] == kept


@pytest.mark.parametrize(
    ("values", "replacement"),
    [
        ([], PROTECTS_SET_COOKIE),
        ([" , "], PROTECTS_SET_COOKIE),
        (["public, max-age=60"], f"public, max-age=60, {PROTECTS_SET_COOKIE}"),
        (["public", "max-age=60"], f"public, max-age=60, {PROTECTS_SET_COOKIE}"),
        (["private"], None),
        (["max-age=60", "No-Store"], None),
        (["no-cache"], None),
        ([PROTECTS_SET_COOKIE], None),
        (['private="X-A"'], f'private="X-A", {PROTECTS_SET_COOKIE}'),
        (["no-cache=Set-Cookie"], f"no-cache=Set-Cookie, {PROTECTS_SET_COOKIE}"),
        (['ext="private"'], f'ext="private", {PROTECTS_SET_COOKIE}'),
        (['ext="open'], "no-store"),
        (['ext="open', "private"], "no-store"),
        (["max-age = 60"], "no-store"),
        (["public\r\nX-Evil: 1"], "no-store"),
        (['private, ext="open'], None),
    ],
)
def test_r23_cache_control_becomes_as_strict_as_set_cookie_needs(values: list[str], replacement: str | None) -> None:
    assert cache_control(values) == replacement


COUNTED = Counted("sojourn.http")


@pytest.mark.parametrize(
    "function",
    [
        lambda text: COUNTED.module.cache_control([text]),
        COUNTED.module.normalise_path,
        COUNTED.module.safe_redirect,
        lambda text: COUNTED.module.unavailable(1, text),
    ],
    ids=["cache_control", "normalise_path", "safe_redirect", "unavailable"],
)
@pytest.mark.parametrize(
    "chunk", [" ", ",", 'a="', "a=", '"\\', "a ", "/..", "/../a/", "\\", "%25", "%2525", "/a", ";q=", "a, "]
)
def test_junk_takes_a_number_of_steps_linear_in_its_length(function: Callable[[str], object], chunk: str) -> None:
    small, large = (COUNTED.of(function, "/" + chunk * (size // len(chunk)) + "@") for size in (150, 1_200))
    assert large < 8 * 1.5 * small  # quadratic would be 64 times


@given(retry_after=st.floats(), accept=st.text(max_size=40))
def test_f5_any_unavailable_answer_is_a_503_that_is_not_stored_and_sets_no_cookie(
    retry_after: float, accept: str
) -> None:
    answer = unavailable(retry_after, accept)
    headers = dict(answer.headers)
    assert answer.status == 503
    assert set(headers) == {"Content-Type", "Content-Length", "Cache-Control", "Retry-After"}
    assert headers["Cache-Control"] == "no-store"
    assert headers["Content-Length"] == str(len(answer.body))
    seconds = int(headers["Retry-After"])
    assert 1 <= seconds <= 3600
    if retry_after <= 3600:
        assert seconds >= retry_after


@pytest.mark.parametrize(
    ("retry_after", "sent"),
    [
        (-1, "1"),
        (0, "1"),
        (0.2, "1"),
        (1, "1"),
        (1.01, "2"),
        (30, "30"),
        (3600.5, "3600"),
        (math.inf, "3600"),
        (math.nan, "1"),
    ],
)
def test_retry_after_is_whole_seconds_and_at_least_one(retry_after: float, sent: str) -> None:
    assert dict(unavailable(retry_after).headers)["Retry-After"] == sent


@pytest.mark.parametrize(
    ("accept", "wants_json"),
    [
        ("", False),
        ("*/*", False),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", False),
        ("application/json", True),
        ("application/problem+json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/json, text/plain, */*", True),
        ("text/html, application/json", False),
        ("text/html;q=0.5, application/vnd.api+json;q=0.9", True),
        ("application/json;q=0", False),
        ("application/json; q=0.2, text/plain; Q=0.3", False),
        ("application/json;q=nan", False),
        ("application/json;q=7", False),
        ("application/json;q=1.000", True),
        (";;,,=", False),
    ],
)
def test_the_answer_is_json_for_those_who_prefer_it(accept: str, wants_json: bool) -> None:
    for answer in (unavailable(2, accept), too_large(accept)):
        content_type = dict(answer.headers)["Content-Type"]
        if wants_json:
            assert content_type == "application/problem+json"
            problem = json.loads(answer.body)
            assert problem["status"] == answer.status
            assert problem["title"] == answer.status_line[4:]
        else:
            assert content_type == "text/plain; charset=utf-8"
            assert answer.body.endswith(b".\n")


def test_r20_a_session_too_large_is_a_500_that_is_not_stored_and_sets_no_cookie() -> None:
    answer = too_large()
    assert answer.status == 500
    assert answer.status_line == "500 Internal Server Error"
    assert dict(answer.headers)["Cache-Control"] == "no-store"
    assert {name for name, _ in answer.headers} == {"Content-Type", "Content-Length", "Cache-Control"}


def test_f9_a_logout_that_failed_says_so() -> None:
    answer = unavailable(1, detail=NOT_LOGGED_OUT)
    assert answer.body.startswith(b"You are not logged out")
    assert answer.status_line == "503 Service Unavailable"


def test_an_answer_is_a_value() -> None:
    assert unavailable(1) == unavailable(1)
    assert Answer(503, (), b"") != unavailable(1)


@given(path=paths | st.text(max_size=40))
def test_r35_a_normal_path_stays_so_and_never_leaves_the_root(path: str) -> None:
    normal = normalise_path(path)
    assert normalise_path(normal) == normal
    assert normal.startswith("/")
    assert "\\" not in normal
    assert "//" not in normal
    assert not {".", ".."} & set(normal.split("/"))


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("", "/"),
        ("/", "/"),
        ("a", "/a"),
        ("/a/b/", "/a/b/"),
        ("//a///b", "/a/b"),
        ("/a/./b/../c", "/a/c"),
        ("/../../a", "/a"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/a/b/.", "/a/b/"),
        ("\\a\\..\\b", "/b"),
        ("/.well-known/x", "/.well-known/x"),
        ("/a/...", "/a/..."),
        ("/a;x=1/..;/b", "/a;x=1/..;/b"),
        ("/A", "/A"),
        ("/a/%2e%2e/b", "/a/%2e%2e/b"),
    ],
)
def test_r35_paths_are_normalised(path: str, normal: str) -> None:
    assert normalise_path(path) == normal


@pytest.mark.parametrize(
    ("path", "matches"),
    [
        ("/health", True),
        ("/health/", False),
        ("/healthy", False),
        ("/public", True),
        ("/public/", True),
        ("/public/a/b", True),
        ("//public//a", True),
        ("/publication", False),
        ("/admin", False),
        ("/public/../admin", False),
        ("/public\\..\\admin", False),
        ("/admin?x=/public/a", False),
        ("/admin/public/a", False),
        ("/Public/a", False),
    ],
)
def test_r35_only_the_normalised_path_is_matched(path: str, matches: bool) -> None:
    assert path_matches(path, ["/health", "/public/*"]) is matches


def test_r35_a_star_below_the_root_matches_everything_and_no_pattern_nothing() -> None:
    assert path_matches("/any/thing", ["/*"])
    assert path_matches("/", ["/*"])
    assert not path_matches("/", [])


@given(path=paths)
def test_r35_only_a_path_that_is_normal_already_is_exempt(path: str) -> None:
    exempt = path_is_exempt(path, ["/public/*"])
    assert exempt == (path == normalise_path(path) and (path == "/public" or path.startswith("/public/")))


@pytest.mark.parametrize("path", ["/admin/../public/x", "//public/x", "/public/./x", "/public\\x", "public/x"])
def test_r35_a_path_that_a_router_could_read_otherwise_is_not_exempt(path: str) -> None:
    assert path_matches(path, ["/public/*"])
    assert not path_is_exempt(path, ["/public/*"])


@given(path=hostile | hostile.map(lambda text: "/" + text))
def test_r35_a_redirect_never_leaves_this_host(path: str) -> None:
    location = safe_redirect(path)
    assert re.fullmatch(r"/(?:[^/\\][!-~]*)?", location)
    assert "\\" not in location
    decoded = location.partition("?")[0]
    for _ in range(6):
        assert not decoded.startswith(("//", "/\\"))
        assert "\\" not in decoded
        assert not any(ord(character) < 0x20 or ord(character) == 0x7F for character in decoded)
        decoded = unquote(decoded)
    for base in ("https://good.example/", "https://good.example/login/now?next=x"):
        target = urlsplit(urljoin(base, location))
        assert (target.scheme, target.netloc) == ("https", "good.example")
    assert safe_redirect(location) == location


@given(path=st.lists(st.text("abc é%?&=~", min_size=1, max_size=5).filter(lambda text: text.strip(".")), max_size=4))
def test_r35_a_harmless_path_leads_where_it_says(path: list[str]) -> None:
    wanted = "/" + "/".join(path)
    location = safe_redirect(wanted)
    if "%" not in wanted and "//" not in wanted.partition("?")[0]:
        assert unquote(location) == wanted


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/login", "/login"),
        ("/a b/é", "/a%20b/%C3%A9"),
        ("/a%20b", "/a%20b"),
        ("/100%", "/100%25"),
        ("/login?next=/cart&x=//y", "/login?next=/cart&x=//y"),
        ("/a#b", "/a%23b"),
        ("/.well-known/x", "/.well-known/x"),
        ("/a/", "/a/"),
        ("", "/"),
        ("login", "/"),
        ("https://evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("\\\\evil.example", "/"),
        ("/\t/evil.example", "/"),
        ("/\n/evil.example", "/"),
        (" //evil.example", "/"),
        ("/%2Fevil.example", "/"),
        ("/%5Cevil.example", "/"),
        ("/%09/evil.example", "/"),
        ("/%252Fevil.example", "/"),
        ("/%2%46evil.example", "/"),
        ("/a%0d%0aSet-Cookie:x=y", "/"),
        ("/a\r\nSet-Cookie: x=y", "/"),
        ("/a?b=\r\nSet-Cookie: x=y", "/"),
        ("/.//evil.example", "/"),
        ("/a/..//evil.example", "/"),
        ("/a//b", "/"),
        ("/%25252525252F", "/"),
        ("/\ud800", "/"),
    ],
)
def test_r35_a_redirect_is_a_relative_percent_encoded_path(path: str, location: str) -> None:
    assert safe_redirect(path) == location


@given(origin=st.none() | st.text(max_size=40), scheme=st.text(max_size=6), host=st.text(max_size=30))
def test_r36_any_origin_is_judged_without_an_error(origin: str | None, scheme: str, host: str) -> None:
    assert same_origin(origin, scheme=scheme, host=host, allowed=[host]) in {True, False}


@pytest.mark.parametrize(
    ("origin", "scheme", "host", "allowed", "same"),
    [
        ("https://a.example", "wss", "a.example", [], True),
        ("https://a.example", "https", "a.example:443", [], True),
        ("https://A.Example:443", "wss", "a.example", [], True),
        ("http://a.example:80", "ws", "a.example", [], True),
        ("http://localhost:8000", "ws", "localhost:8000", [], True),
        ("http://[::1]:8000", "ws", "[::1]:8000", [], True),
        ("https://app.example", "wss", "a.example", ["https://b.example", "https://app.example"], True),
        ("app://local", "wss", "a.example", ["app://local"], True),
        (None, "wss", "a.example", ["https://a.example"], False),
        ("", "wss", "a.example", [], False),
        ("null", "wss", "a.example", ["null"], False),
        ("http://a.example", "wss", "a.example", [], False),
        ("https://a.example:444", "wss", "a.example", [], False),
        ("https://a.example.evil.example", "wss", "a.example", ["https://b.example"], False),
        ("https://evil.example", "wss", "a.example", ["*", "https://a.example"], False),
        ("https://a.example@evil.example", "wss", "a.example", [], False),
        ("https://a.example/", "wss", "a.example", [], False),
        ("https://a.example, https://b.example", "wss", "a.example", [], False),
        ("https://a.example", "wss", "", [], False),
        ("https://a.example", "wss", "a.example/x", [], False),
        ("https://a.example\n", "wss", "a.example", [], False),
    ],
)
def test_r36_only_the_same_and_the_allowed_origins_pass(
    origin: str | None, scheme: str, host: str, allowed: list[str], same: bool
) -> None:
    assert same_origin(origin, scheme=scheme, host=host, allowed=allowed) is same
