"""The running shop with switches to break it: a store that can be stopped, and a secret that can be changed.

They exist in the preset ``development`` alone, and answer this machine alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from ipaddress import ip_address
from typing import Any

from starlette.datastructures import URL
from starlette.routing import BaseRoute, Match

from shop.levers import Levers
from shop.model import ShopSession
from shop.sessions import make_sessions
from shop.sessions import settings as own_settings
from shop.sessions import store as own_store
from sojourn import ClientSideStore, SessionManager, Store
from sojourn.errors import StoreUnavailableError
from sojourn.settings import SessionSettings
from sojourn.settings.development import DIRECTORY, development_secret

Scope = MutableMapping[str, Any]
Application = Callable[[Scope, Any, Any], Awaitable[None]]

_CALLS = (
    *("load", "create", "replace", "touch", "delete", "ids_of", "members_of", "count", "clear"),
    *("load_many", "delete_many", "load_fresh"),
)


class Switches:
    """The shop as an application that is built anew, over the same store, when its secret changes."""

    def __init__(
        self, build: Callable[[SessionManager[ShopSession], Switches], Application], *, store: Store | None = None
    ) -> None:
        self.store = own_store if store is None else store
        self.levers = Levers.shared()
        self.token = self.levers.derive("recover")
        """What the form that ends an outage carries: there is no session then that could hold a CSRF token."""
        self._build = build
        self._seen = Levers()
        if self.has_server:
            for name in _CALLS:
                if hasattr(self.store, name):
                    setattr(self.store, name, self._unless_down(name, getattr(self.store, name)))
        self._use(own_settings)
        self._follow()

    @property
    def is_down(self) -> bool:
        """Whether the store is stopped."""
        return self.levers.is_down

    @property
    def has_server(self) -> bool:
        """Whether there is anything to stop: what lives in cookies has no outages."""
        return not isinstance(self.store, ClientSideStore)

    def stop(self) -> None:
        """Let every call of the store fail from now on, as if its server did not answer."""
        self.levers.is_down = True
        self._follow()

    def start(self) -> None:
        """End the outage."""
        self.levers.is_down = False
        self._follow()

    def rotate(self) -> SessionManager[ShopSession]:
        """Seal with a new secret and open with those before it, too; return a manager that has the new one alone."""
        self.levers.rotations += 1
        self._follow()
        return make_sessions(SessionSettings(secrets=self._secrets()[:1]), store=self.store)

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Serve one connection with the shop as it is now."""
        self._follow()
        await self._app(scope, receive, send)

    def _follow(self) -> None:
        """Do what the levers say, whichever node they were moved on."""
        if self._seen.rotations != self.levers.rotations:
            self._use(SessionSettings(secrets=self._secrets()))
        if self._seen.is_down and not self.is_down:
            # The circuit breaker need not find out by itself that the store is back.
            self.sessions.reset_breaker()
        self._seen = Levers.from_buffer_copy(self.levers)

    def _secrets(self) -> list[str]:
        """Return the secrets, the newest first."""
        later = [self.levers.derive(f"secret {number}") for number in range(self.levers.rotations, 0, -1)]
        return [*later, *_secrets_of(own_settings)]

    def _use(self, settings: SessionSettings) -> None:
        self.sessions = make_sessions(settings, store=self.store)
        self._app = self._build(self.sessions, self)

    def _unless_down(self, name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **keywords: Any) -> Any:
            if self.is_down:
                raise StoreUnavailableError(f"the store was stopped on the page “Try to break it” ({name})")
            return await method(*args, **keywords)

        return call


class LocalRoute(BaseRoute):
    """A route that is not there for anybody but this machine."""

    def __init__(self, route: BaseRoute) -> None:
        self._route = route

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match what the route does, from here."""
        return self._route.matches(scope) if is_local(scope) else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Any, send: Any) -> None:
        """Answer."""
        await self._route.handle(scope, receive, send)


def is_local(scope: Scope) -> bool:
    """Return whether both ends are this machine: also the name that was asked for, which a proxy or a rebound one is not."""
    client = scope.get("client")
    return client is not None and _is_loopback(client[0]) and _is_loopback(URL(scope=scope).hostname or "")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _secrets_of(settings: SessionSettings) -> list[str]:
    given = [one.get_secret_value() for one in (settings.secret, *settings.secrets, *settings.retired_secrets) if one]
    return list(dict.fromkeys(given)) or [development_secret(DIRECTORY)]
