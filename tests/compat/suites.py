"""The tests of other libraries, taken from their sources when they run, and what we expect them to say of ours.

One entry of SUITES for each file or folder of tests: where it comes from, what runs it on our sessions (a plugin of pytest or
a script in ``shims``), on which stores, and the tests that fail, each with its reason.

Nothing of theirs is kept in the repository: a source is downloaded into ``.cache/compat`` by pip, or stands unpacked in the
directory that ``COMPAT_SOURCES`` names. Without a network and without that the run fails and says so.

What a run found is kept in ``results.json``, from which the page is written. Every day the page is compared with it, and it
with what is expected, the releases of the lock, and what ran the tests.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "3rdparty" / "python" / "lock.txt"
CACHE = ROOT / ".cache" / "compat"
PAGE = ROOT / "docs" / "compatibility.md"
SHIMS = Path(__file__).parent / "shims"
RESULTS = Path(__file__).parent / "results.json"
"""What the last run of each suite found."""


def _locked(name: str) -> str:
    """Return the release of a distribution that the lock has, which is the one that `make compat` tries."""
    return LOCK.read_text().partition(f"\n{name}==")[2].partition(" ")[0]


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Tests of another library, and the difference that each failing test stands for."""

    name: str
    """How the page calls it."""
    folder: str
    """What the unpacked source is called."""
    source: str
    """What pip downloads: a requirement, or the address of an archive where the releases hold no tests."""
    tests: str
    """Files or folders, or single tests of a file as pytest names them, with spaces between."""
    shim: str
    differs: dict[str, str]
    """By the name of the test: why it fails on ours, and is to fail."""
    differs_on: dict[str, dict[str, str]] = field(default_factory=dict)
    """The same by the store that it concerns alone."""
    not_applicable: dict[str, str] = field(default_factory=dict)
    """By the name of the test: what of another backend it looks into."""
    label: str = ""
    """Where the shim is a script: what it is to run, from the folder that holds `tests`."""
    stores: tuple[str, ...] = ("memory",)
    """The stores that it runs on, each by its name for the shim's SOJOURN_COMPAT_STORE."""
    options: tuple[str, ...] = ()
    """More arguments of pytest."""
    python: str = ""
    """The Python that it needs, as ``3.12``; by default the one that runs this."""

    @property
    def paths(self) -> list[str]:
        """The files and folders of the tests."""
        return list(dict.fromkeys(place.partition("::")[0] for place in self.tests.split()))


@dataclass(frozen=True)
class Outcome:
    """What a run of a suite on one store found."""

    tests: int
    failing: tuple[str, ...]
    """The names of the tests that fail, in their order."""


STARLETTE = Suite(
    name="Starlette",
    folder=f"starlette-{_locked('starlette')}",
    source=f"starlette=={_locked('starlette')}",
    tests="tests/middleware/test_session.py",
    shim="starlette_sessions",
    differs={
        "test_session_expires": "a lifetime below zero is a mistake that start-up refuses (SECURITY R11)",
        "test_session_zero_max_age": "a lifetime of zero is refused for the same reason; `persistent=False` ends the cookie "
        "with the browser",
    },
)

_CHOSEN = "the test writes a record under an id of its choice and sends that: an id that the client chose is never adopted (SECURITY R3, R4)"
STARSESSIONS = Suite(
    name="starsessions",
    folder="starsessions-2.2.1",
    source="https://github.com/alex-oleshkevich/starsessions/archive/refs/tags/v2.2.1.tar.gz",
    tests="tests/test_middleware.py",
    shim="starsessions_middleware",
    differs={
        "test_loads_existing_session": _CHOSEN,
        "test_send_cookie_if_session_destroyed": _CHOSEN,
        "test_send_cookie_with_domain_if_session_destroyed_and_domain_set": _CHOSEN,
        "test_will_clear_storage_if_session_destroyed": _CHOSEN,
        "test_same_site_argument_set_in_cookie": "asks for `samesite=none` in lower case; browsers ignore the case of "
        "attributes (RFC 6265 5.2), ours are spelled as there",
        "test_session_timedelta_lifetime": "looks at an attribute of their middleware; a `timedelta` is taken",
    },
)

