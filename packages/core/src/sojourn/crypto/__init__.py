"""Tokens, keys and authenticated encryption; nothing else in sojourn touches cryptography.

All algorithms come from `cryptography`, `hmac` and `hashlib`.
"""

from __future__ import annotations

from sojourn.crypto.ciphers import BUILTIN_CIPHERS, AesCbcHmac, AesGcm, Box, Cipher, CryptoError, Undisclosed
from sojourn.crypto.keys import HOW_TO_MAKE_A_SECRET, KEY_ID_BYTES, Key, KeyRing, new_secret
from sojourn.crypto.tokens import (
    TOKEN_LENGTH,
    TOKEN_PATTERN,
    decode_bytes,
    encode_bytes,
    is_token,
    new_token,
    token_id,
)

__all__ = [
    "BUILTIN_CIPHERS",
    "HOW_TO_MAKE_A_SECRET",
    "KEY_ID_BYTES",
    "TOKEN_LENGTH",
    "TOKEN_PATTERN",
    "AesCbcHmac",
    "AesGcm",
    "Box",
    "Cipher",
    "CryptoError",
    "Key",
    "KeyRing",
    "Undisclosed",
    "decode_bytes",
    "encode_bytes",
    "is_token",
    "new_secret",
    "new_token",
    "token_id",
]
