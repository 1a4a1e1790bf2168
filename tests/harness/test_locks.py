from __future__ import annotations

import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.harness.locks import LOCKS, METADATA, ROOT, THIRD_PARTY, Lock, lacks, problems_of, unmet


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.file)
def test_a_lock_satisfies_every_requirement_on_every_python_and_system(lock: Lock):
    assert problems_of(lock) == set()


def test_every_lock_of_the_repository_is_listed():
    found = {str(path.relative_to(THIRD_PARTY)) for path in THIRD_PARTY.rglob("*lock*.txt")}
    assert found == {lock.file for lock in LOCKS}


HOSTS = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("deb", "debian"))]
FOLDERS = ("3rdparty", "benchmarks", "docs", "examples", "fuzz", "packages", "release", "tests", "verification")


def test_no_file_names_the_host_of_a_registry():
    """Where packages come from is for who installs them to say."""
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts]
    texts = {path: path.read_bytes() for path in [*files, *ROOT.glob("*.*"), ROOT / "dev"] if path.is_file()}
    assert len(texts) > 600
    assert [str(path) for path, text in texts.items() for host in HOSTS if host.encode() in text] == []


def third_parties_of(project: Path) -> list[Requirement]:
    """Return what a package requires, extras included, without packages of ours."""
    table = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    extras = table.get("optional-dependencies", {}).values()
    lines = [*table["dependencies"], *(line for extra in extras for line in extra)]
    return [wanted for line in lines if not (wanted := Requirement(line)).name.startswith("sojourn")]


def lock_named(file: str) -> Lock:
    return next(lock for lock in LOCKS if lock.file == file)


PROJECTS = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))


@pytest.mark.parametrize("file", ["python/lock.txt", "python/oldest-lock.txt"])
@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_the_locks_satisfy_what_a_package_requires(project: Path, file: str):
    """`dev` installs the packages without their dependencies, because the locks hold them."""
    lock = lock_named(file)
    where, environment = next(lock.environments())
    pins = {canonicalize_name(pin.name): pin for pin in lock.pins()}
    asked = third_parties_of(project)
    assert [problem for wanted in asked for problem in unmet(wanted, {""}, pins, where, environment)] == []


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_the_oldest_release_that_a_package_allows_is_the_one_that_is_tested(project: Path):
    pins = {
        canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
        for pin in lock_named("python/oldest-lock.txt").pins()
    }
    for wanted in third_parties_of(project):
        (oldest,) = (Version(each.version).release for each in wanted.specifier if each.operator == ">=")
        assert Version(pins[canonicalize_name(wanted.name)]).release[: len(oldest)] == oldest, wanted


def test_the_metadata_is_that_of_the_installed_distributions():
    installed = {
        f"{canonicalize_name(found.name)}=={found.version}": sorted(found.requires or ()) for found in distributions()
    }
    both = installed.keys() & METADATA.keys()
    assert {pin: sorted(METADATA[pin]["requires"]) for pin in both} == {pin: installed[pin] for pin in both}
    # Packages of ours, pip and the like aside, what is installed came from the locks.
    assert len(both) > 50


class TestWhatIsMissed:
    """The check of the locks finds what it is there for."""

    def lock_of(self, text: str, tmp_path, *wanted: str) -> Lock:
        (tmp_path / "lock.txt").write_text(text)
        (tmp_path / "wanted.in").write_text("".join(f"{line}\n" for line in wanted))
        folder = str(tmp_path)
        return Lock(f"{folder}/lock.txt", (f"{folder}/wanted.in",), ("3.11.3",), ("Linux x86_64",))

    def problems(self, lock: Lock) -> list[str]:
        where, environment = next(lock.environments())
        return [problem.removeprefix(f"{where}: ") for problem in lacks(lock, where, environment)]

    @pytest.fixture
    def metadata(self, monkeypatch):
        found = {
            "a==1": {"requires_python": ">=3.11", "requires": ["b[fast]>=2", "c; extra == 'more'"]},
            "b==2": {"requires_python": "", "requires": ["d; extra == 'fast'"]},
            "c==1": {"requires_python": ">=3.12", "requires": []},
            "d==1": {"requires_python": "", "requires": []},
        }
        monkeypatch.setattr("tests.harness.locks.METADATA", found)

    def test_a_complete_lock_has_no_problems(self, metadata, tmp_path):
        lock = self.lock_of("a==1 \\\n    --hash=sha256:0\nb[fast]==2\nd==1\n", tmp_path, "# why", "a  # because")
        assert self.problems(lock) == []

    def test_an_extra_was_removed(self, metadata, tmp_path):
        lock = self.lock_of("a==1\nb==2\nd==1\n", tmp_path, "a")
        assert self.problems(lock) == ["a requires b[fast]>=2, but the lock pins b without the extra fast"]

    def test_what_an_extra_requires_is_absent(self, metadata, tmp_path):
        lock = self.lock_of("a==1\nb[fast]==2\n", tmp_path, "a")
        assert self.problems(lock) == ['b requires d; extra == "fast", which the lock does not hold']

    def test_a_requirement_was_added_without_locking(self, metadata, tmp_path):
        lock = self.lock_of("d==1\n", tmp_path, "d", "e>=5")
        assert self.problems(lock) == [f"{lock.inputs[0]} requires e>=5, which the lock does not hold"]

    def test_a_requirement_was_raised_without_locking(self, metadata, tmp_path):
        lock = self.lock_of("d==1\n", tmp_path, "d>1")
        assert self.problems(lock) == [f"{lock.inputs[0]} requires d>1, but the lock pins 1"]

    def test_a_pin_is_not_made_for_a_python(self, metadata, tmp_path):
        assert self.problems(self.lock_of("c==1\n", tmp_path)) == ["c==1 wants Python >=3.12"]

    def test_a_pin_is_unknown(self, metadata, tmp_path):
        assert self.problems(self.lock_of("e==1\n", tmp_path)) == ["metadata.json does not know e==1; run ./dev lock"]
