"""The session a handler holds, and the pure state behind it."""

from sojourn.session.model import Migrate, Shape
from sojourn.session.payload import EMPTY, Moment, Payload, decode_payload, encode_payload, unpack_map
from sojourn.session.session import Session, draft_of
from sojourn.session.state import CLEAR, CLOCK_TOLERANCE, KEEP, CookieAction, CookieChange, Draft, Limits, Terms
from sojourn.session.transitions import TRANSITIONS, LoadOutcome, Move, SessionState

__all__ = [
    "CLEAR",
    "CLOCK_TOLERANCE",
    "EMPTY",
    "KEEP",
    "TRANSITIONS",
    "CookieAction",
    "CookieChange",
    "Draft",
    "Limits",
    "LoadOutcome",
    "Migrate",
    "Moment",
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
