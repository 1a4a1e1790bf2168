"""The same application gives the same answers in every dress and on every store."""

from __future__ import annotations

import base64

import pytest

from sojourn.crypto import token_id
from tests.integration.conftest import Site

ANONYMOUS: dict[str, object] = {"principal": None, "count": 0, "cart": [], "extras": {}}


def seen(site: Site, *, by: str | None = None) -> dict[str, object]:
    """Return what /read says, without the outcome."""
    reply = site.browser.get("/read", headers={} if by is None else {"cookie": f"sojourn={by}"})
    assert reply.status == 200
    body: dict[str, object] = reply.json()
    body.pop("outcome")
    return body


def test_r17_a_visitor_who_touches_nothing_costs_no_io_and_gets_no_cookie(site: Site) -> None:
    site.browser.get("/read")
    before = site.io()
    reply = site.browser.get("/untouched")
    assert (reply.status, reply.json()) == (200, "x")
    assert site.io() == before
    assert reply.all("set-cookie") == []
    assert reply.header("vary") is None


def test_r17_an_anonymous_read_costs_no_io_and_gets_no_cookie(site: Site) -> None:
    before = site.io()
    reply = site.browser.get("/read")
    assert site.io() == before
    assert reply.all("set-cookie") == []
    assert reply.header("vary") == "Cookie"


def test_r18_the_first_write_sets_the_cookie_with_its_attributes(site: Site) -> None:
    reply = site.browser.get("/count")
    (line,) = reply.all("set-cookie")
    pair, *attributes = line.split("; ")
    assert pair == f"sojourn={site.browser.token}"
    age = next(one for one in attributes if one.startswith("Max-Age="))
    assert 3590 <= int(age.removeprefix("Max-Age=")) <= 3600
    attributes.remove(age)
    assert sorted(attributes) == ["HttpOnly", "Path=/", "SameSite=Lax"]


def test_r18_production_sets_a_host_cookie_that_is_secure(build) -> None:
    site = build(preset="production")
    reply = site.browser.get("/count")
    (line,) = reply.all("set-cookie")
    assert line.startswith("__Host-session=")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= set(line.split("; "))
    assert "Domain" not in line
    assert seen(site)["count"] == 1


def test_r17_a_read_sets_no_cookie_and_writes_nothing(site: Site) -> None:
    site.browser.get("/count")
    token = site.browser.token
    reply = site.browser.get("/read")
    assert reply.json()["count"] == 1
    assert reply.all("set-cookie") == []
    assert site.browser.token == token


def test_a_change_inside_the_data_is_seen(site: Site) -> None:
    site.browser.get("/put?book")
    site.browser.get("/put?pen")
    assert seen(site)["cart"] == ["book", "pen"]


def test_r8_login_rotates_and_the_old_token_is_dead(site: Site) -> None:
    site.browser.get("/put?book")
    old = site.browser.token
    assert old is not None
    reply = site.browser.get("/login?42")
    assert len(reply.all("set-cookie")) == 1
    assert site.browser.token != old
    assert seen(site) == {**ANONYMOUS, "principal": "42", "cart": ["book"]}
    if not site.is_client_side:
        assert seen(site, by=old) == ANONYMOUS


def test_r8_a_rotation_keeps_the_session_and_kills_the_old_token(site: Site) -> None:
    site.browser.get("/login?42")
    old = site.browser.token
    site.browser.get("/rotate")
    assert site.browser.token != old
    assert seen(site)["principal"] == "42"
    if not site.is_client_side:
        assert seen(site, by=old) == ANONYMOUS


def test_r13_logout_removes_the_record_and_clears_the_cookie(site: Site) -> None:
    set_line = site.browser.get("/login?42").all("set-cookie")[0]
    old = site.browser.token
    (line,) = site.browser.get("/logout").all("set-cookie")
    assert line.startswith("sojourn=; Max-Age=0; ")
    attributes = {one for one in set_line.split("; ")[1:] if not one.startswith("Max-Age")}
    assert attributes == set(line.split("; ")[3:])
    assert site.browser.token is None
    if not site.is_client_side:
        assert seen(site, by=old) == ANONYMOUS


def test_a_flash_message_is_read_exactly_once(site: Site) -> None:
    site.browser.get("/say?saved")
    assert [site.browser.get("/hear").json() for _ in range(3)] == ["saved", None, None]


