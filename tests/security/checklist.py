"""An OWASP-style checklist for sessions, worked through over real HTTP: what `./dev prove security` prints.

Sources: OWASP Session Management cheat sheet, ASVS 5.0 chapter 7. Its one rule: every point is asked of a server on a
socket, never of the library.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from urllib.parse import urlsplit

from tests.security.shop_site import SHOP_POINTS, serving_shop
from tests.security.small_site import serving_small
from tests.security.visitors import NAME, Target

Point = Callable[[Target], bool]

PRESETS = ("production", "high_security")
SERVERS = ("uvicorn", "wsgiref", "shop")


def serving(server: str, preset: str) -> AbstractContextManager[Target]:
    """Run the small application under ``uvicorn`` or ``wsgiref``, or the ``shop``."""
    return serving_shop(preset) if server == "shop" else serving_small(server, preset)


def points_of(server: str) -> tuple[Point, ...]:
    """Return what is asked of a server."""
    return (*POINTS, *SHOP_POINTS) if server == "shop" else POINTS


def cookie_flags(target: Target) -> bool:
    """The cookie is __Host-, Secure, HttpOnly, SameSite, without Domain, no longer than the session."""
    line = target.visitor().login().headers["set-cookie"]
    attributes = {part.partition("=")[0]: part.partition("=")[2] for part in line.split("; ")[1:]}
    return (
        line.startswith(f"{NAME}=")
        and attributes.keys() == {"Max-Age", "Path", "Secure", "HttpOnly", "SameSite"}
        and (attributes["Path"], attributes["SameSite"]) == ("/", "Lax")
        and int(attributes["Max-Age"]) <= target.hours * 3600
    )


def entropy(target: Target) -> bool:
    """Tokens are 43 characters and never repeat."""
    tokens = {str(visitor.token) for visitor in (target.visitor() for _ in range(50)) if visitor.login()}
    return len(tokens) == 50 and {len(token) for token in tokens} == {43}


def no_session_for_nothing(target: Target) -> bool:
    """Pages that use no session set no cookie and vary on none."""
    headers = target.visitor().request(target.visits.untouched).headers
    read = target.visitor().request(target.visits.looked_at).headers
    return "set-cookie" not in headers and "vary" not in headers and "set-cookie" not in read


def fixation(target: Target) -> bool:
    """A token chosen by an attacker, or one from before the login, is worth nothing after it."""
    chosen = "A" * 42 + "A"
    victim = target.visitor(chosen)
    victim.login()
    before = target.visitor()
    before.write()
    planted = before.token
    before.login()
    return (
        victim.token != chosen
        and target.visitor(chosen).who() is None
        and before.token != planted
        and target.visitor(planted).who() is None
        and before.who() == "ada"
    )


def logout(target: Target) -> bool:
    """A logout ends the session on the server; the cookie is cleared, or replaced by a new visitor's, as it was set."""
    visitor = target.visitor()
    visitor.login()
    token = visitor.token
    line = visitor.logout().headers["set-cookie"]
    cleared = visitor.token is None and line.startswith(f"{NAME}=; Max-Age=0;")
    replaced = visitor.token not in {None, token}
    return (
        (replaced if target.visits.says_farewell else cleared)
        and line.endswith("Path=/; Secure; HttpOnly; SameSite=Lax")
        and target.visitor(token).who() is None
        and visitor.who() is None
    )


def idle_expiry(target: Target) -> bool:
    """A session that nobody uses ends with the idle timeout."""
    visitor = target.visitor()
    visitor.login()
    target.clock.advance(target.idle - 1)
    alive = visitor.who() == "ada"
    target.clock.advance(target.idle + 1)
    return alive and visitor.who() is None


