"""Programs of npm that tests run on Node, installed once into the folder for temporary files."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest


def installed(*packages: str) -> Path:
    """Return the folder node_modules with *packages*, ``name@version`` each; a machine without Node fails the tests."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.fail(f"node and npm are missing; install nodejs and npm: {', '.join(packages)} are run by tests")
    name = hashlib.sha256(" ".join(packages).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir(), f"sojourn-tests-{os.getuid()}", f"npm-{name}")
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        # The processes of a test run want the same at the same time: one of them installs it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            _install(packages, folder)
    return folder / "node_modules"


def _install(packages: tuple[str, ...], folder: Path) -> None:
    # Install beside and move: whoever is ended meanwhile leaves nothing half-done there.
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as fresh:
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=optional"]
        done = subprocess.run(
            [*command, "--prefix", fresh, *packages], check=False, capture_output=True, text=True, timeout=180
        )
        if done.returncode:
            pytest.fail(f"npm could not install {', '.join(packages)}:\n{done.stderr}")
        Path(fresh).rename(folder)
