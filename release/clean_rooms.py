"""Install what `make dist` built in clean environments, from files alone, on every Python that the packages promise.

Third parties come from a wheelhouse for each Python, filled under 3rdparty/python/lock.txt and kept in .cache.
"""

from __future__ import annotations

import email
import hashlib
import http.cookiejar
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import urllib.request
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "3rdparty" / "python" / "lock.txt"
# What the quickstart of FastAPI is served with.
SERVED_WITH = ("fastapi", "uvicorn")
CATALOGUE = """
import json
from importlib.metadata import distributions
print(json.dumps({found.name: [found.version, found.requires or []] for found in distributions()}))
"""
IMPORT = """
import importlib, importlib.util, sys
from importlib.metadata import distribution
from pathlib import Path
has_command = importlib.util.find_spec("sojourn_cli")
package = importlib.import_module(sys.argv[2])
assert Path(package.__file__).is_relative_to(sys.prefix), package.__file__
assert Path(package.__file__).with_name("py.typed").exists()
for point in distribution(sys.argv[1]).entry_points:
    # What adds to the command sojourn is loaded by it, and may import what it brings.
    if has_command or not point.name.startswith("command-"):
        point.load()
"""


class CleanRoomError(Exception):
    """Something does not install, import or answer as it should."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """One of our wheels and what its metadata says."""

    path: Path
    name: str
    version: str
    requirements: list[Requirement] = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> Wheel:
        """Read the metadata of the wheel at *path*."""
        with zipfile.ZipFile(path) as archive:
            (entry,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            fields = email.message_from_bytes(archive.read(entry))
        lines = [str(line) for line in fields.get_all("Requires-Dist", [])]
        return cls(path, str(fields["Name"]), str(fields["Version"]), [Requirement(line) for line in lines])


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python to try the packages on, with its wheelhouse."""

    version: str
    full_version: str
    program: str

    @property
    def wheelhouse(self) -> Path:
        """Return the folder of third parties' wheels for this Python."""
        return ROOT / ".cache" / "wheelhouse" / self.version

    @contextmanager
    def room(self) -> Iterator[Room]:
        """Make an environment with nothing in it, and remove it in the end."""
        with tempfile.TemporaryDirectory(prefix="sojourn-") as folder:
            run([self.program, "-m", "venv", "--without-pip", folder])
            yield Room(self, Path(folder))

    def fill_wheelhouse(self, needed: Iterable[str]) -> None:
        """Download what *needed* brings along, at the locked versions, unless it is there already."""
        lock = LOCK.read_text(encoding="utf-8")
        # Constraints know neither hashes nor extras; the hashes are compared below.
        pins = re.findall(r"^([\w.-]+)(?:\[[^\]]*\])?(==[^\\\n]+)", lock, re.MULTILINE)
        constraints = "".join(f"{name}{rest.strip()}\n" for name, rest in pins)
        wanted = "\n".join(sorted({*needed}))
        stamp = self.wheelhouse / "stamp"
        fingerprint = hashlib.sha256(f"{lock}\n{wanted}\n{self.program}".encode()).hexdigest()
        if stamp.exists() and stamp.read_text() == fingerprint:
            return
        shutil.rmtree(self.wheelhouse, ignore_errors=True)
        self.wheelhouse.mkdir(parents=True)
        constraining, requiring = self.wheelhouse / "constraints.txt", self.wheelhouse / "requirements.txt"
        constraining.write_text(constraints)
        requiring.write_text(wanted)
        with self.room() as room:
            # With the settings and indexes of this machine, unlike everything that follows.
            command = [*room.pip("download"), "--only-binary=:all:", "--dest", str(self.wheelhouse)]
            run([*command, "--constraint", str(constraining), "--requirement", str(requiring)], dict(os.environ))
        for wheel in self.wheelhouse.glob("*.whl"):
            if f"sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}" not in lock:
                raise CleanRoomError(f"{wheel.name} is not what {LOCK.name} holds; is its requirement locked?")
        stamp.write_text(fingerprint)


