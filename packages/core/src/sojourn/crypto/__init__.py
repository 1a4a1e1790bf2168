"""Tokens, ids, and base64url without padding; keys and authenticated encryption beside. Nothing else touches cryptography.

Only the canonical spelling is accepted, so that no two tokens lead to one session (SECURITY R4). All algorithms come from
`cryptography`, `hmac` and `hashlib`.
"""

from __future__ import annotations

import re
import secrets
from binascii import a2b_base64, b2a_base64
from hashlib import sha256
from typing import Final

TOKEN_BYTES: Final = 32
TOKEN_LENGTH: Final = 43

_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
_LAST: Final = {1: "AEIMQUYcgkosw048", 2: "AQgw", 3: ""}
"""By the number of characters missing to a group of four: those that may stand last, their unused bits being zero."""
# 43 characters carry 258 bits; the last one may only be of those whose two low bits are zero.
TOKEN_PATTERN: Final = "[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]"
_TOKEN: Final = re.compile(TOKEN_PATTERN)


def new_token() -> str:
    """Draw 256 bits from the operating system: 43 base64url characters (SECURITY R1)."""
    return encode_bytes(secrets.token_bytes(TOKEN_BYTES))


def is_token(value: str) -> bool:
    """Return whether *value* is exactly 43 canonical base64url characters; never raises (SECURITY R4)."""
    return _TOKEN.fullmatch(value) is not None


def token_id(token: str) -> str:
    """Return the id of a well-formed token: base64url of its SHA-256; stores see nothing else (SECURITY R2)."""
    return b2a_base64(sha256(token.encode()).digest(), newline=False).translate(_TO_URL).decode()[:TOKEN_LENGTH]


def encode_bytes(raw: bytes) -> str:
    """Encode *raw* as base64url without padding."""
    # By replacing: one character in thirty-two is another one, and a table would be asked for each.
    text = b2a_base64(raw, newline=False).rstrip(b"=").replace(b"+", b"-").replace(b"/", b"_")
    return text.decode("ascii")


def decode_bytes(text: str) -> bytes:
    """Decode base64url without padding; raise ValueError unless *text* is the canonical spelling of its bytes."""
    missing = -len(text) % 4
    # The strict decoder ignores unused bits in the last character, and knows the characters of the other alphabet.
    if "+" in text or "/" in text or "=" in text or (missing and text[-1] not in _LAST[missing]):
        raise ValueError("not canonical base64url without padding")
    try:
        return a2b_base64(text.replace("-", "+").replace("_", "/") + "=" * missing, strict_mode=True)
    except ValueError:
        raise ValueError("not canonical base64url without padding") from None
