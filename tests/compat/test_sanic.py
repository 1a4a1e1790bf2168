"""What docs/frameworks.md says of Sanic; it is in no lock, because it would bring uvloop, under which uvicorn would run then."""

from __future__ import annotations

from importlib import import_module

import pytest

from tests.compat.suites import installed
from tests.docs.test_frameworks_page import (  # noqa: F401 - tests and a fixture, which take the site below
    Site,
    browser,
    test_a_page_that_failed_changed_nothing,
    test_a_session_that_is_revoked_from_elsewhere_is_nobody,
    test_a_visit_a_login_and_a_logout,
    test_f5_an_outage_in_the_handler_or_at_the_commit_is_a_503,
)

pytestmark = pytest.mark.compat

WANTED = ("sanic==25.12.1", "sanic-routing==23.12.0", "html5tagger==2.0.0", "tracerite==2.6.5", "httptools==0.9.0")


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.syspath_prepend(str(installed("sanic", *WANTED)))
    # The tests make the application of the page one after the other, which Sanic otherwise refuses.
    monkeypatch.setattr(import_module("sanic").Sanic, "test_mode", True)
    return Site("Sanic", monkeypatch)
