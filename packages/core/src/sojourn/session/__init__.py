"""The session a handler holds, and the pure state behind it."""

from sojourn.session.change import CLEAR, KEEP, CookieAction, CookieChange, Limits, Terms
from sojourn.session.draft import Draft
from sojourn.session.payload import EMPTY, Payload, decode_payload, encode_payload, unpack_map
from sojourn.session.session import Session, draft_of
from sojourn.session.shape import Migrate, Shape
from sojourn.session.states import TRANSITIONS, LoadOutcome, Move, SessionState

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
