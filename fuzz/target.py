"""What a target is, and how genuine bytes are damaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Check = Callable[[bytes], None]


class ForgeryError(AssertionError):
    """Something that was not genuine was accepted."""


class BrokenPropertyError(AssertionError):
    """Something that must hold for every input did not."""


@dataclass(frozen=True, slots=True)
class Target:
    """One way in: *make* prepares the check once; *seeds* are inputs to start from."""

    name: str
    make: Callable[[], Check]
    seeds: tuple[bytes, ...] = (b"",)
    max_length: int = 1024


def require(holds: object, what: str) -> None:
    """Raise BrokenPropertyError unless *holds*."""
    if not holds:
        raise BrokenPropertyError(what)


def damage(genuine: bytes, script: bytes) -> bytes:
    """Follow a *script* of four bytes a step: flip, insert, delete, cut or repeat at a place; may end up unchanged."""
    raw = bytearray(genuine)
    for at in range(0, len(script) - 3, 4):
        step, high, low, value = script[at : at + 4]
        place = (high << 8 | low) % (len(raw) + 1)
        match step % 5:
            case 0:
                if place < len(raw):
                    raw[place] ^= value
            case 1:
                raw.insert(place, value)
            case 2:
                del raw[place : place + 1 + value % 8]
            case 3:
                del raw[place:]
            case _:
                raw[place:place] = raw[: value % 32]
    return bytes(raw)
