"""Write the locks that locks.toml lists, and metadata.json with what each locked distribution requires.

`./dev lock` runs it in an environment that holds uv and packaging. A lock keeps what it pins unless the *.in files or
UV_ARGUMENTS (--upgrade, --upgrade-package NAME) ask for something else. It names no index: uv is told at run time
which one pip is configured with. metadata.json is what the tests of the locks read instead of asking an index.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).resolve().parent
METADATA = HERE / "metadata.json"
NAME = re.compile(r"^[A-Za-z0-9._-]+", re.MULTILINE)
ENTRY = re.compile(r"^(?P<requirement>[^\s#][^\\\n]*)(?P<hashes>(?: \\\n +--hash=\S+)+)", re.MULTILINE)


def main() -> None:
    """Write every lock and the metadata."""
    table = tomllib.loads((HERE / "locks.toml").read_text())
    known = json.loads(METADATA.read_text()) if METADATA.exists() else {}
    index = index_of_pip()
    wanted: dict[str, Any] = {}
    for lock in table["lock"]:
        write_lock(lock, index)
        systems = [table["systems"][name] for name in lock["systems"]]
        for python in lock["pythons"]:
            missing: dict[str, str] = {}
            for name, pin, hashes in needed(HERE / lock["file"], python, systems):
                # What is released never changes: only what is new is asked for.
                if pin in known:
                    wanted[pin] = known[pin]
                elif pin not in wanted:
                    missing[name] = pin + hashes
            if missing:
                wanted.update(ask(missing.values(), python))
    lines = (f"  {json.dumps(pin)}: {json.dumps(wanted[pin])}" for pin in sorted(wanted))
    METADATA.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def write_lock(lock: dict[str, Any], index: list[str]) -> None:
    """Resolve the inputs of *lock* for all its Pythons and systems at once."""
    command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", "--quiet", "--universal"]
    command += ["--python-version", lock["pythons"][0], "--no-strip-extras", "--generate-hashes"]
    command += ["--no-annotate", "--no-header", "--no-emit-index-url", "--no-emit-find-links"]
    command += [*index, *shlex.split(os.environ.get("UV_ARGUMENTS", "")), *lock.get("arguments", [])]
    with tempfile.NamedTemporaryFile("w") as constraints:
        if "current" in lock:
            names = set(NAME.findall((HERE / lock["current"]).read_text()))
            tested = [entry["requirement"] for entry in ENTRY.finditer((HERE / "python/lock.txt").read_text())]
            constraints.writelines(f"{pin}\n" for pin in tested if names.intersection(NAME.findall(pin)))
            constraints.flush()
            command += ["--constraints", constraints.name]
        subprocess.run([*command, *lock["inputs"], "--output-file", lock["file"]], check=True, cwd=HERE)


def needed(lock: Path, python: str, systems: Iterable[Any]) -> Iterable[tuple[str, str, str]]:
    """Return name, pin and hashes of what *lock* installs on *python* on any of the *systems*."""
    for entry in ENTRY.finditer(lock.read_text()):
        requirement = Requirement(entry["requirement"])
        name = canonicalize_name(requirement.name)
        versions = {"python_version": python.rpartition(".")[0], "python_full_version": python}
        marker = requirement.marker
        if marker is None or any(marker.evaluate({**system, **versions}) for system in systems):
            yield name, f"{name}{requirement.specifier}", entry["hashes"]


def ask(lines: Iterable[str], python: str) -> dict[str, Any]:
    """Ask the index what the distributions in *lines* of a lock require."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, report = Path(folder, "wanted.txt"), Path(folder, "report.json")
        wanted.write_text("\n".join(lines))
        command = ["install", "--dry-run", "--quiet", "--ignore-installed", "--no-deps", "--require-hashes"]
        command += ["--python-version", python, "--only-binary", ":all:", "--report", str(report), "-r", str(wanted)]
        pip(*command)
        found = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    return {
        f"{canonicalize_name(item['name'])}=={item['version']}": {
            "requires_python": item.get("requires_python", ""),
            "requires": item.get("requires_dist", []),
        }
        for item in found
    }


def index_of_pip() -> list[str]:
    """Return the argument with which uv asks the index that pip is configured with."""
    for line in pip("config", "list").splitlines():
        name, _, value = line.partition("=")
        if name.endswith(".index-url"):
            return ["--index-url", value.strip("'\"")]
    return []


def pip(*arguments: str) -> str:
    """Return what pip prints, with the configuration of this machine."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
