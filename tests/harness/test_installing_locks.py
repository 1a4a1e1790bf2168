"""Install the locks with several releases of pip from an index where a newer release of everything exists."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

from tests.harness.locks import LOCKS, METADATA, ROOT, THIRD_PARTY, Lock, read_requirements

PIPS = Path(os.environ.get("TEST_PIPS", ROOT / ".cache" / "pips"))
# Releases of pip before 23.2 do not start on Python 3.12 and later.
RELEASES = [
    pin
    for path in sorted(THIRD_PARTY.glob("pips/*-lock.txt"))
    for pin in read_requirements(path)
    if sys.version_info < (3, 12) or not pin.specifier.contains("23.0.1")
]
# A lock that stands beside another one is installed with that.
BESIDE = {lock.beside for lock in LOCKS}
INSTALLED = {lock.file: lock for lock in LOCKS if lock.file not in BESIDE and not lock.file.startswith("pips/")}
OF_DEVELOPERS = "python/tools-lock.txt"
# They go through the same pip as the long ones, which would take as long as all the rest of this file.
EVERY_DAY = {"pants/lock.txt", "pants/pex-lock.txt", "python/demo-lock.txt", "python/docs-lock.txt"}
NEWEST = max(RELEASES, key=lambda pin: max(Version(each.version) for each in pin.specifier))
NEWER = "99999"


def write_wheel(folder: Path, name: str, version: str, requires: list[str]) -> Path:
    """Write a wheel without content, with the metadata of a release."""
    stem = f"{name.replace('-', '_')}-{version}"
    extras = {extra for line in requires for extra in re.findall(r"""extra == ["']([^"']+)["']""", line)}
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    metadata += [f"Provides-Extra: {extra}" for extra in sorted(extras)]
    metadata += [f"Requires-Dist: {line}" for line in requires]
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{stem}.dist-info/METADATA", "\n".join(metadata) + "\n")
        wheel.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{stem}.dist-info/RECORD", "")
    return path


class Index:
    """A package index in a folder: every locked release, and a newer one of everything that is ever named."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hashes: dict[str, str] = {}
        newest: dict[NormalizedName, list[str]] = {}
        for lock in LOCKS:
            for pin in read_requirements(THIRD_PARTY / lock.file):
                name = canonicalize_name(pin.name)
                requires = METADATA.get(f"{name}{pin.specifier}", {"requires": []})["requires"]
                (version,) = (each.version for each in pin.specifier)
                if f"{name}=={version}" not in self.hashes:
                    self.add(name, version, requires)
                newest[name] = requires
                for line in requires:
                    newest.setdefault(canonicalize_name(Requirement(line).name), [])
        for name, requires in newest.items():
            self.add(name, NEWER, requires)

    def add(self, name: str, version: str, requires: list[str]) -> None:
        project = self.folder / name
        project.mkdir(exist_ok=True, parents=True)
        wheel = write_wheel(project, name, version, requires)
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        self.hashes[f"{name}=={version}"] = f" \\\n    --hash=sha256:{digest}"
        links = "".join(f'<a href="{path.name}">{path.name}</a>\n' for path in project.glob("*.whl"))
        (project / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")

    def lock_for(self, lock: str, folder: Path, *, is_whole: bool) -> Path:
        """Return a copy of a lock, or of what is telling in it, with no difference but the hashes of this index."""

        def replace(entry: re.Match[str]) -> str:
            pin = Requirement(entry[1])
            if not is_whole and not is_telling(pin):
                return ""
            return entry[1] + self.hashes[f"{canonicalize_name(pin.name)}{pin.specifier}"]

        path = folder / lock.replace("/", "-")
        path.write_text(
            re.sub(
                r"^([^\s#][^\\\n]*?)(?: \\\n +--hash=\S+)+",
                replace,
                (THIRD_PARTY / lock).read_text(),
                flags=re.MULTILINE,
            )
        )
        return path


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return Index(tmp_path_factory.mktemp("index"))


@pytest.fixture(scope="module", params=RELEASES, ids=str)
def pip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one release of pip, for PYTHONPATH."""
    (version,) = (each.version for each in request.param.specifier)
    (wheel,) = PIPS.glob(f"pip-{version}-*.whl")
    folder = tmp_path_factory.mktemp("pip")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run_pip(command: list[str | Path], pip: Path, index: Index, folder: Path) -> dict[str, str]:
    """Run *command* for a new environment in *folder*, with that pip and that index; return what is installed then."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    environment = {
        "HOME": str(folder),
        "PATH": f"{folder / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": index.folder.as_uri(),
        "PYTHONPATH": str(pip),
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (site,) = folder.glob("venv/lib/python3*/site-packages")
    return {found.name: found.version for found in distributions(path=[str(site)])}


def is_telling(pin: Requirement) -> bool:
    """Tell whether releases of pip may differ over a pin: it has extras or a marker, or a requirement with extras."""
    requires = METADATA.get(f"{canonicalize_name(pin.name)}{pin.specifier}", {"requires": []})["requires"]
    return bool(pin.extras or pin.marker) or any(Requirement(line).extras for line in requires)


def expect_the_pins(lock: Lock, pip: Path, index: Index, folder: Path, *, is_whole: bool = True) -> None:
    folder.mkdir()
    files = [lock.beside, lock.file] if lock.beside else [lock.file]
    locks = [index.lock_for(file, folder, is_whole=is_whole) for file in files]
    found = run_pip([ROOT / "dev", "install", folder / "venv" / "bin" / "python", *locks], pip, index, folder)
    pins = [pin for pin in lock.pins() if pin.marker is None or pin.marker.evaluate()]
    pins = [pin for pin in pins if is_whole or is_telling(pin)]
    assert found == {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}, lock.file


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pip", "is_whole"),
    [
        pytest.param(pin, is_whole, marks=pytest.mark.long if is_whole and pin is not NEWEST else [])
        for pin in RELEASES
        # What takes the newest pip three seconds takes the older ones five and seven.
        for is_whole in ([True] if pin is NEWEST else [True, False])
    ],
    indirect=["pip"],
    ids=lambda value: {True: "whole", False: "telling part"}.get(value) if isinstance(value, bool) else str(value),
)
def test_newer_releases_do_not_change_what_developers_install(
    pip: Path, is_whole: bool, index: Index, tmp_path: Path
) -> None:
    expect_the_pins(INSTALLED[OF_DEVELOPERS], pip, index, tmp_path / "tools", is_whole=is_whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    "pip",
    [pytest.param(pin, marks=[] if pin is NEWEST else pytest.mark.long) for pin in RELEASES],
    ids=str,
    indirect=True,
)
@pytest.mark.parametrize(
    "file",
    [
        pytest.param(file, marks=[] if file in EVERY_DAY else pytest.mark.long)
        for file in sorted(INSTALLED.keys() - {OF_DEVELOPERS})
    ],
)
def test_newer_releases_do_not_change_what_any_other_lock_installs(
    file: str, pip: Path, index: Index, tmp_path: Path
) -> None:
    expect_the_pins(INSTALLED[file], pip, index, tmp_path / file.replace("/", "-"))


@pytest.mark.slow
def test_the_index_tempts_who_resolves(pip: Path, index: Index, tmp_path: Path):
    pin = next(pin for lock in LOCKS for pin in lock.pins() if pin.name == "pytest-cov")
    found = run_pip(["python", "-m", "pip", "install", str(pin)], pip, index, tmp_path)
    assert found["coverage"] == found["pytest"] == NEWER
