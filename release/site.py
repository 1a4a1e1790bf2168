"""What the site has beside the pages in docs/: a hook of mkdocs, which `make docs` runs.

READMEs and the files that pages link to become pages of the site, so that it is whole without a repository beside it.
Links stay as they are for readers of the repository, and are turned here.
"""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
# Where the pages of the repository that do not stand in docs/ go.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "project/changelog.md",
    "CODE_OF_CONDUCT.md": "project/code-of-conduct.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security-policy.md",
    "examples/shop/README.md": "project/shop.md",
}
# Modules that docs/api.md does not name, and whose public names are shown as those of the others are.
BESIDE = ["sojourn.adapters", "sojourn.metrics"]
# What a search shows first: the pages that say what a name means and what to do, before those that mention it.
FIRST = ("reference.md", "settings.md", "symptoms.md", "coming-from.md", "clustering.md")
_CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_MODULE = re.compile(r"^## `(sojourn[\w.]*)`$", re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()[^)\s]+(?=\))|(?<= src=\")[^\"]+|(?<= href=\")[^\"]+")
_PICTURE = re.compile(
    r"<picture>\s*<source media=\"\(prefers-color-scheme: dark\)\" srcset=\"(?P<dark>[^\"]+)\">"
    r"\s*<img (?P<about>[^>]*?) src=\"(?P<light>[^\"]+)\">\s*</picture>"
)
_LANGUAGES = {".py": "python", ".toml": "toml", ".yml": "yaml", ".lua": "lua", ".json": "json", ".md": "markdown"}

# The page of the site for each file of the repository, by its path from the root.
_places: dict[str, str] = {}


def on_files(files: Any, *, config: Any) -> Any:
    """Add what does not stand in docs/: READMEs, the pages of the API, and files that any page links to."""
    _places.clear()
    _places.update({f"docs/{file.src_uri}": file.src_uri for file in files})
    _places.update(PAGES)
    for readme in sorted(ROOT.glob("packages/*/README.md")):
        _places[str(readme.relative_to(ROOT))] = f"packages/{readme.parent.name}.md"
    for source, place in list(_places.items()):
        if not source.startswith("docs/"):
            files.append(File.generated(config, place, content=(ROOT / source).read_text(encoding="utf-8")))
    for source in sorted({target for page in list(_places) if page.endswith(".md") for target in _targets(page)}):
        if source not in _places and (ROOT / source).is_file():
            _places[source] = f"source/{source}.md"
            files.append(File.generated(config, _places[source], content=_shown(source)))
    packages = sorted(path.parent.name for path in ROOT.glob("packages/*/src/sojourn_*/__init__.py"))
    named = _MODULE.findall((ROOT / "docs" / "api.md").read_text(encoding="utf-8"))
    # What stands behind sojourn.testing is a package.
    modules = [*(name for name in named if name != "sojourn.testing"), *BESIDE, *packages]
    for module in modules:
        files.append(File.generated(config, f"reference/{module}.md", content=_reference(module, modules)))
    _complete(config.nav, "reference/", [f"reference/{module}.md" for module in modules])
    _complete(config.nav, "packages/", sorted(place for place in _places.values() if place.startswith("packages/")))
    decisions = sorted(place for place in _places.values() if place.startswith("decisions/0"))
    _complete(config.nav, "decisions/", ["decisions/README.md", *decisions])
    return files


