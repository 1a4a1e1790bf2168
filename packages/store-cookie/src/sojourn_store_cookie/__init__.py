"""Sessions sealed in the cookie: the plugin behind ``SOJOURN_STORE=cookie``.

Nothing is kept here, and nothing is encrypted here; the manager's codec seals before and checks after.
"""

from sojourn.hookspecs import hookimpl
from sojourn_store_cookie.store import OVERHEAD_BYTES, TOKEN_LIMIT, CookieStore

__all__ = ["OVERHEAD_BYTES", "TOKEN_LIMIT", "CookieStore", "sojourn_create_store"]


@hookimpl
def sojourn_create_store(name: str) -> CookieStore | None:
    """Return the store called ``cookie``; it has no settings of its own."""
    return CookieStore() if name == "cookie" else None
