"""The session a handler holds, and the pure state behind it."""

from sojourn.session.model import Migrate, Model
from sojourn.session.payload import (
    CLOCK_TOLERANCE,
    EMPTY,
    PAYLOAD_DECODER,
    PAYLOAD_ENCODER,
    UNREADABLE,
    Lifetimes,
    Moment,
    Payload,
    decode_payload,
    encode_payload,
    unpack_map,
)
from sojourn.session.session import Decisions, ExtrasMapping, Session, state_of
from sojourn.session.state import (
    UNSET,
    RequestState,
    SessionRules,
)
from sojourn.session.transitions import (
    CLEAR,
    KEEP,
    TRANSITIONS,
    CookieAction,
    CookieChange,
    LoadOutcome,
    Move,
    SessionState,
)

__all__ = [
    "CLEAR",
    "CLOCK_TOLERANCE",
    "EMPTY",
    "KEEP",
    "PAYLOAD_DECODER",
    "PAYLOAD_ENCODER",
    "TRANSITIONS",
    "UNREADABLE",
    "UNSET",
    "CookieAction",
    "CookieChange",
    "Decisions",
    "ExtrasMapping",
    "Lifetimes",
    "LoadOutcome",
    "Migrate",
    "Model",
    "Moment",
    "Move",
    "Payload",
    "RequestState",
    "Session",
    "SessionRules",
    "SessionState",
    "decode_payload",
    "encode_payload",
    "state_of",
    "unpack_map",
]
