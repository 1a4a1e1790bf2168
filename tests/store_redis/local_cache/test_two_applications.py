"""Two applications on one server: neither hears of the other, nor touches a key, an index or a copy of it."""

from __future__ import annotations

import pytest

from sojourn.testing import make_id, make_label
from tests.store_redis.local_cache.conftest import Cluster

LABEL = make_label()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("a", "b"), ("a", "a:session"), ("a", "a:invalidations"), ("a*", "ab"), ("[ab]", "a"), ("a", "A"), ("{a}", "a")],
)
def test_two_namespaces_share_no_key_no_index_and_no_channel(cluster: Cluster, ours: str, theirs: str) -> None:
    one, other = cluster.node(namespace=ours, node_id="one"), cluster.node(namespace=theirs, node_id="other")
    for node in (one, other):
        node.load(make_id("nothing"))
    cluster.wait_until(lambda: one.figure("lease") and other.figure("lease"))
    died: list[str] = []
    other.store.on_dead(died.append)
    for node in (one, other):
        for name in ("same", "second", "third"):
            node.create(name, index_label=LABEL)
    cluster.wait_until(lambda: one.figure("announcements") == other.figure("announcements") == 3)
    for name in ("same", "second", "third"):
        assert other.load(make_id(name)) is not None
    hits = other.figure("hits")

    one.replace("same", 2)
    one.delete("second")
    one.run(one.store.clear())
    assert one.run(one.store.count()) == 0
    assert one.run(one.store.ids_of(LABEL)) == []
    cluster.wait_until(lambda: one.figure("announcements") >= 6)

    assert set(other.run(other.store.ids_of(LABEL))) == {make_id(name) for name in ("same", "second", "third")}
    for name in ("same", "second", "third"):
        record = other.load(make_id(name))
        assert record is not None
        assert record.version == 1
    assert other.figure("hits") == hits + 3, "its copies are as they were"
    assert other.figure("announcements") == 3
    assert died == []
    other.run(other.store.clear())
    assert cluster.server.command("DBSIZE") == 0
