"""Who works through the checklist: a browser as far as cookies go, and the server that it visits.

Its one rule: it knows a site by what can be done there, so that every point can be asked of every site.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import httpx
import uvicorn

from sojourn import SessionManager
from sojourn.testing import FakeClock

NAME = "__Host-session"
LOOPBACK = "127.0.0.1"
_START_SECONDS = 60.0


@dataclass
class Target:
    """A running application and the clock that its sessions go by."""

    server: str
    preset: str
    clock: FakeClock
    sessions: SessionManager[Any]
    http: httpx.Client
    visits: type[Visitor]

    @property
    def hours(self) -> int:
        return 12 if self.preset == "high_security" else 24

    @property
    def idle(self) -> float:
        return 900.0 if self.preset == "high_security" else 3600.0

    def visitor(self, token: str | None = None, *, agent: str = "checklist") -> Visitor:
        return self.visits(self, token, agent)


class Visitor(ABC):
    """A browser as far as cookies go; what it is sent over http counts as sent over https."""

    untouched: ClassVar = "/"
    """A page that has no use for the session."""
    looked_at: ClassVar = "/me"
    """A page that reads the session and writes nothing."""
    says_farewell: ClassVar = False
    """Whether a logout begins a new session, for a last message."""
    spares_itself: ClassVar = False
    """Whether the session that ends all sessions of its user goes on."""

    def __init__(self, target: Target, token: str | None, agent: str) -> None:
        self.token = token
        self.target = target
        self.agent = agent

    def request(
        self, path: str, *, method: str = "GET", content: str | None = None, **headers: str | None
    ) -> httpx.Response:
        """Send a request with the cookie; keep the one that comes back. A header that is None is not sent."""
        if self.token is not None:
            headers["cookie"] = f"{NAME}={self.token}"
        sent = {"user-agent": self.agent, **headers}
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in sent.items() if value is not None]
        response = self.target.http.request(method, path, headers=raw, content=content)
        self.target.http.cookies.clear()  # the visitors share connections and nothing else
        for line in response.headers.get_list("set-cookie"):
            name, _, value = line.split(";")[0].partition("=")
            if name == NAME:
                self.token = value or None
        return response

    def who(self) -> str | None:
        """Return the principal that the site takes this visitor for."""
        return self.told(self.request(self.looked_at))

    @abstractmethod
    def told(self, response: httpx.Response) -> str | None:
        """Return the principal that the page *looked_at* names."""

    @abstractmethod
    def login(self, principal: str = "ada") -> httpx.Response: ...

    @abstractmethod
    def logout(self) -> httpx.Response: ...

    @abstractmethod
    def write(self) -> httpx.Response:
        """Put something into the session."""

    @abstractmethod
    def form(self) -> str:
        """Return the CSRF token of a form."""

    @abstractmethod
    def pay(self, token: str) -> bool:
        """Send a form with a CSRF token; tell whether it was accepted. Anything but that and 403 is an error."""

    @abstractmethod
    def ways(self) -> Iterable[str]:
        """Yield where the site would send this visitor, who hands it addresses of another one."""

    @abstractmethod
    def end_all(self, principal: str) -> int:
        """End all sessions of the user; return how many those were."""


@contextmanager
def running(app: Any) -> Iterator[str]:
    """Run an ASGI application on a free port of the loopback interface; yield its address."""
    config = uvicorn.Config(app, host=LOOPBACK, port=0, log_level="error", lifespan="off", forwarded_allow_ips=LOOPBACK)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + _START_SECONDS
    while not server.started:
        if time.monotonic() > deadline:
            raise TimeoutError("uvicorn did not start")
        time.sleep(0.01)
    try:
        yield f"http://{LOOPBACK}:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def connected(address: str) -> Iterator[httpx.Client]:
    """Yield a client for the site at an address."""
    with httpx.Client(base_url=address, trust_env=False, timeout=60) as http:
        yield http
