"""Targets before the seal: headers, paths, tokens, and the decoders of what was opened."""

from __future__ import annotations

import math
from typing import Final
from urllib.parse import urljoin, urlsplit

from fuzz.sealed import Basket
from fuzz.target import Check, ForgeryError, Target, require
from sojourn.binding import TrustedProxies, parse_address
from sojourn.cookies import CookiePolicy, read_cookies
from sojourn.crypto import decode_bytes, encode_bytes, is_token, token_id
from sojourn.errors import ConfigurationError, CookieTooLargeError, SerializationError
from sojourn.http import add_vary, cache_control, normalise_path, path_is_exempt, safe_redirect, same_origin
from sojourn.manager.guarded_store import run_blocking
from sojourn.manager.opening import find_tokens
from sojourn.serializers import builtin_serializer
from sojourn.session.payload import decode_payload, encode_payload, unpack_map
from sojourn_store_cookie import CookieStore
from sojourn_store_redis.records import HEAD_BYTES
from sojourn_store_redis.records import unpack as unpack_redis

_NAME: Final = "__Host-session"
_ID: Final = token_id("the record under attack")


def _cookie_header(data: bytes) -> None:
    header = data.decode("latin-1")
    for value in read_cookies(header, _NAME):
        require(value in header and ";" not in value, "a cookie's value that the header does not hold")
    own = f"{header}; {_NAME}=mine"
    require(read_cookies(own, _NAME)[-1] == "mine", "a prefix of the header hid our cookie")
    tokens = find_tokens(CookiePolicy(name=_NAME), header)
    require(len(tokens) <= 2 and all(map(is_token, tokens)), "a token that may not be looked up")


