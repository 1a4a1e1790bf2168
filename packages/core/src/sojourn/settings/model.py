"""``SessionSettings``: the settings of one manager, and the plain objects that are made from them.

The one rule: settings that exist are sound; whatever cannot be used is refused when they are made.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, cast

from pydantic import PrivateAttr

from sojourn.errors import ConfigurationError
from sojourn.settings.checks import problems_of, warnings_of
from sojourn.settings.fields import SessionFields
from sojourn.settings.presets import RELAXED_PRESETS
from sojourn.settings.sources import ENV_FILE, Surroundings

if TYPE_CHECKING:
    from sojourn.binding import Binding, TrustedProxies
    from sojourn.cookies import CookiePolicy
    from sojourn.crypto import KeyRing
    from sojourn.resilience import BreakerState, CircuitBreaker, RetryPolicy

_log = logging.getLogger("sojourn.settings")


class SessionSettings(SessionFields):
    """Read ``SOJOURN_*``: code > environment > .env > secrets file > preset > default.

    *values* are those given in code, by field name. *_env_file* is read in place of ``.env`` in the working
    directory; None reads no such file. Raises ``ConfigurationError`` naming every variable that is wrong. A secret is
    asked for by ``key_ring()``, not here, so that settings can be shown without one.
    """

    _made: dict[str, Any] = PrivateAttr(default_factory=dict)

    def __init__(self, *, _env_file: str | os.PathLike[str] | None = ENV_FILE, **values: Any) -> None:
        given: dict[str, Any] = {**values, "_surroundings": Surroundings(env_file=_env_file)}
        super().__init__(**given)
        problems = list(problems_of(self))
        if problems:
            raise ConfigurationError("\n  ".join(problems))
        self.cookie_policy()
        for text in warnings_of(self):
            _log.warning("%s", text)

    def __copy__(self) -> Self:
        """Copy without what was made, for the copy may get other values."""
        copied = super().__copy__()
        copied._made = {}  # noqa: SLF001 - the same class
        return copied

    @property
    def is_relaxed(self) -> bool:
        """Tell whether the preset is for work on one's own machine: ``development`` or ``testing``."""
        return self.preset in RELAXED_PRESETS

    @property
    def surroundings(self) -> Surroundings:
        """What plugins read their own settings from: the same files and the same preset."""
        return Surroundings(env_file=self._surroundings.env_file, secrets_dir=self.secrets_dir, preset=self.preset)

    def key_ring(self) -> KeyRing:
        """Return the key ring, built once; raises ``ConfigurationError`` without a good secret (SECURITY R30)."""
        from sojourn.settings.keys import build_key_ring

        if "key_ring" not in self._made:
            self._made.setdefault("key_ring", build_key_ring(self))
        return cast("KeyRing", self._made["key_ring"])

    def cookie_policy(self) -> CookiePolicy:
        """Return how the cookie is written (SECURITY R18, R19)."""
        from sojourn.cookies import CookiePolicy

        return CookiePolicy(
            name=self.cookie_name,
            path=self.cookie_path,
            domain=self.cookie_domain,
            secure=self.cookie_secure,
            http_only=self.cookie_http_only,
            same_site=self.cookie_same_site,
            partitioned=self.cookie_partitioned,
            persistent=self.cookie_persistent,
        )

    def make_breaker(
        self,
        *,
        on_change: Callable[[BreakerState, BreakerState], None] | None = None,
        random: Callable[[], float] = random.random,
    ) -> CircuitBreaker | None:
        """Return a new circuit breaker, or None when it is off."""
        from sojourn.resilience import CircuitBreaker

        if not self.breaker:
            return None
        return CircuitBreaker(
            window=self.breaker_window.total_seconds(),
            minimum_calls=self.breaker_minimum_calls,
            failure_rate=self.breaker_failure_rate,
            slow_call=self.breaker_slow_call.total_seconds() if self.breaker_slow_call else None,
            open_for=self.breaker_open_for.total_seconds(),
            open_cap=self.breaker_open_cap.total_seconds(),
            probes=self.breaker_probes,
            probe_deadline=self.breaker_probe_deadline.total_seconds(),
            random=random,
            on_change=on_change,
        )

    def make_retry_policy(self) -> RetryPolicy:
        """Return when a call is tried again; with ``retry_attempts`` 0 it never is."""
        from sojourn.resilience import RetryPolicy

        return RetryPolicy(
            attempts=self.retry_attempts,
            base=self.retry_base.total_seconds(),
            cap=self.retry_cap.total_seconds(),
            deadline=self.retry_deadline.total_seconds(),
            budget=self.retry_budget,
        )

    def make_binding(self) -> Binding:
        """Return what of the client is compared (SECURITY R31)."""
        from sojourn.binding import Binding

        return Binding(
            policy=self.binding,
            ip=self.binding_ip,
            user_agent=self.binding_user_agent,
            ipv4_prefix=self.binding_ipv4_prefix,
            ipv6_prefix=self.binding_ipv6_prefix,
        )

    def make_trusted_proxies(self) -> TrustedProxies:
        """Return the proxies whose forwarding headers are believed (SECURITY R31)."""
        from sojourn.binding import TrustedProxies

        return TrustedProxies(self.trusted_proxies)
