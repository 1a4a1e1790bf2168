"""Reading the Cookie header and writing Set-Cookie: size, prefix and attribute rules.

Everything that goes into a header is checked against the grammar of RFC 6265, so that no value and no setting can inject
an attribute or a header.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from sojourn.errors import ConfigurationError, CookieTooLargeError, SerializationError

SameSite = Literal["lax", "strict", "none"]

MAX_COOKIE_BYTES: Final = 4096
"""The most that name and value may take together, in bytes; browsers drop more (SECURITY R20, RFC 6265bis 5.6)."""
MAX_AGE_LIMIT: Final = 400 * 24 * 3600
"""The longest Max-Age in seconds, 400 days; browsers cap it there (SECURITY R21, RFC 6265bis 5.5)."""
MAX_ATTRIBUTE_BYTES: Final = 1024
"""The longest attribute value; browsers ignore a longer one (RFC 6265bis 5.6)."""

_SAME_SITE: Final = {"lax": "; SameSite=Lax", "strict": "; SameSite=Strict", "none": "; SameSite=None"}
_SECURE_PREFIXES: Final = ("__host-", "__secure-", "__http-")
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PATH: Final = re.compile(r"/[!#-+\--:<-\[\]-~]*")
_LABEL: Final = r"[0-9A-Za-z](?:[0-9A-Za-z-]{0,61}[0-9A-Za-z])?"
_DOMAIN: Final = re.compile(rf"\.?{_LABEL}(?:\.{_LABEL})*")
_AROUND: Final = frozenset(("", " ", "\t", '"'))
_OCTETS: Final = bytes(code for code in range(0x21, 0x7F) if chr(code) not in '",;\\')
"""The cookie-octets of RFC 6265 4.1.1."""


def read_cookies(header: str, name: str) -> list[str]:
    """Return every value that the Cookie *header* holds under exactly *name*, in order.

    Defined for every header, and linear in its length. Only spaces and tabs around a pair are dropped: a wider notion of
    whitespace would let a no-break space before ``__Host-session`` slip past the browser's rules. DQUOTEs around a
    value are dropped and protect nothing; nothing is percent-decoded. The caller joins several Cookie headers
    with ``"; "``.
    """
    needle = name + "="
    position = header.find(needle)
    values: list[str] = []
    start = 0
    while position >= 0:
        after = position + len(needle)
        end = header.find(";", after)
        if (
            position == 0
            or header[position - 2 : position] == "; "
            or header[start:position].rstrip(" \t")[-1:] in {"", ";"}
        ):
            value = header[after:] if end < 0 else header[after:end]
            if value[:1] in _AROUND or value[-1:] in _AROUND:
                value = value.strip(" \t")
                if value[:1] == '"' == value[-1:] and len(value) >= 2:
                    value = value[1:-1]
            values.append(value)
        if end < 0:
            break
        start = end + 1
        position = header.find(needle, start)
    return values


@dataclass(frozen=True, slots=True, kw_only=True)
class CookiePolicy:
    """The name, attributes and limits of the session cookie; checked once, when made (SECURITY R18, R19).

    Raises ``ConfigurationError`` naming the setting. That Secure is off in ``development`` and ``testing`` alone is
    checked by the settings, which know the preset.
    """

    name: str = "__Host-session"
    path: str = "/"
    domain: str | None = None
    secure: bool = True
    http_only: bool = True
    same_site: SameSite = "lax"
    partitioned: bool = False
    persistent: bool = True
    """Whether Max-Age is sent, so that the cookie outlives the browser (SECURITY R21)."""
    opening: str = field(init=False, repr=False, compare=False)
    """The name and what follows it in a header."""
    _attributes: str = field(init=False, repr=False, compare=False)
    room: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for fault in _faults(self):
            raise ConfigurationError(fault)
        attributes = [f"; Path={self.path}"]
        if self.domain is not None:
            attributes.append(f"; Domain={self.domain}")
        if self.secure:
            attributes.append("; Secure")
        attributes.extend(("; HttpOnly", _SAME_SITE[self.same_site]))
        if self.partitioned:
            attributes.append("; Partitioned")
        object.__setattr__(self, "opening", f"{self.name}=")
        object.__setattr__(self, "_attributes", "".join(attributes))
        object.__setattr__(self, "room", MAX_COOKIE_BYTES - len(self.name))

    def set_header(self, value: str, max_age: int | None, *, persistent: bool | None = None) -> str:
        """Return the value of a Set-Cookie header that gives the browser *value* for *max_age* seconds.

        None, or a policy that is not persistent (*persistent* overrides it), leaves Max-Age out; more than 400 days is cut to 400 days
        (SECURITY R21). Raises ``CookieTooLargeError`` over 4096 bytes of name and value (SECURITY R20) and
        ``SerializationError`` for a character that no cookie may hold; neither message shows the value.
        """
        if len(value) > self.room:
            raise CookieTooLargeError(
                f"the cookie {self.name!r} would take {len(self.name) + len(value)} bytes with its value, browsers "
                f"keep {MAX_COOKIE_BYTES}; keep less in the session or use a server-side store"
            )
        if not value.isascii() or value.encode("ascii").translate(None, _OCTETS):
            raise SerializationError(
                f"the cookie {self.name!r} cannot carry this value: it holds a character outside RFC 6265's "
                "cookie-octet; a store must return tokens of base64url characters"
            )
        if max_age is None or not (self.persistent if persistent is None else persistent):
            return self.opening + value + self._attributes
        seconds = MAX_AGE_LIMIT if max_age > MAX_AGE_LIMIT else int(max_age) if max_age > 0 else 0
        return f"{self.opening}{value}; Max-Age={seconds}{self._attributes}"

    def clear_header(self) -> str:
        """Return the value of a Set-Cookie header that removes the cookie, with the same attributes (SECURITY R13)."""
        return f"{self.opening}; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT{self._attributes}"


def _faults(policy: CookiePolicy) -> Iterator[str]:
    """Yield what could break out of its attribute, what browsers ignore or drop, and what gives the token away."""
    name, path, domain = policy.name, policy.path, policy.domain
    if _NAME.fullmatch(name) is None:
        yield f"SOJOURN_COOKIE_NAME is {name!r}; use letters, digits, '-' and '_' (a token of RFC 6265)"
    if len(name) > MAX_ATTRIBUTE_BYTES:
        yield f"SOJOURN_COOKIE_NAME is {len(name)} characters long; use at most {MAX_ATTRIBUTE_BYTES}"
    if _PATH.fullmatch(path) is None or len(path) > MAX_ATTRIBUTE_BYTES:
        yield (
            f"SOJOURN_COOKIE_PATH is {path[:80]!r}; use a percent-encoded path of at most {MAX_ATTRIBUTE_BYTES} characters "
            "that starts with '/' and holds no ';' and no ','"
        )
    if domain is not None and (_DOMAIN.fullmatch(domain) is None or len(domain) > 253):
        yield (
            f"SOJOURN_COOKIE_DOMAIN is {domain[:80]!r}; use a host name without scheme and port, in its ASCII form, or "
            "leave it out (the cookie then stays with the host that set it)"
        )
    if policy.same_site not in _SAME_SITE:
        yield f"SOJOURN_COOKIE_SAME_SITE is {policy.same_site!r}; use 'lax', 'strict' or 'none'"
    if not policy.http_only:
        yield "SOJOURN_COOKIE_HTTP_ONLY is false, which shows the token to every script on the page; leave it out"
    prefix = name.lower()  # browsers compare the prefixes without regard to case
    other_name = "or set SOJOURN_COOKIE_NAME to a name such as '__Secure-session'"
    if prefix.startswith("__host-") and domain is not None:
        yield (
            f"SOJOURN_COOKIE_DOMAIN is {domain!r}, but the name {name!r} forbids a domain; leave SOJOURN_COOKIE_DOMAIN out, "
            f"{other_name}"
        )
    if prefix.startswith("__host-") and path != "/":
        yield (
            f"SOJOURN_COOKIE_PATH is {path!r}, but the name {name!r} demands '/'; leave SOJOURN_COOKIE_PATH out, {other_name}"
        )
    if policy.secure:
        return
    if prefix.startswith(_SECURE_PREFIXES):
        yield (
            f"SOJOURN_COOKIE_SECURE is false, but browsers drop {name!r} without Secure; serve https, or set "
            "SOJOURN_COOKIE_NAME to 'sojourn' for development"
        )
    if policy.same_site == "none":
        yield "SOJOURN_COOKIE_SAME_SITE is 'none' without Secure, which browsers drop; set SOJOURN_COOKIE_SECURE=true"
    if policy.partitioned:
        yield "SOJOURN_COOKIE_PARTITIONED is true without Secure, which browsers drop; set SOJOURN_COOKIE_SECURE=true"