def _set_cookie(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    name, path, domain, value = (*text.split("\t"), "", "", "", "")[:4]
    try:
        policy = CookiePolicy(name=name or "session", path=path or "/", domain=domain or None)
        lines = (policy.set_header(value, 60), policy.clear_header())
    except (ConfigurationError, CookieTooLargeError, SerializationError):
        return
    for line in lines:
        require(line.isascii() and line.isprintable(), "a header with a control character")
        require(line.count(";") == 5 + bool(domain) + ("; Expires=" in line), "an attribute too many")


def _token(data: bytes) -> None:
    text = data.decode("latin-1")
    if is_token(text):
        require(encode_bytes(decode_bytes(text)) == text and len(decode_bytes(text)) == 32, "two spellings of a token")
        require(token_id(text) != text, "an id that is its token")
    else:
        require(
            text not in find_tokens(CookiePolicy(), f"__Host-session={text}"),
            "a malformed token that would be looked up",
        )
    try:
        raw = decode_bytes(text)
    except ValueError:
        return
    require(encode_bytes(raw) == text, "two spellings of the same bytes")


def _cookie_record(data: bytes) -> None:
    store = CookieStore()
    for token in (data.decode("latin-1"), encode_bytes(data)):
        record = run_blocking(store.load(token))
        if record is not None:
            require(run_blocking(store.create(record, write_id=b"")) == token, "two tokens of one record")


def _forwarded() -> Check:
    proxies = TrustedProxies(("10.0.0.0/8", "fd00::/8"))

    def check(data: bytes) -> None:
        one, _, two = data.decode("latin-1").partition("\n")
        found = proxies.address("10.0.0.1", [one] if one else [], [two] if two else [])
        require(found is None or parse_address(found) is not None, "an address that is none")
        if proxies.address("10.0.0.1", [one, "192.0.2.7"], ()) != "192.0.2.7":
            raise ForgeryError("X-Forwarded-For was read past what the proxy appended")
        if proxies.address("10.0.0.1", (), [two, "for=192.0.2.7"]) != "192.0.2.7":
            raise ForgeryError("Forwarded was read past what the proxy appended")
        if proxies.address("198.51.100.9", [one], [two]) != "198.51.100.9":
            raise ForgeryError("a peer that is no proxy named its own address")

    return check


def _payload(data: bytes) -> None:
    for decode in (decode_payload, unpack_map):
        try:
            value = decode(data)
        except SerializationError:
            continue
        if decode is decode_payload:
            require(decode_payload(encode_payload(decode_payload(data))) is not None, "a payload that does not survive")
        else:
            require(isinstance(value, dict), "extras that are no mapping")


def _serializer(name: str) -> Check:
    serializer = builtin_serializer(name, Basket)
    if serializer is None:
        raise LookupError(name)

    def check(data: bytes) -> None:
        try:
            fields = serializer.decode_fields(data)
            require(isinstance(fields, dict), "fields that are no mapping")
        except SerializationError:
            pass
        try:
            model = serializer.decode(data)
        except SerializationError:
            return
        require(type(model) is Basket, "a model of another type")

    return check


def _redis_record(data: bytes) -> None:
    for value in (data, b"\x01" + data.ljust(HEAD_BYTES, b"\x00")):
        record = unpack_redis(_ID, value)
        if record is not None:
            require(math.isfinite(record.deadline) and record.version >= 0, "a deadline that is no moment")
            require(len(record.write_ids) <= 255 and record.id == _ID, "a record of another id")


def _path(data: bytes) -> None:
    path = data.decode("utf-8", "surrogateescape")
    normal = normalise_path(path)
    require(normalise_path(normal) == normal and normal[:1] == "/" and normal[:2] != "//", "a path that is not normal")
    if path_is_exempt(path, ["/public/*"]) and not (path == "/public" or path.startswith("/public/")):
        raise ForgeryError("a path outside /public is exempt")
    location = safe_redirect(path)
    landed = urlsplit(urljoin("https://shop.example/cart", location))
    if (landed.scheme, landed.netloc) != ("https", "shop.example"):
        raise ForgeryError("a redirect leaves the site")
    require(location.isascii() and location.isprintable() and "\\" not in location, "a redirect with odd characters")
    require(safe_redirect(location) == location, "a redirect that is not stable")


def _headers(data: bytes) -> None:
    values = data.decode("latin-1").split("\n")
    replaced = cache_control(values)
    require(replaced is None or cache_control([replaced]) is None, "Cache-Control that is still not strict")
    require(add_vary([*values, add_vary(values) or ""]) is None, "Vary without Cookie")
    if same_origin(values[0], scheme="https", host="shop.example"):
        text = values[0].lower()
        if text not in {
            "https://shop.example",
            "https://shop.example:443",
            "wss://shop.example",
            "wss://shop.example:443",
        }:
            require(text.rpartition(":")[2].lstrip("0") == "443", "another origin passed for ours")


_COOKIE: Final = b'a=1; __Host-session=ELMfHuNvAFiwLnzA6tf3bQ4SgTbZeFTSXgCK5sf5f7M; b="2"'
_JSON: Final = b'{"user_id":1,"items":["a"],"notes":{"k":[1,2.5,null,{"x":"\\u00e9"}]}}'
_MSGPACK: Final = (
    b"\x83\xa7user_id\x01\xa5items\x91\xa1a\xa5notes\x81\xa1k\x93\x01\xcb@\x04\x00\x00\x00\x00\x00\x00\xc0"
)
_TIME: Final = b"\xcb\x41\xda\xd2\x74\x80\x00\x00\x00"

PLAIN_TARGETS: Final = (
    Target("cookie-header", lambda: _cookie_header, (_COOKIE, b'__Host-session=""; \t __Host-session=x')),
    Target("set-cookie", lambda: _set_cookie, (b"session\t/a\texample.org\tabc", b"__Secure-x\t/\t\tv\r\nX: y")),
    Target("token", lambda: _token, (b"ELMfHuNvAFiwLnzA6tf3bQ4SgTbZeFTSXgCK5sf5f7M",), 128),
    Target("cookie-record", lambda: _cookie_record, (b"\x01" + bytes(90),), 4200),
    Target(
        "forwarded", _forwarded, (b'192.0.2.1, 10.0.0.2\nfor="[2001:db8::1]:80";proto=https, for=_x', b"1.2.3.4:5\n")
    ),
    Target("payload", lambda: _payload, (b"\x93\xc4\x02{}" + _TIME * 2, b"\x81\xa1k\xa1v")),
    Target("json", lambda: _serializer("json"), (_JSON,)),
    Target("msgpack", lambda: _serializer("msgpack"), (_MSGPACK,)),
    Target(
        "redis-record", lambda: _redis_record, (b"\x01" + bytes(7) + b"\x01" + _TIME[1:] * 2 + b"\x01" + bytes(40),)
    ),
    Target(
        "path", lambda: _path, (b"/public/../admin?x=/public", b"/%252F/evil.example", b"/\\evil", b"//evil.example")
    ),
    Target("headers", lambda: _headers, (b'public, no-cache="Set-Cookie"\nmax-age=1', b"https://shop.example:443")),
)