@dataclass(frozen=True, slots=True)
class Room:
    """An environment in which nothing is but what a test installs."""

    interpreter: Interpreter
    folder: Path

    @property
    def python(self) -> str:
        """Return the path of the interpreter inside."""
        return str(self.folder / "bin" / "python")

    def pip(self, *arguments: str) -> list[str]:
        """Return the command that runs the pip of the caller for this environment."""
        return [sys.executable, "-m", "pip", "--python", self.python, "--disable-pip-version-check", "-q", *arguments]

    def install(self, dist: Path, *requirements: str) -> None:
        """Install from *dist* and the wheelhouse alone."""
        links = ["--find-links", str(dist), "--find-links", str(self.interpreter.wheelhouse)]
        run(self.pip("install", "--no-index", "--no-compile", *links, *requirements), folder=ROOT)

    def ask(self, code: str, *arguments: str) -> str:
        """Run *code* with warnings as errors, away from the repository; return what it printed."""
        return run([self.python, "-I", "-W", "error", "-c", code, *arguments], folder=self.folder)

    def catalogue(self) -> dict[str, tuple[str, list[Requirement]]]:
        """Return the version and the requirements of each distribution by its name."""
        found = json.loads(self.ask(CATALOGUE)).items()
        return {
            canonicalize_name(name): (version, [Requirement(line) for line in lines])
            for name, (version, lines) in found
        }


