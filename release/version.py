"""Write the version and the addresses of `[tool.release]` in pyproject.toml into every package.

Each package states them itself, so that it can be read and built without the rest of the repository.
"""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).parents[1]
# Everything that requires one of our distributions, a page that shows such a file included.
REQUIRING = (
    "packages/*/pyproject.toml",
    "examples/*/pyproject.toml",
    "examples/plugin-template/*/pyproject.toml.jinja",
    "docs/write-a-plugin.md",
)


def rewritten(root: Path, version: str, urls: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    """Yield each file under *root* that names the version or an address, with the text it is to have."""
    table = "".join(f'{name} = "{url}"\n' for name, url in urls.items() if url)
    for path in sorted(path for pattern in REQUIRING for path in root.glob(pattern)):
        text = with_requirements(path.read_text(encoding="utf-8"), version)
        if path.match("packages/*/pyproject.toml"):
            text = re.sub(r'^version = ".*"$', f'version = "{version}"', text, flags=re.MULTILINE)
            text = re.sub(r"^\[project\.urls\]\n(?:.+\n)*\n", "", text, flags=re.MULTILINE)
            if table:
                # The first table of a tool follows the last one of the project.
                text = text.replace("\n[tool.", f"\n[project.urls]\n{table}\n[tool.", 1)
        yield path, text
    for path in sorted(root.glob("packages/*/BUILD")):
        text = path.read_text(encoding="utf-8")
        yield path, re.sub(r'version=".*?"', f'version="{version}"', text)
    for path in sorted(root.glob("packages/core/src/sojourn/__init__.py")):
        text = path.read_text(encoding="utf-8")
        yield path, re.sub(r'^__version__ = ".*"$', f'__version__ = "{version}"', text, flags=re.MULTILINE)


def with_requirements(text: str, version: str) -> str:
    """Return *text* with each `"sojourn...>=A,<B"` bound to the minor version of *version*."""
    parsed = Version(version)
    # A pre-release comes before its minor version: `>=0.2` would refuse 0.2.0rc1.
    low = version if parsed.is_prerelease else f"{parsed.major}.{parsed.minor}"
    high = f"{parsed.major}.{parsed.minor + 1}"
    return re.sub(r'"(sojourn[\w\-\[\],]*)>=[^,"]+,<[^,"]+"', rf'"\1>={low},<{high}"', text)


def write(root: Path, version: str | None) -> str:
    """Write *version*, or the one that pyproject.toml has, into every package; return it."""
    configuration = root / "pyproject.toml"
    text = configuration.read_text(encoding="utf-8")
    release = tomllib.loads(text)["tool"]["release"]
    if version is not None:
        pattern = r'^(\[tool\.release\]\n(?:.*\n)*?version = )".*?"'
        configuration.write_text(re.sub(pattern, rf'\1"{version}"', text, flags=re.MULTILINE), encoding="utf-8")
        release["version"] = version
    for path, content in rewritten(root, release["version"], release["urls"]):
        path.write_text(content, encoding="utf-8")
    for project in root.glob("packages/*/pyproject.toml"):
        shutil.copyfile(root / "LICENSE", project.with_name("LICENSE"))
    return str(release["version"])


def main(arguments: list[str]) -> str | None:
    """Return what is wrong with *arguments*, or write the version and return None."""
    if len(arguments) > 1:
        return "usage: ./dev version [X.Y.Z]"
    try:
        version = str(Version(arguments[0])) if arguments else None
    except InvalidVersion as error:
        return f"{error}; use X.Y.Z, or X.Y.ZrcN before a release"
    print(write(ROOT, version))
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