_ENGINE = "chooses another engine of Django's by SESSION_ENGINE; the middleware serves sojourn's alone"
_CACHE = "looks into the cache that Django's engine of this test keeps its sessions in"
_QUERIES = "counts the queries of the database, those of Django's engine for databases among them"
_CLEARS = "sends a cookie that leads nowhere and wants it deleted: it is left alone, for a slow request must not end the login of a later one (SECURITY R13)"
_DJANGO_DIFFERS = {
    "sessions_tests": {
        "tests.SessionMiddlewareTests.test_no_httponly_session_cookie": "shows the cookie to scripts, which is refused (SECURITY R18)",
        "tests.SessionMiddlewareTests.test_session_delete_on_end": _CLEARS,
        "tests.SessionMiddlewareTests.test_session_delete_on_end_with_custom_domain_and_path": _CLEARS,
    },
    "auth_tests": {
        "test_views.LoginTest.test_session_key_flushed_on_login_after_password_change": "wants the same key after the same user has "
        "logged in again: every login gives a new one (SECURITY R8)",
    },
}
_DJANGO_NOT_APPLICABLE = {
    "sessions_tests": {
        "tests.CacheSessionTests.test_create_and_save": _CACHE,
        "tests.CacheSessionTests.test_create_and_save_async": _CACHE,
        "tests.CacheSessionTests.test_default_cache": _CACHE,
        "tests.CacheSessionTests.test_non_default_cache": _CACHE,
        "tests.SessionMiddlewareTests.test_empty_session_saved": "looks into the table of Django's engine for databases",
        "tests.SessionMiddlewareTests.test_session_update_error_redirect": "puts a session of Django's engine for databases in the "
        "place of ours, which the middleware does not store",
    },
    "auth_tests": {
        "test_middleware.TestLoginRequiredMiddleware.test_protected_view_logged_in_performance": _QUERIES,
    },
    "admin_views": dict.fromkeys(
        (
            "tests.AdminCustomQuerysetTest.test_changelist_view_count_queries",
            "tests.AdminSearchTest.test_no_total_count",
            "tests.AdminSearchTest.test_reset_link",
            "tests.GroupAdminTest.test_group_permission_performance",
            "tests.UserAdminTest.test_user_permission_performance",
        ),
        _QUERIES,
    ),
    "test_client": {
        "tests.ClientTest.test_logout_cookie_sessions": _ENGINE,
        "tests.ClientTest.test_sessions_app_is_not_installed": _ENGINE,
        "tests.ClientTest.test_view_with_login_when_sessions_app_is_not_installed": _ENGINE,
    },
}
_DJANGO_DIFFERS_IN_COOKIES = {
    "auth_tests": dict.fromkeys(
        (
            "test_templates.AuthTemplateTests.test_password_reset_confirm_view_custom_username_hint",
            "test_templates.AuthTemplateTests.test_password_reset_confirm_view_error_form",
            "test_templates.AuthTemplateTests.test_password_reset_confirm_view_error_title",
            "test_templates.AuthTemplateTests.test_password_reset_confirm_view_valid_token",
            "test_views.CustomUserCompositePrimaryKeyPasswordResetTest.test_confirm_valid_custom_user",
            "test_views.CustomUserPasswordResetTest.test_confirm_valid_custom_user",
            "test_views.PasswordResetTest.test_confirm_complete",
            "test_views.PasswordResetTest.test_confirm_custom_reset_url_token",
            "test_views.PasswordResetTest.test_confirm_different_passwords",
            "test_views.PasswordResetTest.test_confirm_display_user_from_form",
            "test_views.PasswordResetTest.test_confirm_login_post_reset",
            "test_views.PasswordResetTest.test_confirm_login_post_reset_already_logged_in",
            "test_views.PasswordResetTest.test_confirm_login_post_reset_custom_backend",
            "test_views.PasswordResetTest.test_confirm_redirect_custom",
            "test_views.PasswordResetTest.test_confirm_redirect_custom_named",
            "test_views.PasswordResetTest.test_confirm_redirect_default",
            "test_views.PasswordResetTest.test_confirm_valid",
            "test_views.UUIDUserPasswordResetTest.test_confirm_valid_custom_user",
        ),
        "changes `client.session` and saves it, which reaches no session that is in the client's cookie; Django's own engine for "
        "cookies fails them, too",
    ),
}
_DJANGO_6_ONLY = (
    "test_middleware.TestLoginRequiredMiddleware.test_protected_view_logged_in_performance",
    "test_templates.AuthTemplateTests.test_password_reset_confirm_view_error_form",
)
"""Of those above what Django 5.2 does not have, or does not count."""
_DJANGO_LABELS = ("sessions_tests", "messages_tests", "auth_tests", "test_client", "csrf_tests", "admin_views")
_DJANGO_RELEASES = re.findall(r"^django==([\d.]+) ; python_full_version (<|>=) '3.12'", LOCK.read_text(), re.MULTILINE)
DJANGO = tuple(
    Suite(
        name=label if side == "<" else f"{label} of Django 6",
        folder=f"django-{release}",
        source=f"Django=={release}",
        tests=f"tests/{label}",
        shim="django_suites",
        label=label,
        differs=_DJANGO_DIFFERS.get(label, {}),
        differs_on={
            "cookie": {
                name: why
                for name, why in _DJANGO_DIFFERS_IN_COOKIES.get(label, {}).items()
                if side == ">=" or name not in _DJANGO_6_ONLY
            }
        },
        not_applicable={
            name: why
            for name, why in _DJANGO_NOT_APPLICABLE.get(label, {}).items()
            if side == ">=" or name not in _DJANGO_6_ONLY
        },
        stores=("memory", "cookie", "redis"),
        python="3.11" if side == "<" else "3.12",
    )
    for release, side in _DJANGO_RELEASES
    for label in _DJANGO_LABELS
)