def run(command: list[str], variables: Mapping[str, str] | None = None, folder: Path | None = None) -> str:
    """Run a command, by default without this machine's settings of pip; return its output."""
    bare = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    environment = {**bare, "PIP_CONFIG_FILE": os.devnull} if variables is None else dict(variables)
    done = subprocess.run(
        command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise CleanRoomError(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}")
    return done.stdout


def reachable(room: Room, name: str) -> set[str]:
    """Return what *name* asks for without an extra, with all that this brings along."""
    there = room.catalogue()
    python = {"python_version": room.interpreter.version, "python_full_version": room.interpreter.full_version}
    found: set[tuple[str, str]] = set()
    waiting = [(name, "")]
    while waiting:
        current = waiting.pop()
        if current in found:
            continue
        found.add(current)
        for needed in there[current[0]][1]:
            if needed.marker is None or needed.marker.evaluate({**python, "extra": current[1]}):
                waiting += [(canonicalize_name(needed.name), extra) for extra in ("", *needed.extras)]
    return {name for name, _ in found}


def try_package(interpreter: Interpreter, dist: Path, wheel: Wheel) -> None:
    """Install one wheel alone: it imports, its entry points load, and nothing came that it does not ask for."""
    with interpreter.room() as room:
        room.install(dist, f"{wheel.name}=={wheel.version}")
        room.ask(IMPORT, wheel.name, wheel.name.replace("-", "_"))
        installed = set(room.catalogue())
        unasked = installed - reachable(room, wheel.name)
        unasked |= {name for name in installed if name.startswith("sojourn-")} - {wheel.name}
        if unasked:
            raise CleanRoomError(f"{wheel.name} brings {', '.join(sorted(unasked))}, unasked")
        print(f"{interpreter.version}  {wheel.name}: {len(installed)} distributions")


def try_everything(interpreter: Interpreter, dist: Path, wheels: Iterable[Wheel]) -> None:
    """Install `sojourn[all]`: it brings each of *wheels*, and all of them import."""
    with interpreter.room() as room:
        wheels = list(wheels)
        room.install(dist, f"sojourn[all]=={wheels[0].version}")
        run(room.pip("check"))
        installed = room.catalogue()
        for wheel in wheels:
            if installed.get(wheel.name, ("nothing",))[0] != wheel.version:
                raise CleanRoomError(f"sojourn[all] does not bring {wheel.name} {wheel.version}")
            room.ask(IMPORT, wheel.name, wheel.name.replace("-", "_"))
        print(f"{interpreter.version}  sojourn[all]: {len(installed)} distributions")


def try_clone(interpreter: Interpreter, dist: Path) -> None:
    """Install as the README says for a clone, build isolation included."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(r'^pip install (\./packages/core "\./packages/[\w-]+")$', readme, re.MULTILINE)
    with interpreter.room() as room:
        room.install(dist, *line.replace('"', "").split())
        print(f"{interpreter.version}  pip install {line}: {len(room.catalogue())} distributions")


def try_example(interpreter: Interpreter, dist: Path, version: str) -> None:
    """Serve the quickstart of FastAPI on a free port, and fill a cart there."""
    text = (ROOT / "docs" / "quickstarts" / "fastapi.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    with interpreter.room() as room:
        room.install(dist, f"sojourn[fastapi]=={version}", *SERVED_WITH)
        (room.folder / "main.py").write_text(example, encoding="utf-8")
        command = [room.python, "-m", "uvicorn", "main:app", "--host", "127.0.0.1", "--port", "0"]
        environment = {"PATH": os.environ["PATH"], "SOJOURN_PRESET": "development"}
        with subprocess.Popen(
            command, cwd=room.folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as server:
            assert server.stderr is not None
            try:
                said = ""
                for line in server.stderr:
                    said += line
                    if address := re.search(r"running on (http://127\.0\.0\.1:\d+)", line):
                        break
                else:
                    raise CleanRoomError(f"the server has not started:\n{said}")
                for answer in visit(address[1]):
                    print(f"{interpreter.version}  {answer}")
            finally:
                server.terminate()


def visit(address: str) -> Iterator[str]:
    """Go through the quickstart as one browser does; yield each request with its answer."""
    jar = http.cookiejar.CookieJar()
    browser = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(jar))
    tokens: list[str | None] = []
    steps = (
        ("GET", "/", "[]"),
        ("POST", "/cart?book=emma", '["emma"]'),
        ("GET", "/", '["emma"]'),
        ("POST", "/cart?book=persuasion", '["emma","persuasion"]'),
    )
    for method, path, expected in steps:
        with browser.open(urllib.request.Request(f"{address}{path}", method=method), timeout=30) as answer:
            said = f"{method} {path} -> {answer.status} {answer.read().decode()}"
        if said != f"{method} {path} -> 200 {expected}":
            raise CleanRoomError(f"{said}, expected 200 {expected}")
        tokens.append(next((cookie.value for cookie in jar), None))
        yield said
    if tokens[0] is not None or tokens[1] is None or len(set(tokens[1:])) != 1:
        raise CleanRoomError("the cookie has to come with the first change, and to stay")


def interpreters(versions: Iterable[str]) -> Iterator[Interpreter]:
    """Yield the interpreter of each version; say which is not found."""
    for version in versions:
        program = run(["./dev", "interpreter", version], dict(os.environ), folder=ROOT).strip()
        if program:
            full_version = run([program, "-c", "import platform; print(platform.python_version())"]).strip()
            yield Interpreter(version, full_version, program)
        else:
            print(f"{version}  NOT TRIED: there is no python{version} on the PATH or in pyenv")


def main(dist: Path) -> str | None:
    """Try everything that lies in *dist* on every Python found; return what went wrong, or None."""
    wheels = [Wheel.read(path) for path in sorted(dist.glob("*.whl"))]
    core = tomllib.loads((ROOT / "packages" / "core" / "pyproject.toml").read_text(encoding="utf-8"))
    classified = re.findall(r" :: Python :: (3\.\d+)$", "\n".join(core["project"]["classifiers"]), re.MULTILINE)
    needed = {*SERVED_WITH, *core["build-system"]["requires"]}
    for wheel in wheels:
        for requirement in wheel.requirements:
            if not requirement.name.startswith("sojourn"):
                requirement.marker = None
                needed.add(str(requirement))
    tried = 0
    try:
        for interpreter in interpreters(classified):
            interpreter.fill_wheelhouse(needed)
            for wheel in wheels:
                try_package(interpreter, dist, wheel)
            try_everything(interpreter, dist, wheels)
            try_clone(interpreter, dist)
            try_example(interpreter, dist, wheels[0].version)
            tried += 1
    except CleanRoomError as error:
        return f"error: {error}"
    return None if tried else "error: none of the promised Pythons was found"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
