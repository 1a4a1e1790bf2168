"""The session a handler holds, and the pure state behind it."""

from sojourn.session.model import Migrate, Shape
from sojourn.session.payload import EMPTY, Payload, decode_payload, encode_payload, unpack_map
from sojourn.session.session import Session, draft_of
from sojourn.session.state import CLEAR, KEEP, CookieAction, CookieChange, Draft, Limits, Terms
from sojourn.session.transitions import TRANSITIONS, LoadOutcome, Move, SessionState

__all__ = [
    "CLEAR",
    "EMPTY",
    "KEEP",
    "TRANSITIONS",
    "CookieAction",
    "CookieChange",
    "Draft",
    "Limits",
    "LoadOutcome",
    "Migrate",
    "Move",
    "Payload",
    "Session",
    "SessionState",
    "Shape",
    "Terms",
    "decode_payload",
    "draft_of",
    "encode_payload",
    "unpack_map",
]
