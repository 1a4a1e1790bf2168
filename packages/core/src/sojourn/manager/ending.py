"""The end of a request: commit when the response head is about to leave, and decide what the head must say.

Its one rule: a commit that fails replaces the application's answer, it is never raised through ``send`` or
``start_response`` (FAILURES F5, F23).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from msgspec import Struct

from sojourn.errors import (
    ResponseStartedError,
    SessionConflictError,
    SessionGoneError,
    SessionTooLargeError,
    SessionUnavailableError,
    SojournError,
    TooManySessionsError,
)
from sojourn.http import NOT_LOGGED_OUT, UNAVAILABLE, Answer, conflict, failed, too_large, unavailable
from sojourn.manager.exchange import Exchange
from sojourn.session import KEEP, CookieAction, CookieChange

_log: Final = logging.getLogger("sojourn.manager")
SERVER_ERROR: Final = 500
"""The lowest status that says that the request failed."""


class Ending(Struct, frozen=True):
    """What the middleware does with the response head."""

    answer: Answer | None = None
    """The answer that replaces the application's, head and body."""
    set_cookie: str | None = None
    accessed: bool = False
    """Whether the response depends on the session: ``Vary: Cookie`` (SECURITY R23)."""


UNTOUCHED: Final = Ending()
ACCESSED: Final = Ending(accessed=True)


def finish_at_rest(exchange: Exchange[Any], *, is_error: bool) -> Ending | None:
    """Return the ending of a request that has nothing to store; None where `finish` has to be awaited.

    *is_error* says whether the status is 500 or above.
    """
    draft = exchange.draft
    if draft is not None and (
        exchange.outage is not None or draft.unavailable is not None or not exchange.gate.rests(draft)
    ):
        return None
    exchange.head_sent = True
    if is_error:
        exchange.refused = not exchange.gate.settings.commit_on_error
    if draft is None:
        return UNTOUCHED
    draft.head_sent = True
    accessed, draft.accessed = draft.accessed, False  # from here on to use the session is to use it again
    if draft.cookie is KEEP:
        return ACCESSED if accessed else UNTOUCHED
    return Ending(set_cookie=_header(exchange, draft.cookie), accessed=accessed)


def rests_late(exchange: Exchange[Any]) -> bool:
    """Tell, without I/O, that nothing changed since the head left."""
    draft = exchange.draft
    return draft is None or exchange.gate.rests(draft)


async def finish(exchange: Exchange[Any], status: int, accept_of: Callable[[], str] = str) -> Ending:
    """Commit for a response of *status*; never raises for anything that the store or the session's content caused.

    *accept_of* tells the Accept header.
    """
    draft = exchange.draft
    outage = exchange.remembered_outage()
    gate = exchange.gate
    failing = status >= SERVER_ERROR and not gate.settings.commit_on_error
    exchange.head_sent, exchange.refused = True, draft is not None or failing
    if draft is None:
        return UNTOUCHED
    try:
        if failing:
            change = await gate.end(draft)
            if outage is not None and status != HTTPStatus.SERVICE_UNAVAILABLE:  # its own 503 is as good as ours
                return Ending(unavailable(outage.retry_after, accept_of()), accessed=True)
        else:
            change = await gate.commit(draft)
            exchange.refused = False
        if change is KEEP:
            return ACCESSED if draft.accessed else UNTOUCHED
        return Ending(set_cookie=_header(exchange, change), accessed=draft.accessed)
    except SessionUnavailableError as error:
        _log.warning("the session could not be committed: %s", error)
        detail = NOT_LOGGED_OUT if draft.doomed else UNAVAILABLE
        return Ending(unavailable(error.retry_after, accept_of(), detail=detail), accessed=True)
    except (SessionConflictError, TooManySessionsError) as error:
        _log.warning("the session could not be committed: %s", error)
        return Ending(conflict(accept_of()), accessed=True)
    except SessionTooLargeError:
        _log.exception("the session is too large; its last good state is kept")
        return Ending(too_large(accept_of()), accessed=True)
    except (SojournError, TypeError, ValueError):
        _log.exception("the session could not be committed")
        return Ending(failed(accept_of()), accessed=True)
    finally:
        draft.head_sent = True


async def finish_late(exchange: Exchange[Any]) -> None:
    """Save what changed after the head left, if the token did not; else raise ResponseStartedError (FAILURES F20)."""
    draft = exchange.draft
    if draft is None or not draft.head_sent:
        return
    if exchange.refused:
        await finish_failed(exchange)
        return
    try:
        await exchange.gate.commit(draft)
    except ResponseStartedError:
        raise
    except (SessionUnavailableError, SessionGoneError):
        _log.exception("the session changed after the response started and could not be saved")


async def finish_failed(exchange: Exchange[Any]) -> None:
    """Carry out logout and destroy of a request whose application raised; nothing else (FAILURES F23)."""
    draft = exchange.draft
    if draft is not None and draft.doomed:
        try:
            await exchange.gate.end(draft)
        except SessionUnavailableError:
            _log.exception("the application failed, and the session could not be ended either: not logged out")


def _header(exchange: Exchange[Any], change: CookieChange) -> str | None:
    cookies = exchange.gate.cookies
    match change.action:
        case CookieAction.SET:
            header = cookies.set_header(change.token or "", change.max_age)
            draft = exchange.draft
            if draft is not None and draft.id is not None:
                exchange.gate.context.signals.event("client", draft.id, principal=draft.facts.principal)
            return header
        case CookieAction.CLEAR:
            return cookies.clear_header()
        case CookieAction.KEEP:
            return None