_NO_KEY = "tries the session that Flask's own interface hands out without a SECRET_KEY; ours asks for none"
FLASK = Suite(
    name="Flask",
    folder=f"flask-{_locked('flask')}",
    source=f"Flask=={_locked('flask')}",
    tests=" ".join(
        f"tests/test_{name}.py"
        for name in ("basic", "testing", "reqctx", "session_interface", "signals", "templating", "helpers")
    ),
    shim="flask_sessions",
    differs={
        "test_basic.test_session_using_session_settings": "shows the cookie to scripts, which is refused (SECURITY R18)",
        "test_basic.test_session_using_samesite_attribute": "wants a mistaken SameSite refused by the request and none by default: "
        "start-up refuses it, and the default is Lax (SECURITY R18, R19)",
        "test_basic.test_session_expiration": "looks for Expires; ours say Max-Age, which every browser prefers (RFC 6265 5.3)",
        "test_basic.test_session_refresh_vary": "wants the cookie sent again by a page that does not use the session, which would "
        "open it for every page",
        "test_reqctx.test_bad_environ_raises_bad_request": "fails without sessions of ours, too, on today's Werkzeug",
    },
    differs_on={
        "memory": {
            "test_basic.test_session_secret_key_fallbacks": "changes the key so that it no longer opens the session: what "
            "stays in the process is not encrypted",
        },
    },
    not_applicable={
        "test_basic.test_missing_session": _NO_KEY,
        "test_testing.test_session_transactions_no_null_sessions": _NO_KEY,
    },
    stores=("memory", "cookie", "redis"),
)
FLASK_LOGIN = Suite(
    name="Flask-Login",
    folder=f"Flask-Login-{_locked('flask-login')}",
    source=f"Flask-Login=={_locked('flask-login')}",
    tests="tests/test_login.py",
    shim="flask_sessions",
    differs={
        "LoginTestCase.test_session_protection_strong_deletes_session": "wants what else the session holds kept when its protection "
        "logs out: a logout ends the session with all it holds (SECURITY R46)",
    },
    stores=("memory", "cookie", "redis"),
)
FLASK_WTF = Suite(
    name="Flask-WTF",
    folder=f"flask_wtf-{_locked('flask-wtf')}",
    source=f"Flask-WTF=={_locked('flask-wtf')}",
    tests="tests/test_csrf_extension.py tests/test_csrf_form.py tests/test_form.py",
    shim="flask_sessions",
    differs={},
    stores=("memory", "cookie", "redis"),
)
FLASK_SESSION = Suite(
    name="Flask-Session",
    folder="Flask-Session-0.4.1",
    source="Flask-Session==0.4.1",
    tests="test_session.py",
    shim="flask_sessions",
    differs={
        "FlaskSessionTestCase.test_null_session": "wants no session where the configuration names no kind of store; ours starts "
        "with the one of its preset",
    },
    stores=("memory", "cookie", "redis"),
)