def absolute_expiry(target: Target) -> bool:
    """However much it is used, a session ends with the absolute timeout."""
    visitor = target.visitor()
    visitor.login()
    begun = target.clock.time()
    while target.clock.time() + target.idle / 2 < begun + target.hours * 3600:
        target.clock.advance(target.idle / 2)
        if visitor.who() != "ada":
            return False
    target.clock.advance(target.idle / 2 + 1)
    return visitor.who() is None


def csrf(target: Target) -> bool:
    """A form needs the session's own token; it differs each time and ends with the login and the logout."""
    visitor, thief = target.visitor(), target.visitor()
    visitor.login()
    thief.login("basho")
    one, two, theirs = visitor.form(), visitor.form(), thief.form()
    good = one != two and visitor.pay(one) and visitor.pay(two)
    refused = {visitor.pay(token) for token in (theirs, "", one[:-2], one[::-1])} == {False}
    visitor.login()
    return good and refused and not visitor.pay(one)


def open_redirect(target: Target) -> bool:
    """Whoever is sent to the sign-in page, or on from it, stays on this site, also as browsers read an address."""
    for way in target.visitor().ways():
        read = way.strip(" ").translate({9: None, 10: None, 13: None, 92: "/"})  # the URL standard, 4.4
        parts = urlsplit(read)
        if way != read or parts.netloc or parts.scheme or not way.startswith("/") or way[1:2] == "/":
            return False
    return True


def caching(target: Target) -> bool:
    """What carries or depends on the cookie is kept out of shared caches."""
    visitor = target.visitor()
    written = visitor.write().headers
    read = visitor.request(target.visits.looked_at).headers
    return (
        'no-cache="Set-Cookie"' in written["cache-control"]
        and "cookie" in written["vary"].lower()
        and "cookie" in read["vary"].lower()
        and "set-cookie" not in read
    )


def elsewhere(target: Target) -> bool:
    """A token in the query, a header or the body is ignored."""
    visitor = target.visitor()
    visitor.login()
    stranger = target.visitor()
    page = f"{target.visits.looked_at}?{NAME}={visitor.token}"
    return stranger.told(stranger.request(page, authorization=f"Bearer {visitor.token}")) is None


def stolen(target: Target) -> bool:
    """Where binding is on, a stolen cookie does not work in another browser."""
    visitor = target.visitor()
    visitor.login()
    who = target.visitor(visitor.token, agent="another").who()
    return who == (None if target.preset == "high_security" else "ada") and visitor.who() == "ada"


def revocation(target: Target) -> bool:
    """All sessions of a user can be ended at once."""
    visitors = [target.visitor() for _ in range(3)]
    for visitor in visitors:
        visitor.login("ibn")
    ended = visitors[0].end_all("ibn")
    left = ["ibn" if target.visits.spares_itself else None, None, None]
    return ended == 3 and [visitor.who() for visitor in visitors] == left


def renewal(target: Target) -> bool:
    """Where renewal is on, the token changes while the session goes on, and the old one ends with the grace."""
    visitor = target.visitor()
    visitor.login()
    old = visitor.token
    target.clock.advance(601)
    if visitor.who() != "ada" or (visitor.token != old) is not (target.preset == "high_security"):
        return False
    target.clock.advance(31)
    return visitor.who() == "ada" and (target.visitor(old).who() is None) is (target.preset == "high_security")


def forged(target: Target) -> bool:
    """Malformed and oversize cookies are anonymous, never an error."""
    values = ("", "x", "A" * 43, "A" * 4000, '"', "%00", "é".encode().decode("latin-1"))
    visitors = [target.visitor(value) for value in values]
    answers = [visitor.request(target.visits.looked_at) for visitor in visitors]
    return all(one.status_code == 200 and target.visitor().told(one) is None for one in answers)


POINTS: tuple[Point, ...] = (
    cookie_flags,
    entropy,
    no_session_for_nothing,
    fixation,
    logout,
    idle_expiry,
    absolute_expiry,
    csrf,
    open_redirect,
    caching,
    elsewhere,
    stolen,
    revocation,
    renewal,
    forged,
)
