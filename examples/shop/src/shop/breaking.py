"""The page “Try to break it”: what goes wrong with sessions elsewhere, each with a button and what was decided."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request

from shop.account import Chosen
from shop.cart import MOST
from shop.endpoint import NO_STORE, Req, Res, ShopEndpoint
from shop.front import Signed
from shop.pages import HERE, render
from shop.sessions import token_of
from shop.switches import Switches
from sojourn import Decisions, InProcessStore, SessionInfo
from sojourn.errors import ConfigurationError
from sojourn.http import same_origin
from sojourn_contrib_azu_like import Endpoint, Html, Problem, Redirect, Text

Step = tuple[str, Decisions]

SLOW_LOOKS = 100
SLOW_PAUSE = 0.1
"""In seconds, between two looks."""

DOCS = HERE.parents[3] / "docs"
READABLE = {path.name: path for folder, kind in ((DOCS, "md"), (HERE, "py")) for path in folder.glob(f"*.{kind}")}


class BrokenEndpoint(ShopEndpoint[Req, Res]):
    """An endpoint of the page."""

    @property
    def bench(self) -> Switches:
        """The switches, which are there where these routes are."""
        return _switches(self.request)

    async def show(
        self, done: str = "", steps: Sequence[Step] = (), problem: str | None = None, *, was_overtaken: bool = False
    ) -> Html:
        """Show the page with what was decided for the button *done*."""
        others: list[SessionInfo] = []
        cannot_list = ""
        if self.session.principal is not None:
            try:
                listed = await self.sessions.list(self.session.principal)
            except ConfigurationError as error:
                cannot_list = str(error)
            else:
                others = [info for info in listed if info.id != self.session.id]
        return await self.page(
            "try.html",
            here="/try",
            done=done,
            steps=steps,
            problem=problem,
            others=others,
            cannot_list=cannot_list,
            was_overtaken=was_overtaken,
            at=self.flash.get("at"),
            sealed=self.sessions.settings.encrypt is True or not isinstance(self.bench.store, InProcessStore),
            has_server=self.bench.has_server,
        )


class Try(BrokenEndpoint[None, Html], path="/try"):
    """Show the buttons; looking creates no session."""

    async def call(self) -> Html:
        """Show the page."""
        return await self.show()


class Race(BrokenEndpoint[Signed, Html], path="/try/race", method="POST"):
    """Let two tabs load one cart, each put something into it, and store it one after the other."""

    async def call(self) -> Html:
        """Race."""
        self.require_csrf(self.params.csrf)
        session = self.session
        session.csrf_token()
        await self.sessions.commit(session)  # a stranger has no session so far that two tabs could share
        try:
            async with self.sessions.edit(session.id) as later, self.sessions.edit(session.id) as sooner:
                for tab, sku in ((sooner, "lantern"), (later, "map")):
                    tab.data.cart[sku] = min(MOST, tab.data.cart.get(sku, 0) + 1)
                # Left from the inside out: both have loaded the same version, and `sooner` is stored first.
        except ConfigurationError as error:
            return await self.show("race", problem=str(error))
        await self.sessions.reload(session)
        steps = [("The first tab adds a lantern", sooner.decisions), ("The second one adds a map", later.decisions)]
        return await self.show("race", steps)


class SlowTab(BrokenEndpoint[Signed, Html], path="/try/slow", method="POST"):
    """Add a map as a slow tab does: the cart was loaded with this request, and is stored once another tab has stored it."""

    async def call(self) -> Html:
        """Wait for the other tab, ten seconds at most."""
        self.require_csrf(self.params.csrf)
        session = self.session
        if not self.bench.has_server:
            return await self.show("slow", problem="Each tab brings its cart along, and the last one to answer wins.")
        cart = session.data.cart
        cart["map"] = min(MOST, cart.get("map", 0) + 1)
        loaded, token = session.decisions.version, token_of(self.request, self.sessions)
        for _ in range(SLOW_LOOKS):
            if (await self.sessions.open(token, fresh=True)).decisions.version != loaded:
                break
            await asyncio.sleep(SLOW_PAUSE)
        self.trace.because("data.cart changed")
        await self.sessions.commit(session)
        decisions = session.decisions
        was_overtaken = decisions.written == "merged"
        return await self.show("slow", [("This tab, which was slow", decisions)], was_overtaken=was_overtaken)


class Stop(BrokenEndpoint[Signed, Redirect], path="/try/stop", method="POST"):
    """Stop the store: from now on it answers nothing."""

    async def call(self) -> Redirect:
        """Leave a message, which waits in the store for its return, and stop it."""
        self.require_csrf(self.params.csrf)
        if not self.bench.has_server:
            raise Problem(422, "These sessions live in cookies: there is no store to stop.")
        answer = await self.done("/try/outage", "success", "The store is back, and so is your session.")
        self.bench.stop()
        return answer


class Outage(Endpoint[None, Html | Redirect], path="/try/outage"):
    """Show what becomes of a session while the store is stopped; uses none itself."""

    async def call(self) -> Html | Redirect:
        """Open the visitor's session as every page does."""
        bench = _switches(self.request)
        if not bench.is_down:
            return Redirect("/try")
        session = await bench.sessions.open(token_of(self.request, bench.sessions))
        steps = [("Your session", session.decisions)]
        return Html(render("outage.html", steps=steps, token=bench.token), headers=NO_STORE)


