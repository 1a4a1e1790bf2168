"""Tests that share something costly run in one process, in a run over several."""

from __future__ import annotations

import os
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
    command = [sys.executable, "-m", "pytest", "-q", "-p", "xdist", "-n", "3", "--dist", "loadgroup", "."]
    # Of the plugins that are installed, this one alone: each process would import them.
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert len(list(tmp_path.glob("process-*"))) == 1
