"""Every block of Python on a page is run by a test, which is named here, or is a fragment that is tried here."""

from __future__ import annotations

import ast
import asyncio
import inspect
import sys
from typing import Any, Protocol

import pytest

from sojourn import MemoryStore, SessionManager, Store, stores
from sojourn.asgi import RevocationMiddleware, SessionMiddleware
from sojourn.testing import FakeClock
from tests.core.models import Visit, make_manager
from tests.docs.pages import ROOT, blocks, page, run, section

RUN_BY = {
    "README.md": "tests/docs/test_readme.py",
    "docs/api.md": "tests/docs/test_api_page.py",
    "docs/clustering.md": "tests/docs/test_code_of_pages.py",
    "docs/coming-from.md": "tests/contrib_migrate/test_page.py",
    "docs/frameworks.md": "tests/docs/test_frameworks_page.py",
    "docs/quickstart.md": "tests/docs/test_quickstart.py",
    "docs/security.md": "tests/core/test_audit_log.py",
    "docs/settings.md": "tests/core/test_own_presets.py",
    "docs/stores.md": "tests/docs/test_code_of_pages.py",
    "docs/testing.md": "tests/integration/test_testing_page.py",
    "docs/write-a-plugin.md": "tests/packaging/test_sqlite_example.py",
    "docs/write-an-adapter.md": "tests/docs/test_adapter_page.py",
    **{f"docs/quickstarts/{path.name}": "tests/quickstarts/sites.py" for path in ROOT.glob("docs/quickstarts/*.md")},
}
PAGES = [str(path.relative_to(ROOT)) for pattern in ("*.md", "docs/**/*.md") for path in sorted(ROOT.glob(pattern))]
STORES = section(page("docs/stores.md"), "The contract")


def test_each_page_with_code_is_run_by_a_test_that_names_it() -> None:
    assert {name for name in PAGES if blocks(page(name))} == set(RUN_BY)
    for name, test in RUN_BY.items():
        folder = "docs/quickstarts/" if name.startswith("docs/quickstarts/") else name.removeprefix("docs/")
        assert folder in page(test), test


@pytest.mark.parametrize("name", RUN_BY)
def test_what_a_page_shows_is_python(name: str) -> None:
    for code in blocks(page(name)):
        # Those of an adapter await at the top, parts of a class stand in its body, and a signature has its star.
        body = f"class Part:\n{code}" if code.startswith("    ") else code.replace("    *,\n", "")
        compile(body, f"<{name}>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


def test_the_contract_on_the_page_of_stores_is_that_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    names = "from typing import Protocol\nfrom sojourn.stores import Created, Deleted, Record, Replaced, StoreIO\n"
    shown = run(monkeypatch, "contract", names + blocks(STORES)[0]).Store
    assert Protocol in shown.__mro__
    methods, there = (
        {name for name, value in vars(kind).items() if inspect.isfunction(value) and not name.startswith("_")}
        for kind in (Store, shown)
    )
    assert methods == there
    for name in methods:
        own, told = (
            inspect.signature(getattr(kind, name), eval_str=True, globals=vars(stores)) for kind in (Store, shown)
        )
        assert own == told, name


def test_the_suite_on_the_page_of_stores_takes_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    code = next(code for code in blocks(page("docs/stores.md")) if "StoreSuite" in code)
    suite = run(monkeypatch, "suite", f"from sojourn import MemoryStore as MyStore\n{code}").TestMyStore()
    assert (suite.indexed, suite.scannable) == (True, True)
    assert isinstance(suite.make_store(FakeClock()), MemoryStore)


def test_the_middlewares_on_the_page_of_clustering_stand_in_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    names = "from sojourn.asgi import RevocationMiddleware, SessionMiddleware\nfrom own import app, sessions\n"
    sessions: SessionManager[Visit] = make_manager(MemoryStore())
    monkeypatch.setitem(sys.modules, "own", type("own", (), {"app": print, "sessions": sessions}))
    app = run(monkeypatch, "site", names + blocks(page("docs/clustering.md"))[0]).app
    assert (type(app), type(app.app)) == (SessionMiddleware, RevocationMiddleware)


def test_the_subscription_on_the_page_of_clustering_is_told_of_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions: SessionManager[Visit] = make_manager(MemoryStore())

    async def main() -> Any:
        own = {"sessions": sessions, "loop": asyncio.get_running_loop(), "closing": asyncio.Queue(), "check_all": print}
        monkeypatch.setitem(sys.modules, "own", type("own", (), own))
        names = "from own import check_all, closing, loop, sessions\n"
        shown = run(monkeypatch, "site", names + blocks(page("docs/clustering.md"))[1])
        session = await sessions.open(None)
        session.login("42")
        await sessions.commit(session)
        assert await sessions.revoke(session.id)
        told = await own["closing"].get()  # type: ignore[attr-defined]
        shown.unsubscribe()
        return session.id, told

    ended, told = asyncio.run(main())
    assert ended == told
