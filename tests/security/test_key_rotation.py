"""Secrets change on running nodes that share a store: nobody is lost, and whoever is to go goes (SECURITY R25, R26)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from sojourn import new_secret
from sojourn.binding import Client
from sojourn.crypto import token_id
from sojourn.crypto.keys import KeyRing
from sojourn.errors import ConfigurationError
from sojourn.manager import run_blocking
from sojourn.stores import Record, Replaced
from tests.security.houses import House, begin, outcome

A, B = new_secret(), new_secret()

STEPS: list[dict[str, Any]] = [
    {"secrets": [A]},
    {"secrets": [A, B]},
    {"secrets": [B, A]},
    {"secrets": [B], "retired_secrets": [A]},
    {"secrets": [B]},
]
RESEAL_AT = 3


def test_r26_no_session_is_lost_while_the_secrets_are_rotated_under_two_nodes(server_house: House) -> None:
    alive: list[str] = []
    for number, step in enumerate(STEPS):
        earlier = server_house.node(**(STEPS[number - 1] if number else step)).blocking
        later = server_house.node(**step).blocking
        if number == len(STEPS) - 1:
            earlier.reseal()  # once more, with every node past [B, A], before A leaves
        for node in (earlier, later):  # one step apart, in both directions
            for token in alive:
                assert outcome(node, token) == "loaded", (number, token)
            alive.append(begin(node, principal="42", note=f"step {number}"))
            alive.append(begin(node, note=f"anonymous at step {number}"))
            assert {outcome(one, token) for one in (earlier, later) for token in alive[-2:]} == {"loaded"}
            session = node.open(alive[0])
            session.data.count += 1
            node.commit(session)
        if number == RESEAL_AT:
            later.reseal()
    alone = server_house.node(secrets=[B]).blocking
    assert [outcome(alone, token) for token in alive] == ["loaded"] * len(alive)
    assert alone.open(alive[0]).data.count == 2 * len(STEPS)
    assert len(alone.list("42")) == len(alive) / 2


@pytest.mark.parametrize("number", range(len(STEPS)))
@pytest.mark.parametrize("by", ["earlier", "later"])
def test_r14_revoke_all_is_complete_at_every_step_of_a_rotation(server_house: House, number: int, by: str) -> None:
    nodes = {
        "earlier": server_house.node(**STEPS[max(0, number - 1)]).blocking,
        "later": server_house.node(**STEPS[number]).blocking,
    }
    if number == len(STEPS) - 1:
        nodes["earlier"].reseal()
    tokens = [begin(node, principal="42") for node in nodes.values()]
    other = begin(nodes["later"], principal="43")
    if number == RESEAL_AT:
        nodes["later"].reseal()
    assert nodes[by].revoke_all("42") == len(tokens)
    assert {outcome(node, token) for node in nodes.values() for token in tokens} == {"unknown"}
    assert outcome(nodes["later"], other) == "loaded"


def test_r25_revoke_all_finds_a_session_that_is_indexed_anew_meanwhile(server_house: House) -> None:
    """The index of the first key is read, the session moves into it, the other index is read: it must not slip through."""
    old, new = server_house.node(secrets=[A]), server_house.node(secrets=[B, A])
    token = begin(old.blocking, principal="42")
    mover = server_house.node(secrets=[B, A]).blocking
    store = new.engine.store.server
    ids_of = store.ids_of  # type: ignore[attr-defined]
    asked: list[str] = []

    async def ids_and_then_move(label: str) -> Sequence[str]:
        ids: Sequence[str] = await ids_of(label)
        asked.append(label)
        if len(asked) == 1:
            mover.reseal()
        return ids

    store.ids_of = ids_and_then_move  # type: ignore[attr-defined]
    try:
        assert new.blocking.revoke_all("42") == 1
    finally:
        del store.ids_of  # type: ignore[attr-defined]
    assert outcome(new.blocking, token) == "unknown"


def test_r26_resealing_changes_nothing_but_the_seal(server_house: House) -> None:
    old = server_house.node(secrets=[A])
    token = begin(old.blocking, principal="42")
    before = run_blocking(old.engine.store.server.load(token_id(token)))
    assert before is not None
    server_house.clock.advance(60)
    new = server_house.node(secrets=[B, A])
    told: list[int] = []
    assert new.blocking.reseal(told.append) == 1
    assert told == [1]
    after = run_blocking(new.engine.store.server.load(token_id(token)))
    assert after is not None
    assert (after.idle_deadline, after.absolute_deadline) == (before.idle_deadline, before.absolute_deadline)
    assert after.version == before.version + 1
    assert after.index_label != before.index_label
    session = server_house.node(secrets=[B]).blocking.open(token)
    assert (session.principal, session.data.note) == ("42", "a note")
    assert new.blocking.reseal(told.append) == 0, "what is current is left alone"
    assert server_house.node(secrets=[A]).blocking.open(token).outcome.value == "future"


def test_r26_resealing_leaves_what_it_cannot_read_and_what_was_ended_meanwhile(server_house: House) -> None:
    old = server_house.node(secrets=[A]).blocking
    damaged, foreign, gone, busy = (begin(old, principal="42") for _ in range(4))
    raw = server_house.raw(token_id(damaged))
    server_house.write_raw(token_id(damaged), raw[:-1] + bytes((raw[-1] ^ 1,)))
    stranger = server_house.raw(token_id(foreign))
    server_house.write_raw(token_id(foreign), stranger[:7] + bytes(8) + stranger[15:])
    new = server_house.node(secrets=[B, A])
    calls = new.engine.store
    replace = type(calls).replace
    seen: set[str] = set()

    async def meddle(self: object, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        if record.id not in seen:
            seen.add(record.id)
            if record.id == token_id(gone):
                old.revoke(record.id)
            if record.id == token_id(busy):
                session = old.open(busy)
                session.data.note = "written meanwhile"
                old.commit(session)
        return await replace(calls, record, expected=expected, write_id=write_id)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(calls), "replace", meddle)
        done = new.blocking.reseal()
    assert done == 1
    assert server_house.raw(token_id(damaged))[7:15] == raw[7:15]
    assert server_house.raw(token_id(foreign))[7:15] == bytes(8)
    assert outcome(new.blocking, gone) == "unknown"
    assert server_house.node(secrets=[B]).blocking.open(busy).data.note == "written meanwhile"


def test_r26_only_a_store_that_can_be_gone_through_is_resealed(cookie_house: House) -> None:
    with pytest.raises(ConfigurationError, match="go through"):
        cookie_house.node().blocking.reseal()


def test_r26_cookies_survive_a_rotation_and_are_resealed_by_the_next_write(cookie_house: House) -> None:
    token = begin(cookie_house.node(secrets=[A]).blocking, principal="42")
    both = cookie_house.node(secrets=[B], retired_secrets=[A]).blocking
    session = both.open(token)
    session.data.count = 1
    fresh = both.commit(session).token
    assert fresh is not None
    alone = cookie_house.node(secrets=[B]).blocking
    assert outcome(alone, fresh) == "loaded"
    assert outcome(alone, token) == "corrupt"


def test_r26_a_retired_key_never_seals(house: House) -> None:
    node = house.node(secrets=[B], retired_secrets=[A])
    token = begin(node.blocking, principal="42")
    assert outcome(house.node(secrets=[A]).blocking, token) == ("corrupt" if house.is_client_side else "future")
    assert outcome(house.node(secrets=[B]).blocking, token) == "loaded"


def test_r26_no_key_is_tried_in_turn(server_house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    node = server_house.node(secrets=[B, A, new_secret(), new_secret()])
    token = begin(server_house.node(secrets=[A]).blocking)
    used: list[bytes] = []
    box = KeyRing.box

    def watched(self: KeyRing, cipher: object, key: object, day: int) -> object:
        used.append(key.id)  # type: ignore[attr-defined]
        return box(self, cipher, key, day)  # type: ignore[arg-type]

    monkeypatch.setattr(KeyRing, "box", watched)
    assert outcome(node.blocking, token) == "loaded"
    assert used == [KeyRing([A]).primary.id]


def test_r31_a_bound_session_moves_to_the_first_key_with_its_next_write(server_house: House) -> None:
    client = Client("192.0.2.7", "Firefox")
    binding: dict[str, Any] = {"binding": "reject"}
    old = server_house.node(secrets=[A], **binding).blocking
    session = old.open(None, client)
    session.login("42")
    token = old.commit(session).token
    both = server_house.node(secrets=[B, A], **binding).blocking
    assert both.open(token, Client("198.51.100.1", "Firefox")).outcome.value == "binding"
    session = both.open(token, client)
    session.data.count += 1
    both.commit(session)
    alone = server_house.node(secrets=[B], **binding).blocking
    assert alone.open(token, client).outcome.value == "loaded"
    assert alone.open(token, Client("198.51.100.1", "Firefox")).outcome.value == "binding"


def test_r25_an_unsealed_store_is_indexed_anew_as_well(server_house: House) -> None:
    token = begin(server_house.node(secrets=[A], encrypt=False).blocking, principal="42")
    assert server_house.node(secrets=[B, A], encrypt=False).blocking.reseal() == 1
    alone = server_house.node(secrets=[B], encrypt=False).blocking
    assert [info.id for info in alone.list("42")] == [token_id(token)]
    assert alone.reseal() == 0
