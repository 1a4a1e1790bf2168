"""Which secrets anybody could guess: too short, of few characters, repeated, or out of a tutorial.

Its rule: it answers with a reason that never quotes the secret (SECURITY R6, R30).
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

MINIMUM_PASSPHRASE: Final = 20

_DISTINCT: Final = 8  # 32 random bytes have fewer different values once in 10^33 draws
_UNKNOWN: Final = 8  # characters that must be left of a passphrase without the words of tutorials
_NOT_LETTERS: Final = re.compile(r"[\W_]+")
_WORDS: Final = re.compile(
    "correcthorsebatterystaple|abcdefghijklmnopqrstuvwxyz|qwertyuiop|asdfghjkl|zxcvbnm"
    "|0123456789abcdefghijklmnopqrstuvwxyz|0123456789abcdef"
    "|1234567890|0123456789|123456789|development|production|characters|passphrase|placeholder|password|sessions|changeit|changeme"
    "|insecure|security|replace|session|sojourn|default|django|flask|fastapi|example|correct|testing|letmein|cookie"
    "|random|secret|string|secure|should|please|before|change|insert|super|least|hello|value|world|server|your|this"
    "|that|with|must|test|long|very|some|text|here|goes|admin|token|words|word|make|dont|salt|bytes|byte|app|dev|key|the"
    "|not|for|use|put|you|and|top|so|to|do|in|is|it|be|of|or|at|my|me|an|a"
)


def weakness(secret: str | bytes) -> str | None:
    """Say what makes *secret* guessable, or None: text is a key or a passphrase, bytes are a random key."""
    if len(secret) < MINIMUM_PASSPHRASE:
        return f"has fewer than {MINIMUM_PASSPHRASE} characters"
    if len(set(secret)) < _DISTINCT:
        return f"has fewer than {_DISTINCT} different characters"
    if any(secret[period:] == secret[:-period] for period in range(1, len(secret) // 2 + 1)):
        return "repeats itself"
    codes = secret if isinstance(secret, bytes) else [ord(character) for character in secret]
    if len({following - code for code, following in pairwise(codes)}) == 1:
        return "is counted, not drawn"
    if isinstance(secret, str):
        letters = _NOT_LETTERS.sub("", secret.casefold())
        if len(_WORDS.sub("", letters)) < _UNKNOWN:
            return "is a well-known value"
    return None
