"""Run Pants from the package index alone, for machines without access to its releases.

Anybody with the ordinary `pants` launcher needs none of this: `pants lint check test package ::` does the same.
"""

import glob
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCKS = Path(__file__).resolve().parent
CACHE = ROOT / ".cache" / "pants"
GOALS = ("tailor", "--check", "lint", "check", "test", "package", "::")


def find_interpreters() -> dict[str, str]:
    """Return the CPythons of this machine by version, from the PATH and from pyenv."""
    pyenv = os.environ.get("PYENV_ROOT") or str(Path("~/.pyenv").expanduser())
    folders = [*os.environ["PATH"].split(os.pathsep), *sorted(glob.glob(f"{pyenv}/versions/*/bin"))]
    found: dict[str, str] = {}
    for version in ("3.9", "3.11", "3.12", "3.13"):
        for folder in folders:
            program = os.path.join(folder, f"python{version}")
            if os.access(program, os.X_OK) and version not in found:
                answer = subprocess.run(
                    [program, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if answer.stdout.strip() == version:
                    found[version] = os.path.realpath(program)
    return found


def make_environment(name: str, python: str, lock: Path) -> Path:
    """Make or renew a virtual environment from a hashed lock."""
    folder = CACHE / name
    stamp = folder / "stamp"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest() + python
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([python, "-m", "venv", folder], check=True)
        pip(folder, "install", "--require-hashes", "-r", str(lock))
        stamp.write_text(wanted)
    return folder


def pip(folder: Path, *arguments: str) -> str:
    """Run the pip of an environment with the configuration of this machine."""
    command = [str(folder / "bin" / "python"), "-m", "pip", *arguments]
    if arguments[0] != "config":
        command += ["--quiet", "--disable-pip-version-check"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def build_pex(python: str) -> None:
    """Build the program `pex` so that each machine gets the same bytes; pants.offline.toml holds their hash."""
    lock = LOCKS / "pex-lock.txt"
    version = re.findall(r"^pex==(\S+)", lock.read_text(), re.MULTILINE)[0]
    target = CACHE / f"pex-v{version}.pex"
    if target.exists():
        return
    folder = make_environment("pex", python, lock)
    wheels = CACHE / "wheels"
    pip(folder, "download", "--require-hashes", "--dest", str(wheels), "-r", str(lock))
    command = [str(folder / "bin" / "python"), "-m", "pex", f"pex=={version}", "--script", "pex"]
    command += ["--no-pypi", "--find-links", str(wheels), "--no-compress", "--no-use-system-time"]
    command += ["--python-shebang", "/usr/bin/env python3", "--output-file", str(target)]
    subprocess.run(command, env={**os.environ, "PEX_ROOT": str(CACHE / "pex-root")}, check=True)
    content = target.read_bytes()
    print(f"built {target.name}: {hashlib.sha256(content).hexdigest()}|{len(content)}", file=sys.stderr)


def index_settings(folder: Path) -> dict[str, str]:
    """Return where packages come from, as pip on this machine is configured, in the words of Pants."""
    values: dict[str, str] = {}
    for line in pip(folder, "config", "list").splitlines():
        name, _, value = line.partition("=")
        values[name.rpartition(".")[2].replace("_", "-")] = value.strip().strip("'\"")
    extra = json.dumps([index for index in values.get("extra-index-url", "").split() if usable(index)])
    main_index = values.get("index-url")
    result = {"PANTS_PYTHON_REPOS_INDEXES": json.dumps([main_index, *json.loads(extra)]) if main_index else f"+{extra}"}
    if links := [link for link in values.get("find-links", "").split() if usable(link)]:
        result["PANTS_PYTHON_REPOS_FIND_LINKS"] = json.dumps(links)
    if certificates := values.get("cert") or os.environ.get("SSL_CERT_FILE"):
        result["PANTS_CA_CERTS_PATH"] = certificates
    return result


def usable(place: str) -> bool:
    """Say whether a place can be asked; pip forgives missing folders, others do not."""
    path = place.removeprefix("file://")
    return place.startswith("http") or os.path.isdir(path)


def main() -> int:
    """Prepare Pants and run its goals."""
    found = find_interpreters()
    if "3.9" not in found:
        print("error: Pants 2.17 runs on CPython 3.9, and none was found on the PATH or in pyenv", file=sys.stderr)
        return 1
    ours = [program for version, program in found.items() if version != "3.9"]
    if not ours:
        print("error: no CPython 3.11, 3.12 or 3.13 was found on the PATH or in pyenv", file=sys.stderr)
        return 1
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = make_environment("venv", found["3.9"], LOCKS / "lock.txt")
    build_pex(found["3.9"])
    search = [os.path.dirname(program) for program in ours]
    environment = {
        **os.environ,
        **index_settings(folder),
        "PANTS_CONFIG_FILES": "pants.offline.toml",
        "PANTS_PYTHON_BOOTSTRAP_SEARCH_PATH": json.dumps(search),
    }
    command = [str(folder / "bin" / "pants"), *(sys.argv[1:] or GOALS)]
    print(shlex.join(command), file=sys.stderr)
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
