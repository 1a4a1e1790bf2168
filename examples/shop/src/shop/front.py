"""The front page, signing in and signing out."""

from __future__ import annotations

from dataclasses import dataclass

from shop.catalogue import PEOPLE, PRODUCTS, find_person
from shop.endpoint import ShopEndpoint
from sojourn_contrib_azu_like import Html, Redirect


@dataclass
class Way:
    """Where to go after signing in."""

    redirect_to: str = "/"
    again: bool = False
    """Whether somebody who is signed in has to say so once more."""


@dataclass
class Credentials:
    """The sign-in form."""

    user: str
    password: str
    redirect_to: str = "/"
    csrf: str = ""


@dataclass
class Signed:
    """A form with nothing but its token."""

    csrf: str = ""


class Front(ShopEndpoint[None, Html], path="/"):
    """Show the shelf and, to strangers, the sign-in form; a visitor who only looks gets no cookie."""

    async def call(self) -> Html:
        """Show the page."""
        return await self.page(
            "front.html",
            products=PRODUCTS.values(),
            at=self.flash.get("at"),
            people=PEOPLE.values(),
            redirect_to="/",
            failed=False,
            entered="",
        )


class SignInPage(ShopEndpoint[Way, Html | Redirect], path="/signin"):
    """Ask a visitor to sign in who wanted a page that needs it."""

    async def call(self) -> Html | Redirect:
        """Show the form, or go on when somebody is signed in already."""
        again = self.params.again and self.authenticated
        if self.authenticated and not again:
            return Redirect(self.params.redirect_to)
        return await self.page(
            "signin.html",
            people=PEOPLE.values(),
            redirect_to=self.params.redirect_to,
            failed=False,
            entered=self.current_user_id or "",
            again=again,
        )


class SignIn(ShopEndpoint[Credentials, Html | Redirect], path="/signin", method="POST"):
    """Sign in. The cart of the stranger becomes the cart of the user, under a fresh token."""

    async def call(self) -> Html | Redirect:
        """Check the form, then the password."""
        form = self.params
        self.require_csrf(form.csrf)
        person = find_person(form.user, form.password)
        if person is None:
            return await self.page(
                "signin.html",
                status=422,
                people=PEOPLE.values(),
                redirect_to=form.redirect_to,
                failed=True,
                entered=form.user,
                again=False,
            )
        self.trace.because(f"login() bound the session to the principal “{person.id}” and asked for a fresh token")
        self.login(person.id)
        self.session.data.name = person.name
        self.session.data.roles = list(person.roles)
        return await self.done(form.redirect_to, "success", f"Welcome, {person.name}.")


class SignOut(ShopEndpoint[Signed, Redirect], path="/signout", method="POST"):
    """Sign out: the record is gone before the answer leaves, the farewell travels in a new session."""

    async def call(self) -> Redirect:
        """End the session."""
        self.require_csrf(self.params.csrf)
        self.trace.because("logout() ended the old session; the farewell needs a new, empty one")
        self.logout()
        return await self.done("/", "notice", "You are signed out.")


@dataclass
class Panel:
    """Whether the panel at the foot is open."""

    open: bool
    redirect_to: str = "/"
    csrf: str = ""


class KeepPanel(ShopEndpoint[Panel, Redirect], path="/panel", method="POST"):
    """Remember whether the panel is open, as an extra of the session beside its typed data."""

    async def call(self) -> Redirect:
        """Remember it."""
        self.require_csrf(self.params.csrf)
        self.session["panel"] = self.params.open
        self.trace.because("the extra “panel” changed")
        said = "stays open" if self.params.open else "is closed until you open it"
        return await self.done(self.params.redirect_to, "notice", f"The panel at the foot {said}.")