_EXCLUDED = (
    "wants no session in the scope of a route that is excluded: ours is there, and loads nothing until it is used"
)
LITESTAR = Suite(
    name="Litestar",
    folder="litestar-2.24.0",
    source="https://github.com/litestar-org/litestar/archive/refs/tags/v2.24.0.tar.gz",
    tests="tests/unit/test_middleware/test_session/test_middleware.py tests/unit/test_middleware/test_session/test_integration.py "
    "tests/unit/test_security/test_session_auth.py tests/unit/test_testing/test_test_client.py::test_test_client_set_session_data "
    "tests/unit/test_testing/test_test_client.py::test_test_client_get_session_data "
    "tests/examples/test_middleware/test_session_middleware.py tests/examples/test_using_session_auth.py",
    shim="litestar_sessions",
    options=("--noconftest", "-o", "anyio_mode=auto"),
    differs={
        "test_middleware.test_middleware_exclude_pattern": _EXCLUDED,
        "test_middleware.test_middleware_exclude_flag": _EXCLUDED,
        "test_middleware.test_middleware_exclude_custom_key": _EXCLUDED,
        "test_session_auth.test_session_auth_openapi": "compares the whole document, in which the plugin describes its cookie, too",
    },
    stores=("memory", "cookie", "redis"),
)

_SAME_TOKEN = "looks for its data in a cookie of the response: none is sent where the token stays what it was"
_CLEARING = "compares the attributes of the cookie that deletes, which are those of the cookie that it deletes"
_EXPIRES = "looks for Expires; ours say Max-Age, which every browser prefers (RFC 6265 5.3)"
AIOHTTP_SESSION = Suite(
    name="aiohttp-session",
    folder="aiohttp_session-2.12.1",
    source="aiohttp-session==2.12.1",
    tests=" ".join(
        f"tests/test_{name}.py"
        for name in (
            "cookie_storage",
            "encrypted_cookie_storage",
            "path_domain",
            "abstract_storage",
            "http_exception",
            "response_types",
            "session_middleware",
        )
    ),
    shim="aiohttp_sessions",
    options=(
        "--noconftest",  # it asks for docker
        "--deselect=tests/test_encrypted_cookie_storage.py::test_invalid_key",  # these two try their class for keys
        "--deselect=tests/test_encrypted_cookie_storage.py::test_str_key",
    ),
    differs={
        "test_cookie_storage.test_clear_cookie_on_session_invalidation": _CLEARING,
        "test_encrypted_cookie_storage.test_clear_cookie_on_session_invalidation": _CLEARING,
        "test_abstract_storage.test_max_age_also_returns_expires": _EXPIRES,
        "test_abstract_storage.test_max_age_session_reset": _EXPIRES,
        "test_response_types.test_stream_response": "wants what a stream has changed lost; ours is stored",
        "test_response_types.test_prepared_response_type": "wants a response refused that has been prepared: ours has committed "
        "before its head left",
        "test_session_middleware.test_session_middleware_bad_storage": "wants RuntimeError: ours is a ConfigurationError",
    },
    differs_on={
        store: {
            "test_cookie_storage.test_change_session": _SAME_TOKEN,
            "test_encrypted_cookie_storage.test_change_session": _SAME_TOKEN,
            "test_path_domain.test_with_same_path_domain": _SAME_TOKEN,
        }
        for store in ("memory", "redis")
    },
    not_applicable={
        "test_encrypted_cookie_storage.test_create_new_session_broken_by_format": "writes a cookie under another key by Fernet",
    },
    stores=("memory", "cookie", "redis"),
)
SUITES = (STARLETTE, STARSESSIONS, FLASK, FLASK_LOGIN, FLASK_WTF, FLASK_SESSION, LITESTAR, AIOHTTP_SESSION, *DJANGO)


