"""``sojourn sessions reseal``: bring every session under the first key, from a shell (SECURITY R26).

Its one rule: it needs no model of the application, for resealing never looks into a session's data.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from typing import Final

from sojourn.errors import ConfigurationError, SessionUnavailableError

_EVERY: Final = 1000


@dataclass
class _Unread:
    """Stand in for the model of the application."""


def reseal_sessions(arguments: argparse.Namespace) -> bool:
    """Seal anew what is not under the first key; print how many those were. False when the store stopped answering."""
    from sojourn.manager import SessionManager
    from sojourn.settings import SessionSettings

    settings = SessionSettings()
    if settings.store == "memory":
        msg = (
            "the store is memory: those sessions are in the process of the application, and only that can reach them; "
            "call sessions.reseal() there, or set SOJOURN_STORE to the store that the application uses"
        )
        raise ConfigurationError(msg)
    sessions = SessionManager.from_settings(_Unread, settings, serializer="json").blocking
    done = 0

    def tell(number: int) -> None:
        nonlocal done
        done = number
        if number % _EVERY == 0:
            print(f"{number} sealed anew, going on", file=sys.stderr, flush=True)

    try:
        sessions.reseal(tell)
    except SessionUnavailableError as error:
        print(f"error: {error}; {done} sealed anew, run the command again for the rest", file=sys.stderr)
        return False
    finally:
        sessions.close()
    print(json.dumps({"resealed": done}) if arguments.json else f"{done} sealed anew")
    return True
