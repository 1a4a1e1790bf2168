"""The hook behind ``SOJOURN_STORE=redis``.

The one rule: it answers only to the names of this package, and connects to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.hookspecs import hookimpl
from sojourn_store_redis.twinned import TwinnedRedisStore

if TYPE_CHECKING:
    from sojourn.settings import SessionSettings


@hookimpl
def sojourn_create_store(name: str, settings: SessionSettings) -> TwinnedRedisStore | None:
    """Return the store called ``redis``; ConfigurationError when a ``SOJOURN_REDIS_*`` setting is wrong."""
    if name != "redis":
        return None
    from sojourn_store_redis.settings import RedisSettings

    own = RedisSettings.build(settings)
    return TwinnedRedisStore(
        own.address(),
        namespace=own.namespace or settings.namespace,
        max_bytes=own.max_bytes,
        encrypt=own.encrypt,
    )
