"""What is told of links: each loss and each return once, and how many are down."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sojourn_store_redis.local_cache.listener import Subscribers


class Heard:
    def __init__(self) -> None:
        self.subscribers = Subscribers()
        self.told: list[tuple[bool, int]] = []
        self.stop = self.subscribers.add_on_link(lambda is_up, down: self.told.append((is_up, down)))


def test_the_first_connection_and_a_link_that_is_given_up_are_no_news() -> None:
    heard = Heard()
    for is_up in (True, True, None, True, None):
        heard.subscribers.note_link("a", is_up=is_up)
    assert heard.told == []
    assert not heard.subscribers, "to be told of links is no reason to have one"


def test_f12_each_loss_and_each_return_is_told_once() -> None:
    heard = Heard()
    for primary, is_up in (
        ("a", True),
        ("b", False),
        ("a", False),
        ("a", False),
        ("b", True),
        ("a", True),
        ("a", True),
    ):
        heard.subscribers.note_link(primary, is_up=is_up)
    assert heard.told == [(False, 1), (False, 2), (True, 1), (True, 0)]
    heard.stop()
    heard.stop()
    heard.subscribers.note_link("a", is_up=False)
    assert len(heard.told) == 4


def test_the_link_of_a_primary_that_is_none_any_more_is_not_down() -> None:
    heard = Heard()
    heard.subscribers.note_link("a", is_up=False)
    heard.subscribers.note_link("a", is_up=None)
    assert heard.told == [(False, 1), (True, 0)]


def test_a_child_process_knows_of_no_loss() -> None:
    heard = Heard()
    heard.subscribers.note_link("a", is_up=False)
    heard.subscribers.forget_links()
    heard.subscribers.note_link("a", is_up=True)
    assert heard.told == [(False, 1)]


def test_f22_a_callback_that_raises_takes_no_other_along() -> None:
    subscribers = Subscribers()
    told: list[int] = []

    def fail(_is_up: bool, _down: int) -> None:
        raise RuntimeError("full")

    subscribers.add_on_link(fail)
    subscribers.add_on_link(lambda _is_up, down: told.append(down))
    subscribers.note_link("a", is_up=False)
    assert told == [1]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([True, False, None]))))
def test_the_last_level_that_was_told_is_the_number_of_links_that_are_down(
    notes: list[tuple[str, bool | None]],
) -> None:
    heard = Heard()
    links: dict[str, bool | None] = {}
    for primary, is_up in notes:
        heard.subscribers.note_link(primary, is_up=is_up)
        links[primary] = is_up
    level = heard.told[-1][1] if heard.told else 0
    assert level == list(links.values()).count(False)
    assert [is_up for is_up, _ in heard.told].count(False) >= level
