"""What mypy sees of endpoints: it must refuse exactly the wrong lines."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SNIPPET = """
from dataclasses import dataclass, field
from typing import Generic, TypeVar, assert_type

from sojourn import Flash, MemoryStore, Session, SessionManager
from sojourn_contrib_azu_like import Endpoint, Html, Redirect, SessionHelpers, Text, routes

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


class WrongAnswer(ShopEndpoint[Book, Text], path="/wrong"):
    async def call(self) -> Html:  # error
        return Html("")


class WrongMethod(ShopEndpoint[None, Text], path="/wrong", method="FETCH"):  # error
    async def call(self) -> Text:
        return Text("")


class WrongManager(Endpoint[None, Text], SessionHelpers[UserSession]):
    sessions = strangers  # error


routes(AddBook)
routes(Book)  # error
"""

EXPECTED = [number for number, line in enumerate(SNIPPET.splitlines(), 1) if line.endswith("# error")]


@pytest.mark.slow
def test_mypy_refuses_exactly_the_wrong_lines(tmp_path: Path) -> None:
    path = tmp_path / "snippet.py"
    path.write_text(SNIPPET)
    words = [sys.executable, "-m", "mypy", "--no-error-summary", "--hide-error-context", "--no-pretty", str(path)]
    said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert said.returncode == 1, said.stderr + said.stdout
    found = re.findall(r"snippet\.py:(\d+): error:", said.stdout)
    assert sorted({int(line) for line in found}) == EXPECTED, said.stdout
