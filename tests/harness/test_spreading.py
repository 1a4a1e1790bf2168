"""Tests that share something costly run in one process, in a run over several."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

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


ENDINGS = """
import pytest

@pytest.fixture
def refuses():
    raise RuntimeError("at the beginning")

@pytest.fixture
def breaks():
    yield
    raise RuntimeError("at the end")

def test_passes(): pass
def test_fails(): raise AssertionError
def test_is_refused(refuses): pass
def test_breaks(breaks): pass
def test_is_skipped(): pytest.skip("nothing to do")
"""


@pytest.mark.slow
def test_nothing_that_goes_wrong_with_a_test_is_left_out_of_the_short_reports(tmp_path: Path) -> None:
    (tmp_path / "test_endings.py").write_text(ENDINGS)
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_configure\n")
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "xdist", "-n", "2", "."]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": paths}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    # The test that breaks at its end has passed before.
    assert "1 failed, 2 passed, 1 skipped, 2 errors" in done.stdout
    for what in ("test_fails", "at the beginning", "at the end", "nothing to do"):
        assert what in done.stdout
