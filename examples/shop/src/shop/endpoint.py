"""What every endpoint of the shop shares: the page around it, and how a form ends."""

from __future__ import annotations

from typing import Generic, TypeVar

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from shop.model import ShopSession
from shop.pages import render
from shop.sessions import age_of_copy, settings
from shop.sessions import sessions as shop_sessions
from shop.switches import Switches, is_local
from shop.trace import Recent, Trace
from sojourn.http import safe_redirect
from sojourn_contrib_azu_like import Endpoint, Html, Problem, Redirect, SessionHelpers

Req = TypeVar("Req")
Res = TypeVar("Res")

KINDS = ("success", "notice", "warning", "error")
NO_STORE = {"cache-control": "no-store"}

_recent = Recent()


class ShopEndpoint(Endpoint[Req, Res], SessionHelpers[ShopSession], Generic[Req, Res]):
    """An endpoint with the session of the shop."""

    sessions = shop_sessions
    signin_path: str | None = "/signin"

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.sessions = request.app.state.sessions
        self.switches: Switches | None = request.app.state.switches
        self._trace: Trace | None = None

    @property
    def trace(self) -> Trace:
        """What is noted of this request for the panel."""
        if self._trace is None:
            named = f"{self.request.method} {self.request.url.path}"
            self._trace = Trace(self.session, named, copy_age=age_of_copy(self.session))
        return self._trace

    async def page(self, template: str, *, status: int = 200, **values: object) -> Html:
        """Show a page: flash messages are read, then the session is committed, then the panel can tell of it."""
        trace, session = self.trace, self.session
        before = None if session.is_new else _recent.take(session)
        messages = [(kind, session.flash[kind]) for kind in KINDS if kind in session.flash]
        if messages:
            trace.because("the message above was read, and reading consumes it")
        csrf = None if session.is_new else session.csrf_token()
        shown = {
            "messages": messages,
            "csrf": csrf,
            "user": session.data.name,
            "principal": session.principal,
            "roles": list(session.data.roles),
            "cart_size": sum(session.data.cart.values()),
            "here": self.request.url.path,
            "store": settings.store,
            "node": settings.node_id,
            "panel": bool(session.get("panel")),
            "before": before,
            "breakable": self.switches is not None and is_local(self.request.scope),
            **values,
        }
        return Html(render(template, report=await trace.commit(self.sessions), **shown), status, NO_STORE)

    async def done(self, to: str, kind: str, message: str) -> Redirect:
        """End a form: say what happened with the next page."""
        session = self.session
        session.flash[kind] = message
        session.csrf_token()
        self.trace.because("a message waits for the next page")
        _recent.put(await self.trace.commit(self.sessions))
        return Redirect(safe_redirect(to))

    def refuse(self, problem: Problem) -> Response:
        """Answer in plain text; shop.errors makes it a page for browsers."""
        return PlainTextResponse(problem.detail, problem.status, {**NO_STORE, **problem.headers})