def unpacked(suite: Suite) -> Path:
    """Return where the source of a suite stands, downloaded if it has to be."""
    given = os.environ.get("COMPAT_SOURCES")
    for place in (*([Path(given)] if given else []), CACHE):
        if all((place / suite.folder / path).exists() for path in suite.paths):
            return place / suite.folder
    CACHE.mkdir(parents=True, exist_ok=True)
    command = [interpreter(suite), "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*command, "--no-binary", suite.folder.rpartition("-")[0], "--dest", str(CACHE), suite.source],
        capture_output=True,
        text=True,
        check=False,
    )
    archives = [path for path in CACHE.glob("*.tar.gz") if suite.folder.rpartition("-")[2] in path.name]
    for archive in archives:
        with tarfile.open(archive) as opened:
            opened.extractall(CACHE, filter="data")
    folder = CACHE / suite.folder
    if not all((folder / path).exists() for path in suite.paths):
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-1:]
        raise AssertionError(
            f"the tests of {suite.name} cannot be had from {suite.source}: {' '.join(lines) or 'it holds no ' + suite.tests}; "
            f"this run needs the network, or {suite.folder} unpacked in the directory that COMPAT_SOURCES names"
        )
    return folder


def installed(name: str, *wanted: str) -> Path:
    """Return a directory with distributions that no lock has, which is made once."""
    target = CACHE / name
    if not target.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), *wanted]
        subprocess.run(command, check=True)
    return target


def interpreter(suite: Suite) -> str:
    """Return the Python that a suite runs on."""
    if suite.python in {"", "{}.{}".format(*sys.version_info)}:
        return sys.executable
    made = ROOT / ".cache" / f"python-{suite.python}" / "bin" / "python"
    assert made.exists(), f"{suite.name} runs on Python {suite.python}: ./dev compat makes {made}"
    return str(made)


