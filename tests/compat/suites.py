"""The tests of other libraries, taken from their sources when they run, and what we expect them to say of ours.

Nothing of theirs is kept in the repository: a source is downloaded into ``.cache/compat`` by pip, or stands unpacked in the
directory that ``SOJOURN_COMPAT_SOURCES`` names. Without a network and without that the run fails and says so.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "compat"
PAGE = ROOT / "docs" / "compatibility.md"
SHIMS = Path(__file__).parent / "shims"


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One file of another library's tests, and the difference that each failing test stands for."""

    name: str
    """How the page calls it."""
    folder: str
    """What the unpacked source is called."""
    source: str
    """What pip downloads: a requirement, or the address of an archive where the releases hold no tests."""
    tests: str
    shim: str
    differs: dict[str, str]
    """By the name of the test: why it fails on ours, and is to fail."""


STARLETTE = Suite(
    name="Starlette",
    folder=f"starlette-{version('starlette')}",
    source=f"starlette=={version('starlette')}",
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
SUITES = (STARLETTE, STARSESSIONS)


def unpacked(suite: Suite) -> Path:
    """Return where the source of a suite stands, downloaded if it has to be."""
    given = os.environ.get("SOJOURN_COMPAT_SOURCES")
    folder = (Path(given) if given else CACHE) / suite.folder
    if (folder / suite.tests).is_file():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*command, "--no-binary", ":all:", "--dest", str(CACHE), suite.source],
        capture_output=True,
        text=True,
        check=False,
    )
    archives = [path for path in CACHE.glob("*.tar.gz") if suite.folder.rpartition("-")[2] in path.name]
    for archive in archives:
        with tarfile.open(archive) as opened:
            opened.extractall(CACHE, filter="data")
    folder = CACHE / suite.folder
    if not (folder / suite.tests).is_file():
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-1:]
        raise AssertionError(
            f"the tests of {suite.name} cannot be had from {suite.source}: {' '.join(lines) or 'it holds no ' + suite.tests}; "
            f"this run needs the network, or {suite.folder} unpacked in the directory that SOJOURN_COMPAT_SOURCES names"
        )
    return folder


def run(suite: Suite) -> dict[str, bool]:
    """Run a suite against ours in a process of its own; return which of its tests passed, by name."""
    folder = unpacked(suite)
    report = CACHE / f"{suite.name}.xml"
    CACHE.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(SHIMS), str(folder)))}
    options = [
        "-c",
        os.devnull,
        "--rootdir",
        ".",
        "-p",
        suite.shim,
        "-p",
        "no:cacheprovider",
        "-q",
        "--junitxml",
        str(report),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, suite.tests],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert report.is_file(), done.stdout + done.stderr
    cases = list(ET.parse(report).getroot().iter("testcase"))
    assert cases, done.stdout
    return {
        re.sub(r"\[asyncio\]|asyncio-", "", case.attrib["name"]): case.find("failure") is None
        and case.find("error") is None
        for case in cases
    }


def rows_of(suite: Suite, outcomes: dict[str, bool]) -> str:
    """Return what the page says of a suite."""
    passed = sum(outcomes.values())
    lines = [
        f"`{suite.tests}` of {suite.folder.replace('-', ' ')}: {passed} of {len(outcomes)} pass as they are.",
        "",
        "| test that differs | why |",
        "|---|---|",
        *(f"| `{name}` | {suite.differs.get(name, 'unknown')} |" for name, passes in outcomes.items() if not passes),
    ]
    return "\n".join(lines)


def section_of(text: str, suite: Suite) -> tuple[int, int]:
    """Return where on the page the part of a suite begins and ends."""
    opening, closing = f"<!-- {suite.name}: written by make compat -->\n", "\n<!-- end -->"
    start = text.index(opening) + len(opening)
    return start, text.index(closing, start)


def write(suite: Suite, outcomes: dict[str, bool]) -> None:
    """Put what a run found on the page; nothing changes where it was known."""
    text = PAGE.read_text(encoding="utf-8")
    start, end = section_of(text, suite)
    written = text[:start] + rows_of(suite, outcomes) + text[end:]
    if written != text:
        PAGE.write_text(written, encoding="utf-8")
