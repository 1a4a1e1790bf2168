from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import msgspec
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.servers import engines, find_program

if TYPE_CHECKING:  # names what is imported below, for the build
    from shop import nodes  # noqa: F401

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


@pytest.mark.server
@pytest.mark.slow
def test_two_nodes_behind_one_address_say_who_answered_and_how_old_its_copy_was(tmp_path):
    servers = str(Path(find_program(engines()[0])).parent)
    environment = {
        **variables("0", tmp_path),
        "NODES": "2",
        "SOJOURN_STORE": "clustered-redis",
        "PATH": os.pathsep.join([servers, os.environ["PATH"]]),
    }
    with subprocess.Popen(COMMAND, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as shop:
        try:
            assert shop.stdout is not None
            redis = int(shop.stdout.readline().rpartition(":")[2])
            address = shop.stdout.readline().split()[2].rstrip("/")
            visit(address)
        finally:
            shop.send_signal(signal.SIGINT)
            printed, _ = shop.communicate(timeout=60)
    assert shop.returncode == 0
    assert {"node-1 has ended", "node-2 has ended"} <= set(printed.splitlines())
    assert "Traceback" not in printed
    for port in (redis, int(address.rpartition(":")[2])):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def visit(address):
    """Sign in, and go on until either node has served the session from a copy of its own; then watch it end."""
    with httpx.Client(base_url=address, headers={"origin": address, "accept": "text/html"}) as browser:
        browser.post("/signin", data={"user": "basho", "password": "narrow-road"})
        copies: dict[str, float] = {}
        answered = []
        while len(copies) < 2:
            answer = browser.get("/inside")
            assert "Signed in as" in answer.text
            answered.append(answer.headers["x-node"])
            if found := re.search(r'<span class="chip node">(\S+): own copy, ([\d.]+) s old</span>', answer.text):
                assert found[1] == answered[-1]
                copies[found[1]] = float(found[2])
        assert {*answered[:2]} == {"node-1", "node-2"}
        cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        live = f"{address.replace('http', 'ws')}/live/socket"
        with connect(live, origin=address, additional_headers={"cookie": cookies}) as socket_:
            socket_.send("look")
            seen = msgspec.json.decode(socket_.recv(30))
            assert seen["outcome"] == "loaded"
            assert seen["node"] in copies
            csrf = re.search(r'name="csrf" value="([^"]+)"', browser.get("/inside").text)
            assert csrf is not None
            browser.post("/signout", data={"csrf": csrf[1]})
            with pytest.raises(ConnectionClosed) as ended:
                socket_.recv(30)
            assert ended.value.rcvd is not None
            assert ended.value.rcvd.code == 4401


@pytest.mark.parametrize(
    ("nodes", "store", "message"),
    [
        ("three", "clustered-redis", "NODES=three is no number of nodes; try NODES=3"),
        ("3", "memory", "nodes share no store in memory; SOJOURN_STORE=clustered-redis make demo NODES=3"),
        ("3", "clustered-redis", "the store clustered-redis needs a redis-server in the PATH; install one, or"),
    ],
    ids=["no number", "memory", "no redis-server"],
)
def test_what_several_nodes_need_is_said(tmp_path, monkeypatch, nodes, store, message):
    monkeypatch.syspath_prepend(str(SHOP))
    monkeypatch.chdir(tmp_path)
    for name, value in {"SOJOURN_PRESET": "development", "SOJOURN_STORE": store, "PATH": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    several = import_module("shop.nodes")
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(several.NodesError, match=re.escape(message)),
    ):
        several.serve(listener, nodes)


@pytest.mark.parametrize("port", ["http", "65536", "-1"])
def test_the_demo_refuses_what_is_no_port(tmp_path, port):
    shop = subprocess.run(
        COMMAND, cwd=tmp_path, env=variables(port, tmp_path), capture_output=True, text=True, check=False
    )
    assert shop.returncode == 1
    assert shop.stderr.startswith(f"error: cannot listen on port {port} of 127.0.0.1: ")


@pytest.mark.parametrize(
    ("words", "given", "seen"),
    [
        ([], {}, "unset unset"),
        ([], {"PORT": "8001"}, "8001 unset"),
        (["PORT=8001"], {}, "8001 unset"),
        (["NODES=3"], {}, "unset 3"),
    ],
    ids=["nothing", "environment", "argument", "nodes"],
)
def test_make_hands_over_what_is_given_and_nothing_else(tmp_path, words, given, seen):
    shutil.copy(Path(__file__).parents[2] / "Makefile", tmp_path)
    (tmp_path / "dev").write_text('#!/bin/sh\necho "$1 ${PORT-unset} ${NODES-unset}"\n')
    (tmp_path / "dev").chmod(0o755)
    environment = {"PATH": os.environ["PATH"], **given}
    command = ["make", "--no-print-directory", "demo", *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"demo {seen}\n"
