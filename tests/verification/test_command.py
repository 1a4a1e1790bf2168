"""`./dev prove` finds every proof by its name, and hands it its arguments."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

from verification.__main__ import WHAT, main

GUIDE = Path(__file__).parents[2] / "CONTRIBUTING.md"


def test_what_can_be_proved_is_named_as_in_the_guide_for_contributors() -> None:
    (line,) = (line for line in GUIDE.read_text().splitlines() if "./dev prove" in line)
    assert re.findall(r"`(?:\./dev prove )?(\w+)`", line) == list(WHAT)


@pytest.mark.parametrize("what", WHAT)
def test_a_proof_is_run_with_its_own_arguments(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def proof() -> int:
        seen.append(sys.argv[1:])
        return 7

    monkeypatch.setattr(import_module(f"verification.{what}"), "main", proof)
    monkeypatch.setattr(sys, "argv", ["verification", what, "--seed", "3"])
    assert main() == 7
    assert seen == [["--seed", "3"]]


@pytest.mark.parametrize("what", WHAT)
def test_every_proof_takes_a_seed(
    what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["verification", what, "--help"])
    with pytest.raises(SystemExit) as stop:
        main()
    output = capsys.readouterr().out
    assert stop.value.code == 0
    assert f"usage: ./dev prove {what}" in output
    assert "--seed" in output


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["prove_3"], 2), (["--help"], 0), (["-h"], 0)])
def test_what_cannot_be_proved_is_misuse_and_the_choices_are_told(
    arguments: list[str], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["verification", *arguments])
    assert main() == code
    output = capsys.readouterr()
    assert all(what in (output.err if code else output.out) for what in WHAT)