def test_a_flash_message_is_not_consumed_by_a_request_that_does_not_read_it(site: Site) -> None:
    site.browser.get("/say?saved")
    site.browser.get("/read")
    site.browser.get("/count")
    assert site.browser.get("/hear").json() == "saved"


def test_extras_are_kept(site: Site) -> None:
    site.browser.get("/extra?1")
    assert seen(site)["extras"] == {"extra": ["1"]}


def test_a_write_after_destroy_raises_and_the_session_is_gone(site: Site) -> None:
    site.browser.get("/login?42")
    old = site.browser.token
    reply = site.browser.get("/destroy")
    assert reply.json() == "SessionStateError"
    assert site.browser.token is None
    if not site.is_client_side:
        assert seen(site, by=old) == ANONYMOUS


@pytest.mark.parametrize("path", ["/fail", "/raise"])
def test_f23_a_failed_request_commits_nothing(site: Site, path: str) -> None:
    site.browser.get("/count")
    reply = site.browser.get(path)
    assert reply.status == 500
    assert reply.all("set-cookie") == []
    assert seen(site)["count"] == 1


@pytest.mark.parametrize("path", ["/fail", "/raise"])
def test_f23_a_failed_first_request_starts_no_session(site: Site, path: str) -> None:
    reply = site.browser.get(path)
    assert (reply.status, reply.all("set-cookie")) == (500, [])
    assert site.browser.token is None
    assert "started" not in site.observer.names


@pytest.mark.parametrize("path", ["/fail-after-logout", "/raise-after-logout"])
def test_f23_logout_is_carried_out_although_the_request_failed(site: Site, path: str) -> None:
    site.browser.get("/login?42")
    old = site.browser.token
    assert site.browser.get(path).status == 500
    assert "deleted" in site.observer.names
    if not site.is_client_side:
        assert seen(site, by=old) == ANONYMOUS


def test_f23_a_5xx_that_the_application_answered_still_clears_the_cookie_after_logout(site: Site) -> None:
    site.browser.get("/login?42")
    site.browser.get("/fail-after-logout")
    assert site.browser.token is None


def test_f23_commit_on_error_saves_a_5xx(build) -> None:
    site = build(commit_on_error=True)
    site.browser.get("/fail")
    assert seen(site)["count"] == 100


JUNK = {
    "a wrong one": base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip("="),
    "empty": "",
    "truncated": None,
    "100 kB": "A" * 100_000,
    "not ASCII": "\xe4\xf6\xfc" * 14 + "x",
    "control characters": "\x01\x02" * 21 + "x",
    "quoted": '"' + "A" * 43 + '"',
    "not canonical": "A" * 42 + "B",
    "padded": "A" * 43 + "=",
}


@pytest.mark.parametrize("junk", list(JUNK))
def test_r4_a_cookie_that_leads_nowhere_is_anonymous_and_nothing_is_lost(site: Site, junk: str) -> None:
    site.browser.get("/count")
    token = site.browser.token or ""
    value = JUNK[junk]
    reply = site.browser.get("/read", headers={"cookie": f"sojourn={token[:-1] if value is None else value}"})
    assert reply.status == 200
    assert reply.json()["count"] == 0
    assert reply.all("set-cookie") == []
    assert seen(site)["count"] == 1


def test_r4_a_malformed_cookie_reaches_no_store(site: Site) -> None:
    before = site.io()
    site.browser.get("/read", headers={"cookie": "sojourn=" + "A" * 100_000})
    site.browser.get("/read", headers={"cookie": "sojourn=short"})
    assert site.io() == before


def test_r3_a_token_that_the_store_does_not_know_is_never_adopted(site: Site) -> None:
    fixed = JUNK["a wrong one"] or ""
    site.browser.get("/count", headers={"cookie": f"sojourn={fixed}"})
    assert site.browser.token not in {None, fixed}
    assert seen(site, by=fixed) == ANONYMOUS
    assert seen(site)["count"] == 1


