"""Run one of Django's own test suites on sojourn's sessions: python django_suites.py LABEL REPORT, in its sources' `tests`.

SOJOURN_COMPAT_STORE says on which store; `own` stands for Django's own sessions, to see what fails without us.
"""

# ruff: noqa: N802, N815 - names of unittest
from __future__ import annotations

import inspect
import os
import sys
import tempfile
import traceback
import unittest
from importlib import import_module
from types import ModuleType
from typing import Any
from xml.etree import ElementTree as ET

LABEL, REPORT = sys.argv[1:]
STORE = os.environ["SOJOURN_COMPAT_STORE"]
OF_OTHER_ENGINES = ("Database", "CustomDatabase", "CacheDB", "File", "Cookie")
"""Classes of sessions_tests that try Django's other engines, which nobody replaced; CacheSessionTests tries ours."""
results: list[tuple[str, str, str]] = []

sys.path.insert(0, ".")
settings = ModuleType("compat_settings")
settings.__dict__.update({name: value for name, value in vars(import_module("test_sqlite")).items() if name.isupper()})
settings.TEST_RUNNER = "__main__.Runner"  # type: ignore[attr-defined]
if STORE != "own":
    settings.__dict__.update(
        SOJOURN_PRESET="testing",
        SOJOURN_SECRET="mX0y7gG0YwTnB2m1bq0v2d5rE3kU8cVhJ6sQpLzA9fI",
        SOJOURN_STORE=STORE,
        SOJOURN_REVOCATION_STORE="memory" if STORE == "cookie" else None,
        SESSION_ENGINE="sojourn_contrib_django.engine",
        SESSION_COOKIE_NAME="sessionid",
        SESSION_COOKIE_AGE=14 * 86400,
    )
sys.modules["compat_settings"] = settings
os.environ["DJANGO_SETTINGS_MODULE"] = "compat_settings"


class Recorder(unittest.TextTestResult):
    """Keep what became of each test."""

    def _note(self, test: Any, outcome: str, detail: str = "") -> None:
        results.append((test.id().removeprefix(f"{LABEL}."), outcome, detail))

    def addSuccess(self, test: Any) -> None:
        self._note(test, "passed")

    def addSkip(self, test: Any, reason: str) -> None:
        self._note(test, "skipped", reason)

    def addExpectedFailure(self, test: Any, _: Any) -> None:
        self._note(test, "passed")

    def addFailure(self, test: Any, err: Any) -> None:
        self._note(test, "failed", "".join(traceback.format_exception(*err)))

    addError = addFailure

    def addUnexpectedSuccess(self, test: Any) -> None:
        self._note(test, "failed", "passed, which was not expected")

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            self._note(test, "failed", "".join(traceback.format_exception(*err)))


def main() -> None:
    os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="django_")  # as runtests does it
    runtests: Any = import_module("runtests")

    if STORE != "own":
        from django.contrib.sessions import middleware
        from django.contrib.sessions.backends import cache

        from sojourn_contrib_django.engine import SessionStore
        from sojourn_contrib_django.middleware import SessionMiddleware

        # By the names under which Django's tests have them.
        middleware.SessionMiddleware = SessionMiddleware
        cache.SessionStore = SessionStore
        runtests.ALWAYS_INSTALLED_APPS.append("sojourn_contrib_django")
    options = {"verbosity": 0, "test_labels": [LABEL], "parallel": 1, "tags": [], "exclude_tags": ["selenium"]}
    names = inspect.signature(runtests.django_tests).parameters
    flags = {"interactive", "failfast", "keepdb", "reverse", "debug_sql", "pdb", "buffer", "timing", "shuffle"}
    runtests.django_tests(**{name: options.get(name, False if name in flags else None) for name in names})
    suite = ET.Element("testsuite")
    outcomes: dict[str, tuple[str, str]] = {}
    for name, outcome, detail in results:
        if outcomes.get(name, ("",))[0] != "failed":
            outcomes[name] = outcome, detail
    for name, (outcome, detail) in sorted(outcomes.items()):
        case = ET.SubElement(suite, "testcase", name=name)
        if outcome != "passed":
            ET.SubElement(case, {"failed": "failure", "skipped": "skipped"}[outcome]).text = (
                detail.encode("ascii", "backslashreplace").decode().replace("\x1b", "")
            )
    ET.ElementTree(suite).write(REPORT)


if __name__ == "__main__":
    import django
    from django.test.runner import DiscoverRunner

    class Runner(DiscoverRunner):  # type: ignore[misc]
        """Record, and leave out what tries other engines."""

        def get_resultclass(self) -> type[Recorder]:
            return Recorder

        def build_suite(self, *args: Any, **kwargs: Any) -> Any:
            built = super().build_suite(*args, **kwargs)
            kept = [
                test
                for test in built
                if not type(test).__name__.startswith(OF_OTHER_ENGINES) or LABEL != "sessions_tests"
            ]
            return type(built)(kept)

    assert django.VERSION
    main()