class Recover(Endpoint[Signed, Redirect], path="/try/recover", method="POST"):
    """End the outage."""

    async def call(self) -> Redirect:
        """Check that the form is of this process and this site: there is no session to ask."""
        request, bench = self.request, _switches(self.request)
        origin, host = request.headers.get("origin"), request.headers.get("host", "")
        is_own = same_origin(origin, scheme=request.url.scheme, host=host)
        if not is_own or not hmac.compare_digest(self.params.csrf.encode(), bench.token.encode()):
            raise Problem(403, "This form is out of date. Load the page again and repeat.")
        bench.start()
        return Redirect("/try")


class Revoke(BrokenEndpoint[Chosen, Html], path="/try/revoke", method="POST"):
    """End the session of another browser of the same user."""

    async def call(self) -> Html:
        """End it; what that browser then is told stands on its own next page."""
        principal = self.require_authentication()
        self.require_csrf(self.params.csrf)
        try:
            ended = await self.sessions.revoke(self.params.id, principal=principal)
        except ConfigurationError as error:
            return await self.show("revoke", problem=str(error))
        return await self.show("revoked" if ended else "gone")


class Elsewhere(BrokenEndpoint[Signed, Html], path="/try/elsewhere", method="POST"):
    """Log out a second browser of the same user, of which nothing is there but what its cookie would hold."""

    async def call(self) -> Html:
        """Sign in as that browser would, end its session, and open it again with what it still has."""
        principal = self.require_authentication()
        self.require_csrf(self.params.csrf)
        other = await self.sessions.open(None)
        other.login(principal)
        token = (await self.sessions.commit(other)).token
        before = await self.sessions.open(token)
        try:
            await self.sessions.revoke(other.id, principal=principal)
        except ConfigurationError as error:
            return await self.show("elsewhere", problem=str(error))
        after = await self.sessions.open(token)
        steps = [("The second browser, signed in", before.decisions), ("Its next request", after.decisions)]
        return await self.show("elsewhere", steps)


class RotateSecret(BrokenEndpoint[Signed, Html], path="/try/secret", method="POST"):
    """Change the secret of the running shop, and accept the one before it."""

    async def call(self) -> Html:
        """Open the visitor's session with both secrets, and with the new one alone."""
        self.require_csrf(self.params.csrf)
        self.session.csrf_token()
        self.trace.because("the button began a session")
        await self.sessions.commit(self.session)
        only_new = self.bench.rotate()
        token = token_of(self.request, self.sessions)
        steps = [
            ("With the new secret, the old one accepted", (await self.bench.sessions.open(token)).decisions),
            ("With the new secret alone", (await only_new.open(token)).decisions),
        ]
        return await self.show("secret", steps)


@dataclass
class Name:
    """One of the files to read."""

    name: str


class Read(Endpoint[Name, Text], path="/read/{name}"):
    """Show a page of the documentation or a source of the shop as it is."""

    async def call(self) -> Text:
        """Show it; nothing but what was found at the start."""
        path = READABLE.get(self.params.name)
        if path is None:
            raise Problem(404, "Not Found")
        return Text(path.read_text(encoding="utf-8"), headers=NO_STORE)


def _switches(request: Request) -> Switches:
    switches: Switches = request.app.state.switches
    return switches
