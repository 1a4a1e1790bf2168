"""What mypy and pyright see of endpoints and channels: they must refuse exactly the wrong lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.typing.test_public_types import by_mypy, by_pyright

SNIPPET = """
from dataclasses import dataclass, field
from typing import Generic, TypeVar, assert_type

from sojourn import Flash, MemoryStore, Session, SessionManager
from sojourn_contrib_azu_like import Channel, Endpoint, Html, Redirect, SessionHelpers, Text, application, routes
from sojourn_contrib_azu_like.testing import with_session

Req = TypeVar("Req")
Res = TypeVar("Res")


@dataclass
class UserSession:
    cart: list[str] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)


@dataclass
class Book:
    title: str


sessions = SessionManager(UserSession, MemoryStore())
strangers = SessionManager(Book, MemoryStore())


class ShopEndpoint(Endpoint[Req, Res], SessionHelpers[UserSession], Generic[Req, Res]):
    sessions = sessions
    signin_path: str | None = "/signin"


class AddBook(ShopEndpoint[Book, Html | Redirect], path="/books", method="POST"):
    async def call(self) -> Html | Redirect:
        assert_type(self.params, Book)
        assert_type(self.session, Session[UserSession])
        assert_type(self.current_session.data, UserSession)
        assert_type(self.flash, Flash)
        assert_type(self.authenticated, bool)
        assert_type(self.current_user_id, str | None)
        assert_type(self.require_authentication(), str)
        assert_type((await self.open_session()).data.cart, list[str])
        self.session.data.cart.append(self.params.title)
        self.session.data.nope  # error
        self.session.data.cart.append(1)  # error
        self.params.nope  # error
        self.login(7)  # error
        return Redirect("/")


def book_of(user_id: str) -> Book:
    return Book(user_id)


class MyBook(ShopEndpoint[None, Book | None], path="/mine"):
    async def call(self) -> Book | None:
        book_of(self.current_user_id)  # error
        if self.current_user_id is None:
            return None
        self.require_role("reader", 7)  # error
        self.session.data.crat  # error
        return book_of(self.require_authentication())


class WrongData(ShopEndpoint[None, list[Book]], path="/wrong"):
    async def call(self) -> list[Book]:
        return [Book(title="a"), "b"]  # error


class Prices(Channel[Book, Text], SessionHelpers[UserSession], path="/prices"):
    sessions = sessions

    async def run(self) -> None:
        async for book in self:
            assert_type(book, Book)
            await self.send(Text(book.title))
            await self.send(book)  # error
            await self.save_session()


made = with_session(MyBook, principal="7", data=UserSession())
assert_type(made, MyBook)


class WrongAnswer(ShopEndpoint[Book, Text], path="/wrong"):
    async def call(self) -> Html:  # error
        return Html("")


class WrongMethod(ShopEndpoint[None, Text], path="/wrong", method="FETCH"):  # error
    async def call(self) -> Text:
        return Text("")


class WrongManager(Endpoint[None, Text], SessionHelpers[UserSession]):
    sessions = strangers  # error


routes(AddBook, Prices)
application(AddBook, Prices)
routes(Book)  # error
"""

EXPECTED = [number for number, line in enumerate(SNIPPET.splitlines(), 1) if line.endswith("# error")]


@pytest.mark.slow
@pytest.mark.parametrize("checker", [by_mypy, by_pyright])
def test_type_checkers_refuse_exactly_the_wrong_lines(
    tmp_path: Path, checker: Callable[[Path], dict[int, str]]
) -> None:
    path = tmp_path / "snippet.py"
    path.write_text(SNIPPET)
    said = checker(path)
    assert sorted(said) == EXPECTED, said