def test_r22_with_two_cookies_only_a_single_match_counts(site: Site) -> None:
    site.browser.get("/count")
    own = site.browser.token
    strange = JUNK["a wrong one"]
    for pair in (f"sojourn={own}; sojourn={strange}", f"sojourn={strange}; sojourn={own}"):
        assert site.browser.get("/read", headers={"cookie": pair}).json()["count"] == 1
    other = site.browser.another()
    other.get("/login?7")
    for pair in (f"sojourn={own}; sojourn={other.token}", f"sojourn={other.token}; sojourn={own}"):
        assert site.browser.get("/read", headers={"cookie": pair}).json() == {**ANONYMOUS, "outcome": "unknown"}


def test_r22_the_same_cookie_twice_is_one(site: Site) -> None:
    site.browser.get("/count")
    own = site.browser.token
    assert site.browser.get("/read", headers={"cookie": f"sojourn={own}; sojourn={own}"}).json()["count"] == 1


def test_r22_of_three_cookies_none_is_believed(site: Site) -> None:
    site.browser.get("/count")
    own, strange = site.browser.token or "", JUNK["a wrong one"] or ""
    third = "B" + strange[1:]
    reply = site.browser.get("/read", headers={"cookie": f"sojourn={own}; sojourn={strange}; sojourn={third}"})
    # what is forged does not count beside a cookie that authenticates by itself (SECURITY R45)
    assert reply.json()["count"] == (1 if site.sessions.engine.client_side else 0)


def test_r5_a_token_anywhere_but_in_the_cookie_is_ignored(site: Site) -> None:
    site.browser.get("/login?42")
    stranger, token = site.browser.another(), site.browser.token or ""
    replies = [
        stranger.get(f"/read?sojourn={token}"),
        stranger.post("/read", form={"sojourn": token}),
        stranger.post("/read", json={"sojourn": token}),
        stranger.get("/read", headers={"authorization": f"Bearer {token}", "x-session": token, "sojourn": token}),
        stranger.get("/read", headers={"set-cookie": f"sojourn={token}", "cookie2": f"sojourn={token}"}),
    ]
    assert [reply.json()["principal"] for reply in replies] == [None] * 5


def test_r23_a_public_answer_that_carries_the_cookie_is_kept_out_of_caches(site: Site) -> None:
    reply = site.browser.get("/public")
    assert reply.all("set-cookie")
    directives = {one.strip() for value in reply.all("cache-control") for one in value.split(",")}
    assert 'no-cache="Set-Cookie"' in directives or directives & {"private", "no-store", "no-cache"}
    assert {one.strip() for value in reply.all("vary") for one in value.split(",")} == {"Accept", "Cookie"}


def test_r23_a_stricter_value_of_the_application_is_kept(site: Site) -> None:
    reply = site.browser.get("/private")
    assert reply.all("cache-control") == ["no-store"]
    assert reply.all("vary") == ["Accept, cookie"]


def test_r23_a_write_that_sets_no_cookie_leaves_caching_alone_but_varies(build) -> None:
    site = build()
    site.browser.get("/count")
    reply = site.browser.get("/public")
    if not site.is_client_side:
        assert reply.all("set-cookie") == []
        assert reply.all("cache-control") == ["public, max-age=60"]
    assert "Cookie" in ",".join(reply.all("vary"))


def test_r20_a_cookie_that_is_too_large_is_refused_and_the_old_one_kept(site: Site) -> None:
    site.browser.get("/count")
    token = site.browser.token
    reply = site.browser.get("/fill?6000")
    if site.is_client_side:
        assert (reply.status, reply.all("set-cookie")) == (500, [])
        assert site.browser.token == token
    else:
        assert reply.status == 200
    assert seen(site)["count"] == 1


def test_two_visitors_never_see_each_other(site: Site) -> None:
    other = site.browser.another()
    site.browser.get("/login?1")
    other.get("/login?2")
    assert site.browser.get("/read").json()["principal"] == "1"
    assert other.get("/read").json()["principal"] == "2"


def test_a_test_sets_and_reads_the_session_of_any_application(site: Site) -> None:
    with site.browser.session() as session:
        session.login("42")
        session.data.cart.append("book")
    assert seen(site) == {**ANONYMOUS, "principal": "42", "cart": ["book"]}
    site.browser.get("/put?pen")
    with site.browser.session() as session:
        assert session.data.cart == ["book", "pen"]
        assert token_id(site.browser.token or "") == session.id or site.is_client_side
        session.logout()
    assert site.browser.token is None
