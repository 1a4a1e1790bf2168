"""What a response has to say of the session: a cookie, caching headers, or an answer in the application's place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from msgspec import Struct

from sojourn.errors import (
    SessionConflictError,
    SessionTooLargeError,
    SessionUnavailableError,
    SojournError,
    TooManySessionsError,
)
from sojourn.http import (
    NOT_LOGGED_OUT,
    UNAVAILABLE,
    Answer,
    add_vary,
    cache_control,
    conflict,
    failed,
    too_large,
    unavailable,
)


class Ending(Struct, frozen=True):
    """What the response has to say of the session."""

    error: SojournError | TypeError | ValueError | None = None
    """Because of this error the application's response must not go out."""
    set_cookie: str | None = None
    """One Set-Cookie line."""
    accessed: bool = False
    """Whether the response depends on the session: ``Vary: Cookie`` (SECURITY R23)."""
    is_logout: bool = False
    """Whether it is a logout that failed (FAILURES F9)."""
    cookie_name: str = ""

    def __repr__(self) -> str:
        """Show no cookie (SECURITY R6)."""
        return f"<Ending error={type(self.error).__name__} accessed={self.accessed}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show no field to rich either, which asks structs here (SECURITY R48)."""
        return []

    def answer(self, accept: str = "", method: str = "GET") -> Answer | None:
        """Return the response to send in the place of the application's, for its *accept* header; None without error."""
        error = self.error
        if error is None:
            return None
        if isinstance(error, SessionUnavailableError):
            answer = unavailable(error.retry_after, accept, detail=NOT_LOGGED_OUT if self.is_logout else UNAVAILABLE)
        elif isinstance(error, SessionConflictError | TooManySessionsError):
            answer = conflict(accept)
        elif isinstance(error, SessionTooLargeError):
            answer = too_large(accept)
        else:
            answer = failed(accept)
        return Answer(answer.status, answer.headers, b"") if method == "HEAD" else answer

    def headers(self, present: Callable[[str], Iterable[str]]) -> dict[str, str]:
        """Return the headers to set, each in the place of all values of its name (SECURITY R23).

        *present* returns the values that the response has of a name.
        """
        needed: dict[str, str] = {}
        if self.set_cookie is not None:
            control = cache_control([*present("Cache-Control")])
            if control is not None:
                needed["Cache-Control"] = control
        if self.accessed:
            varies = [*present("Vary")]
            if add_vary(varies) is not None or len(varies) > 1:
                needed["Vary"] = _joined_vary(varies)
        return needed

    def apply(self, pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the headers of the response with all that the session asks for; applying it again changes nothing."""
        given = [*pairs]
        needed = self.headers(lambda name: [value for key, value in given if key.lower() == name.lower()])
        replaced = {name.lower() for name in needed}
        result = [pair for pair in given if pair[0].lower() not in replaced]
        result.extend(needed.items())
        if self.set_cookie is not None:
            opening_ = f"{self.cookie_name}="
            result = [
                pair
                for pair in result
                if not (pair[0].lower() == "set-cookie" and pair[1].lstrip(" \t").startswith(opening_))
            ]
            result.append(("Set-Cookie", self.set_cookie))
        return result


def _joined_vary(varies: Sequence[str]) -> str:
    """Return one Vary line with every name of *varies*, and Cookie."""
    added = add_vary(varies)
    return ", ".join([*varies, *([added] if added is not None else ())])


NOTHING: Final = Ending()
"""The session was not used: the response stays as it is."""
ACCESSED: Final = Ending(accessed=True)
"""The session was read and nothing else."""
