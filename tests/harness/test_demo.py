from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

SHOP = Path(__file__).parents[2] / "examples" / "shop" / "src"
COMMAND = [sys.executable, "-m", "shop"]


def variables(port: str, folder: Path) -> dict[str, str]:
    path = os.pathsep.join([str(SHOP), *sys.path])
    return {**os.environ, "PORT": port, "PYTHONPATH": path, "HOME": str(folder), "SOJOURN_PRESET": "development"}


def test_the_demo_prints_an_address_that_answers(tmp_path):
    environment = variables("0", tmp_path)
    with subprocess.Popen(COMMAND, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as shop:
        try:
            assert shop.stdout is not None
            address = shop.stdout.readline().split()[2]
            with urllib.request.urlopen(address, timeout=60) as response:
                assert b"<h1" in response.read()
        finally:
            shop.terminate()


def test_the_demo_says_that_its_port_is_taken_and_how_to_choose_another(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        shop = subprocess.run(
            COMMAND, cwd=tmp_path, env=variables(port, tmp_path), capture_output=True, text=True, check=False
        )
    assert shop.returncode == 1
    assert shop.stdout == ""
    assert shop.stderr == (
        f"error: cannot listen on port {port} of 127.0.0.1: Address already in use; choose another one: PORT=8001 make demo\n"
    )


@pytest.mark.parametrize("port", ["http", "65536", "-1"])
def test_the_demo_refuses_what_is_no_port(tmp_path, port):
    shop = subprocess.run(
        COMMAND, cwd=tmp_path, env=variables(port, tmp_path), capture_output=True, text=True, check=False
    )
    assert shop.returncode == 1
    assert shop.stderr.startswith(f"error: cannot listen on port {port} of 127.0.0.1: ")


@pytest.mark.parametrize(
    ("words", "given", "seen"),
    [([], {}, "unset"), ([], {"PORT": "8001"}, "8001"), (["PORT=8001"], {}, "8001")],
    ids=["nothing", "environment", "argument"],
)
def test_make_hands_over_what_is_given_and_nothing_else(tmp_path, words, given, seen):
    shutil.copy(Path(__file__).parents[2] / "Makefile", tmp_path)
    (tmp_path / "dev").write_text('#!/bin/sh\necho "$1 ${PORT-unset}"\n')
    (tmp_path / "dev").chmod(0o755)
    environment = {"PATH": os.environ["PATH"], **given}
    command = ["make", "--no-print-directory", "demo", *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"demo {seen}\n"
