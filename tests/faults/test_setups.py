"""The set-ups of several servers: that they come up, fail over and go away."""

from __future__ import annotations

import pytest
import redis
from redis.cluster import RedisCluster

from tests.servers import ClusterSetup, SentinelSetup, engines


@pytest.mark.slow
@pytest.mark.parametrize("engine", engines())
def test_the_sentinels_elect_another_master_when_it_dies(engine: str) -> None:
    with SentinelSetup(engine=engine) as setup:
        master = setup.master
        assert master is setup.first_master
        master.command("SET", "key", "value")
        assert master.command("WAIT", 1, 2000) == 1
        master.kill()
        elected = setup.wait_for_failover(master)
        assert elected in setup.replicas
        assert elected.command("GET", "key") == b"value"
        assert elected.command("SET", "key", "other")
    assert not any(server.is_running for server in (*setup.sentinels, *setup.data_servers))


@pytest.mark.slow
def test_a_frozen_master_is_deposed_takes_writes_when_it_thaws_and_then_becomes_a_replica() -> None:
    with SentinelSetup(replicas=2) as setup:
        master = setup.master
        master.freeze()
        elected = setup.wait_for_failover(master)
        assert elected is not master
        master.thaw()
        assert master.command("SET", "lost", "write")
        setup.wait_for_replicas(30.0)
        assert elected.command("GET", "lost") is None
        with pytest.raises(redis.ReadOnlyError):
            master.command("SET", "key", "value")


@pytest.mark.slow
@pytest.mark.parametrize("engine", engines())
def test_the_cluster_serves_every_slot_and_survives_the_loss_of_a_primary(engine: str) -> None:
    with ClusterSetup(engine=engine) as setup:
        assert sorted(node.port for node in setup.primaries()) == sorted(node.port for node in setup.first_primaries)
        assert all(node.port + 10_000 < 32_768 for node in setup.nodes)
        with RedisCluster.from_url(setup.url) as client:
            for n in range(50):
                assert client.set(f"key-{n}", n)
        lost = setup.primary_of("key-0")
        assert lost in setup.first_primaries
        with lost.client(socket_timeout=30.0) as direct:
            assert direct.set("key-0", 0)
            assert direct.wait(1, 20_000) == 1, "what no replica has may be lost"
        lost.kill()
        setup.wait_for_failover(lost)
        found = setup.primary_of("key-0")
        assert found is not lost
        assert found.command("GET", "key-0") == b"0"
    assert not any(node.is_running for node in setup.nodes)
