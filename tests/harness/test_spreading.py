"""Tests that share something costly run in one process, in a run over several."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

GROUPED = """
import os
from pathlib import Path
import pytest

@pytest.mark.xdist_group("costly")
@pytest.mark.parametrize("n", range(8))
def test_grouped(n):
    Path(f"process-{os.getpid()}").touch()
"""


@pytest.mark.slow
def test_a_group_of_tests_runs_in_one_process(tmp_path: Path) -> None:
    (tmp_path / "test_grouped.py").write_text(GROUPED)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "3", "--dist", "loadgroup", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, "."], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert len(list(tmp_path.glob("process-*"))) == 1
