"""What the locks hold, read without an index: pins, what they require, and where they have to hold."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).parents[2]
THIRD_PARTY = ROOT / "3rdparty"
TABLE = tomllib.loads((THIRD_PARTY / "locks.toml").read_text())
METADATA: dict[str, dict[str, Any]] = json.loads((THIRD_PARTY / "metadata.json").read_text())


@dataclass(frozen=True)
class Lock:
    """One lock file, with what it is made from and where it is installed."""

    file: str
    inputs: tuple[str, ...]
    pythons: tuple[str, ...]
    systems: tuple[str, ...]
    beside: str = ""

    def pins(self) -> list[Requirement]:
        """Return what is pinned, of the lock beside it too, in the order of the files."""
        files = [self.beside, self.file] if self.beside else [self.file]
        return [pin for file in files for pin in read_requirements(THIRD_PARTY / file)]

    def roots(self) -> list[Requirement]:
        """Return what the inputs ask for."""
        return [root for file in self.inputs for root in read_requirements(THIRD_PARTY / file)]

    def environments(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Return the environments in which the lock has to hold, by a name for messages."""
        for python in self.pythons:
            for system in self.systems:
                versions = {
                    "implementation_version": python,
                    "implementation_name": "cpython",
                    "platform_python_implementation": "CPython",
                    "python_full_version": python,
                    "python_version": python.rpartition(".")[0],
                }
                yield f"{python} on {system}", {**TABLE["systems"][system], **versions}


LOCKS = [
    Lock(lock["file"], tuple(lock["inputs"]), tuple(lock["pythons"]), tuple(lock["systems"]), lock.get("beside", ""))
    for lock in TABLE["lock"]
]


parse = cache(Requirement)


@cache
def read_requirements(path: Path) -> list[Requirement]:
    """Return the requirements of a lock or of a *.in file, without options and hashes."""
    text = re.sub(r"\s#.*|^#.*", "", path.read_text().replace("\\\n", " "), flags=re.MULTILINE)
    lines = (line.partition(" --hash=")[0].strip() for line in text.splitlines())
    return [parse(line) for line in lines if line and not line.startswith("-")]


def problems_of(lock: Lock) -> set[str]:
    """Return everything that the lock lacks, in words."""
    return {problem for where, environment in lock.environments() for problem in lacks(lock, where, environment)}


def lacks(lock: Lock, where: str, environment: Mapping[str, str]) -> Iterator[str]:
    """Return what the lock lacks in one environment: unmet requirements, unknown or doubled pins, wrong Pythons."""
    pins: dict[NormalizedName, Requirement] = {}
    for pin in lock.pins():
        if pin.marker is None or pin.marker.evaluate(environment):
            name = canonicalize_name(pin.name)
            # The same distribution may stand in both locks of an environment, if the versions agree.
            if name in pins and pins[name].specifier != pin.specifier:
                yield f"{where}: {name} is pinned twice: {pins[name].specifier} and {pin.specifier}"
            if name not in pins or pins[name].extras <= pin.extras:
                pins[name] = pin
    for root in lock.roots():
        yield from unmet(root, {""}, pins, f"{where}: {', '.join(lock.inputs)}", environment)
    for name, pin in pins.items():
        known = METADATA.get(f"{name}{pin.specifier}")
        if known is None:
            yield f"{where}: metadata.json does not know {name}{pin.specifier}; run ./dev lock"
            continue
        if environment["python_full_version"] not in SpecifierSet(known["requires_python"]):
            yield f"{where}: {name}{pin.specifier} wants Python {known['requires_python']}"
        for line in known["requires"]:
            yield from unmet(parse(line), pin.extras | {""}, pins, f"{where}: {name}", environment)


def unmet(
    wanted: Requirement,
    extras: Iterable[str],
    pins: Mapping[NormalizedName, Requirement],
    who: str,
    environment: Mapping[str, str],
) -> Iterator[str]:
    """Return what of one requirement, asked for by *who* with *extras*, the pins do not satisfy."""
    if wanted.marker and not any(wanted.marker.evaluate({**environment, "extra": extra}) for extra in extras):
        return
    pin = pins.get(canonicalize_name(wanted.name))
    if pin is None:
        yield f"{who} requires {wanted}, which the lock does not hold"
        return
    (version,) = (each.version for each in pin.specifier)
    if not wanted.specifier.contains(version, prereleases=True):
        yield f"{who} requires {wanted}, but the lock pins {version}"
    lacking = {canonicalize_name(extra) for extra in wanted.extras} - {canonicalize_name(e) for e in pin.extras}
    if lacking:
        yield f"{who} requires {wanted}, but the lock pins {pin.name} without the extra {', '.join(sorted(lacking))}"
