"""The rules of a store, numbered; docs/stores.md explains each, and a test compares the two lists.

The one rule about rules: whatever a suite finds names the rule that is broken, in a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NoReturn

STORE_RULES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "S1": "create stores a record if its id is absent, and only then",
        "S2": "replace never brings a record into being",
        "S3": "replace succeeds on the expected version and on no other",
        "S4": "a repeated write is answered OK and has no second effect",
        "S5": "a record keeps its last 4 write ids and no others",
        "S6": "touch says whether the record is there, and never brings it back",
        "S7": "touch never moves the idle deadline past the absolute one",
        "S8": "touch moves the idle deadline, and never backwards",
        "S9": "touch changes nothing but the idle deadline",
        "S10": "delete with an expected version spares every other version",
        "S11": "a deleted record is gone, and deleting it again says so",
        "S12": "a record is absent in every method from its deadline on, and not before",
        "S13": "a record is read back as it was written",
        "S14": "what a store hands out or was handed never changes afterwards",
        "S15": "ids_of names every live record of its label, each once",
        "S16": "ids_of names no live record of another label",
        "S17": "scan yields every live record once, and nothing else",
        "S18": "count counts the live records",
        "S19": "clear deletes every record of the store, and nothing else",
        "S20": "calls at the same time act as if one came after the other",
        "S21": "a store waits only in the way that its io says",
        "S22": "aclose may be called twice",
        "S23": "a blocking twin works on the same data",
        "S24": "a store has the capabilities that are claimed for it",
        "S25": "a partition names the server of every record, the same one each time",
    }
)
"""What every store keeps; S15 to S19, S23 and S25 concern stores with that capability."""

CLIENT_SIDE_RULES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "C1": "the token carries the record: id, version, payload and deadlines",
        "C2": "a malformed token gives None, and no token raises",
        "C3": "equal records give equal tokens",
        "C4": "a token consists of characters that a cookie may hold",
        "C5": "a token is hardly longer than its payload in base64url",
    }
)
"""What a client-side store keeps, besides S21, S22 and S24."""


class RuleViolationError(AssertionError):
    """A store breaks one of its rules; *rule* is its number, *detail* says what was seen."""

    def __init__(self, rule: str, detail: str, history: Sequence[str] = ()) -> None:
        sentence = STORE_RULES.get(rule) or CLIENT_SIDE_RULES[rule]
        calls = "".join(f"\n    {line}" for line in history)
        super().__init__(f"{rule} {sentence}: {detail}{calls and f'{chr(10)}  after these calls:{calls}'}")
        self.rule = rule
        self.detail = detail


def violated(rule: str, detail: str, history: Sequence[str] = ()) -> NoReturn:
    """Say that a rule is broken, by what, and after which calls."""
    raise RuleViolationError(rule, detail, history)
