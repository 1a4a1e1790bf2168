"""Real environments, made without a network: our wheels are built and installed, third parties' are linked in."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import distribution, distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PACKAGES = tuple(sorted(file.parent.name for file in ROOT.glob("packages/*/pyproject.toml")))


def import_name(package: str) -> str:
    """Return the name under which what is in a folder of packages/ is imported."""
    return "sojourn" if package == "core" else f"sojourn_{package.replace('-', '_')}"


def build_packages(target: Path) -> Path:
    """Build all packages into *target*, unless a build system has laid them beside the tests; return where they are."""
    if any(ROOT.glob("sojourn-*.whl")):
        return ROOT
    build(target, *(ROOT / "packages" / name for name in PACKAGES))
    return target


# What `python -m hatchling build` does, whose start takes five times as long as building one of our packages.
BUILD = """
import os, sys
from hatchling.build import build_sdist, build_wheel

target, *sources = sys.argv[1:]
for source in sources:
    os.chdir(source)
    build_sdist(target)
    build_wheel(target)
"""


def build(target: Path, *sources: Path) -> None:
    """Build the sdist and the wheel of packages with what is installed here, without a network."""
    run([sys.executable, "-c", BUILD, str(target), *map(str, sources)])


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment of its own."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def site(self) -> Path:
        (found,) = (self.folder / "lib").glob("python3*/site-packages")
        return found

    def answer(self, code: str, **variables: str) -> Any:
        """Run *code*, which prints JSON as its last line, away from the repository and from this process' variables."""
        return json.loads(self.run("-W", "error", "-c", code, code=0, **variables).stdout.splitlines()[-1])

    def run(self, *arguments: str, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the environment's interpreter."""
        return run([str(self.python), *arguments], code=code, folder=self.folder, **variables)


def make_environment(folder: Path, wheels: Iterable[Path], third_parties: Iterable[str]) -> Environment:
    """Make an environment with *wheels* installed and *third_parties* linked, both without dependencies."""
    run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    environment = Environment(folder)
    for name in third_parties:
        link(name, environment.site)
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(environment.site)
    write_commands(environment)
    return environment


def write_commands(environment: Environment) -> None:
    """Write the commands that the installed distributions declare, as an installer does."""
    for installed in distributions(path=[str(environment.site)]):
        for point in installed.entry_points.select(group="console_scripts"):
            script = environment.folder / "bin" / point.name
            script.write_text(
                f"#!{environment.python}\nimport sys\nfrom {point.module} import {point.attr}\n"
                # Without it a server could not start workers, which import this file.
                f"if __name__ == '__main__':\n    sys.exit({point.attr}())\n"
            )
            script.chmod(0o755)


def third_parties_of(*names: str) -> set[str]:
    """Return the distributions that *names* need on this interpreter, themselves included, ours excluded."""
    found: set[tuple[str, str]] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        requirement = waiting.pop()
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        for extra in {"", *requirement.extras}:
            if (name, extra) in found:
                continue
            found.add((name, extra))
            for line in distribution(name).requires or ():
                needed = Requirement(line)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    waiting.append(needed)
    return {name for name, _ in found if not name.startswith("sojourn")}


def link(name: str, site: Path) -> None:
    """Link the files of an installed distribution into another environment."""
    installed = distribution(name)
    for top in {path.parts[0] for path in installed.files or () if path.parts[0] not in {"..", "__pycache__"}}:
        target = site / top
        if not target.exists():
            target.symlink_to(Path(str(installed.locate_file(top))))


def run(
    command: list[str], *, code: int = 0, folder: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command with a bare environment and check its exit code."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env={**environment, **variables}
    )
    assert done.returncode == code, f"{command} exited with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def lay_distribution(site: Path, name: str, entry_points: str, code: str = "") -> None:
    """Put a distribution of one module into an environment, as an installer would."""
    module = name.replace("-", "_")
    metadata = site / f"{module}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[sojourn]\n{entry_points}\n")
    (site / f"{module}.py").write_text(code)
