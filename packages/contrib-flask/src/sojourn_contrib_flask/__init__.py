"""Flask with sojourn's sessions: ``flask.session`` is one, and ``session`` here is the typed one behind it.

Sojourn(app, sessions)
"""

from __future__ import annotations

from sojourn_contrib_flask.extension import Sojourn, session

__all__ = ["Sojourn", "session"]