def on_post_build(*, config: Any) -> None:
    """Take out the page for what is not found: only a server shows it, and from the file system its links lead nowhere."""
    (Path(config.site_dir) / "404.html").unlink()


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Turn links of the repository into those of the site."""
    place = page.file.src_uri
    if place in FIRST:
        page.meta["search"] = {"boost": 4}
    source = next((source for source, known in _places.items() if known == place), None)
    if source is None or place.startswith("source/"):
        return markdown
    return _turned(_PICTURE.sub(_for_both_schemes, markdown), source, place)


def _for_both_schemes(match: re.Match[str]) -> str:
    """Return both pictures, of which the theme shows the one for its own scheme; the browser knows that of the system."""
    about = dict(re.findall(r"(\w+)=\"([^\"]*)\"", match["about"]))
    alt = about.pop("alt")
    others = "".join(f' {name}="{value}"' for name, value in about.items())
    return "".join(f"![{alt}]({match[scheme]}#only-{scheme}){{ loading=lazy{others} }}" for scheme in ("light", "dark"))


def _turned(markdown: str, source: str, place: str) -> str:
    """Return the text of the page *source* with the links that it needs at *place*."""

    def turn(match: re.Match[str]) -> str:
        path, mark, anchor = match[0].partition("#")
        if not path or "//" in path or path.startswith("mailto:"):
            return match[0]
        found = _places.get(_resolved(path, source))
        # What leads nowhere is left for mkdocs to warn of.
        return posixpath.relpath(found, posixpath.dirname(place)) + mark + anchor if found else match[0]

    parts: list[str] = []
    end = 0
    for code in _CODE.finditer(markdown):
        # A link may have code for its text, so the end of a part is read together with what follows the code.
        parts += [markdown[end : code.start()], code[0]]
        end = code.end()
    parts.append(markdown[end:])
    return "".join(part if part.startswith("`") else _LINK.sub(turn, part) for part in parts)


def _targets(source: str) -> list[str]:
    """Return the files that the page *source* links to, by their paths from the root."""
    text = _CODE.sub("", (ROOT / source).read_text(encoding="utf-8"))
    return [
        _resolved(path, source) for link in _LINK.findall(text) if (path := link.partition("#")[0]) and "//" not in path
    ]


def _resolved(path: str, source: str) -> str:
    """Return what *path* on the page *source* leads to; of a folder its README."""
    found = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    return f"{found}/README.md" if (ROOT / found).is_dir() else found


def _shown(source: str) -> str:
    """Return a page that shows a file."""
    language = _LANGUAGES.get(Path(source).suffix, "text")
    text = (ROOT / source).read_text(encoding="utf-8")
    return f"---\nsearch:\n  exclude: true\n---\n\n# {source}\n\n``````{language}\n{text}``````\n"


def _reference(module: str, modules: Collection[str]) -> str:
    """Return the page of the public names of *module*, which mkdocstrings fills; each name is shown on one page."""
    code = ast.parse(_file_of(module).read_text(encoding="utf-8"))
    elsewhere = {
        alias.name: whole if (whole := f"{node.module}.{alias.name}") in modules else node.module
        for node in ast.walk(code)
        if isinstance(node, ast.ImportFrom) and node.module in modules
        for alias in node.names
    }
    names = _public_names(code)
    links = [f"* `{name}`: [{elsewhere[name]}]({elsewhere[name]}.md)\n" for name in names if name in elsewhere]
    shown = [f"\n::: {module}.{name}\n" for name in names if name not in elsewhere]
    return "".join([f"# {module}\n\n", *links, *shown])


def _file_of(module: str) -> Path:
    """Return the source of a module of ours."""
    paths = [source.joinpath(*module.split(".")) for source in ROOT.glob("packages/*/src")]
    files = [file for path in paths for file in (path / "__init__.py", path.with_suffix(".py"))]
    return next(file for file in files if file.exists())


def _public_names(code: ast.Module) -> list[str]:
    """Return `__all__`, or without one what the module defines itself."""
    defined: list[str] = []
    for node in code.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                return [str(name) for name in ast.literal_eval(value) if not name.startswith("_")]
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                defined.append(name)
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                defined.append(name)
            case _:
                pass
    return [name for name in defined if not name.startswith("_")]


def _complete(nav: Any, folder: str, pages: list[str]) -> None:
    """Put *pages* in the place of *folder* in the navigation."""
    for section in nav:
        for entry in next(iter(section.values())) if isinstance(section, dict) else []:
            if isinstance(entry, dict):
                for title, place in entry.items():
                    if place == folder:
                        entry[title] = pages
