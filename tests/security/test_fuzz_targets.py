"""The fuzz targets, driven a little without atheris; `./dev fuzz` runs them for long."""

from __future__ import annotations

import hmac
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.engine import Recorder, Report, run_random
from fuzz.target import ForgeryError, Target, damage
from fuzz.targets import TARGETS

RUNS = 400


@pytest.mark.parametrize("name", TARGETS)
def test_no_target_crashes_hangs_or_takes_a_forgery(name: str) -> None:
    target = TARGETS[name]
    recorder = Recorder(target.make(), Report(name, "random"), None)
    run_random(target, recorder, RUNS, seed=20)
    assert recorder.report.findings == []
    assert recorder.report.executions == RUNS


@pytest.mark.parametrize("name", TARGETS)
def test_no_target_minds_any_bytes(name: str) -> None:
    check = TARGETS[name].make()

    @given(st.binary(max_size=200))
    def any_bytes(data: bytes) -> None:
        check(data)

    any_bytes()


def test_the_score_counts_crashes_and_forgeries_and_keeps_their_inputs() -> None:
    def check(data: bytes) -> None:
        if data == b"forged":
            raise ForgeryError("taken")
        if data == b"odd":
            raise ValueError("no")

    recorder = Recorder(check, Report("x", "random"), None)
    for data in (b"fine", b"odd", b"forged"):
        recorder(data)
    report = recorder.report
    assert (report.executions, report.crashes, report.forgeries, report.hangs) == (3, 1, 1, 0)
    assert [(one["kind"], one["input"]) for one in report.findings] == [
        ("crash", b"odd".hex()),
        ("forgery", b"forged".hex()),
    ]


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_damage_follows_any_script(genuine: bytes, script: bytes) -> None:
    assert isinstance(damage(genuine, script), bytes)
    assert damage(genuine, b"") == genuine


def test_a_lax_check_is_caught_by_the_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hmac, "compare_digest", lambda left, right: True)
    target: Target = TARGETS["envelope-cbc"]
    recorder = Recorder(target.make(), Report("envelope-cbc", "random"), None)
    run_random(target, recorder, RUNS, seed=20)
    assert recorder.report.forgeries > 0


@pytest.mark.slow
def test_the_command_prints_a_score_and_writes_it(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "fuzz",
        "--runs",
        "50",
        "--engine",
        "random",
        "--json",
        str(tmp_path / "score.json"),
    ]
    done = subprocess.run([*command, "token", "path"], check=True, capture_output=True, text=True)
    assert "total                 100        0      0          0" in done.stdout
    assert [report["target"] for report in json.loads((tmp_path / "score.json").read_text())] == ["token", "path"]
