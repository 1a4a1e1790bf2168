"""What a response must say once a session was used, and which paths and origins are to be trusted.

The one rule: every function is total; what it cannot understand it treats as the unsafe case.
"""

from sojourn.http.answers import (
    NOT_LOGGED_OUT,
    RETRY_AFTER_LIMIT,
    UNAVAILABLE,
    Answer,
    conflict,
    failed,
    refuse_anonymous,
    require_signin_path,
    too_large,
    unavailable,
)
from sojourn.http.caching import PROTECTS_SET_COOKIE, add_vary, cache_control
from sojourn.http.origins import same_origin
from sojourn.http.paths import normalise_path, path_is_exempt, path_matches, safe_redirect

__all__ = [
    "NOT_LOGGED_OUT",
    "PROTECTS_SET_COOKIE",
    "RETRY_AFTER_LIMIT",
    "UNAVAILABLE",
    "Answer",
    "add_vary",
    "cache_control",
    "conflict",
    "failed",
    "normalise_path",
    "path_is_exempt",
    "path_matches",
    "refuse_anonymous",
    "require_signin_path",
    "safe_redirect",
    "same_origin",
    "too_large",
    "unavailable",
]