def run(suite: Suite, store: str) -> Outcome:
    """Run a suite against ours in a process of its own."""
    folder = unpacked(suite)
    report = CACHE / f"{suite.name}-{store}.xml"
    CACHE.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(SHIMS), str(folder)))}
    environment["SOJOURN_COMPAT_STORE"] = store
    if suite.label:
        command = [str(SHIMS / f"{suite.shim}.py"), suite.label, str(report)]
        place = (folder / suite.tests).parent
    else:
        options = ["-c", os.devnull, "--rootdir", ".", "-p", suite.shim, "-p", "no:cacheprovider", "-q"]
        command = ["-m", "pytest", *options, *suite.options, "--junitxml", str(report), *suite.tests.split()]
        place = folder
    done = subprocess.run(
        [interpreter(suite), *command], cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    assert report.is_file(), done.stdout + done.stderr
    cases = [case for case in ET.parse(report).getroot().iter("testcase") if case.find("skipped") is None]
    assert cases, done.stdout
    passes = {name_of(suite, case): case.find("failure") is None and case.find("error") is None for case in cases}
    return Outcome(len(passes), tuple(name for name, is_passed in passes.items() if not is_passed))


def name_of(suite: Suite, case: ET.Element) -> str:
    """Return what the tables call a test: after its class, and where several files are run after its file."""
    place = case.attrib.get("classname", "")
    if len(suite.paths) > 1:
        place = place.rpartition(".")[2]
    else:
        place = place.removeprefix(suite.tests.removesuffix(".py").replace("/", ".")).strip(".")
    name = re.sub(r"\[(?:asyncio|pyloop)\]|asyncio-", "", case.attrib["name"])
    return f"{place}.{name}" if place else name


def rows_of(suite: Suite, outcomes: dict[str, Outcome]) -> str:
    """Return what the page says of a suite, from the outcomes on each store."""
    library, _, release = suite.folder.rpartition("-")
    where = f"{', '.join(f'`{path}`' for path in suite.paths)} of {library} {release}"
    if len(suite.stores) > 1:
        lines = [f"{where}:", "", "| store | tests | passed | failed | not applicable |", "|---|---|---|---|---|"]
        for store, of in outcomes.items():
            foreign = sum(name in suite.not_applicable for name in of.failing)
            failed = len(of.failing) - foreign
            lines.append(f"| {store} | {of.tests} | {of.tests - len(of.failing)} | {failed} | {foreign} |")
    else:
        lines = [f"{where}: {of.tests - len(of.failing)} of {of.tests} pass as they are." for of in outcomes.values()]
    names = dict.fromkeys(name for of in outcomes.values() for name in of.failing)
    tables = {"test that differs": suite.differs}
    for reasons in suite.differs_on.values():
        stores = [store for store, of in suite.differs_on.items() if of == reasons]
        tables[f"test that differs on {' and '.join(stores)}"] = reasons
    tables["test that is not applicable"] = suite.not_applicable
    known = {name for reasons in tables.values() for name in reasons}
    tables["test that fails"] = dict.fromkeys([name for name in names if name not in known], "unknown")
    for head, reasons in tables.items():
        rows = [f"| `{name}` | {why} |" for name, why in reasons.items() if name in names]
        if rows:
            lines += ["", f"| {head} | why |", "|---|---|", *rows]
    return "\n".join(lines)


def expected_of(suite: Suite, store: str) -> set[str]:
    """Return the names of the tests that fail on a store, each with its reason on the page."""
    return {*suite.differs, *suite.not_applicable, *suite.differs_on.get(store, {})}


def section_of(text: str, suite: Suite) -> tuple[int, int]:
    """Return where on the page the part of a suite begins and ends."""
    opening, closing = f"<!-- {suite.name}: written by make compat -->\n", "\n<!-- end -->"
    start = text.index(opening) + len(opening)
    return start, text.index(closing, start)


def ran_by(suite: Suite) -> str:
    """Return what changes with the release, the choice of tests and the shim: an outcome stands for these alone."""
    shim = (SHIMS / f"{suite.shim}.py").read_text(encoding="utf-8")
    told = (suite.folder, suite.tests, suite.label, suite.options, shim)
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def results() -> dict[str, dict[str, Any]]:
    """Return what was found by the last run of each suite, by its name."""
    found: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return found


def outcomes_of(suite: Suite) -> dict[str, Outcome]:
    """Return what was found by the last run of a suite, by store."""
    stores = results()[suite.name]["stores"]
    return {store: Outcome(of["tests"], tuple(of["failing"])) for store, of in stores.items()}


def keep(suite: Suite, outcomes: dict[str, Outcome]) -> None:
    """Keep what a run found, and write it on the page; nothing changes where it was known."""
    stores = {store: {"tests": of.tests, "failing": sorted(of.failing)} for store, of in outcomes.items()}
    found = {**results(), suite.name: {"ran_by": ran_by(suite), "stores": stores}}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    start, end = section_of(text, suite)
    PAGE.write_text(text[:start] + rows_of(suite, outcomes) + text[end:], encoding="utf-8")
