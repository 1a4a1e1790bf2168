from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sojourn.errors import SerializationError, SessionStateError, SessionTooLargeError
from sojourn.flash import MAX_MESSAGES, Flash, FlashNow, is_json, json_copy, json_value

SECRET = "hunter2-never-shown"
keys = st.sampled_from(["notice", "alert", "a", "b"])
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


class Writes:
    """Counts what would make the session dirty."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


class RequestsOneAfterTheOther(RuleBasedStateMachine):
    """A flash over many requests, beside the simplest model: each message is read in at most one request."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = Writes()
        self.flash = Flash(on_write=self.writes)
        self.waiting: dict[str, int] = {}
        self.readable: dict[str, int] = {}
        self.now: dict[str, int] = {}
        self.kept: set[str] = set()
        self.number = 0

    @invariant()
    def what_waits_is_what_is_stored(self) -> None:
        assert self.flash.pending() == self.waiting

    @invariant()
    def looking_without_reading_changes_nothing(self) -> None:
        before = self.writes.count
        visible = {**self.readable, **self.waiting, **self.now}
        assert set(self.flash) == set(self.flash.keys()) == set(visible)
        assert len(self.flash) == len(visible)
        assert self.flash == visible
        assert all((key in self.flash) == (key in visible) for key in ("notice", "alert", "a", "b"))
        assert self.writes.count == before

    @rule()
    def the_next_request_comes(self) -> None:
        self.writes = Writes()
        self.flash = Flash(self.flash.pending(), on_write=self.writes)
        self.readable, self.now, self.kept = {}, {}, set()

    @rule(key=keys)
    def a_message_is_set(self, key: str) -> None:
        self.number += 1
        self.flash[key] = self.number
        self.waiting[key] = self.number
        self.readable.pop(key, None)
        self.now.pop(key, None)
        self.kept.discard(key)

    @rule(key=keys)
    def a_message_for_this_request_is_set(self, key: str) -> None:
        self.number += 1
        self.flash.now[key] = self.number
        self.now[key] = self.number

    @rule(key=keys)
    def a_message_is_read(self, key: str) -> None:
        before = self.writes.count
        found = self.flash.get(key)
        if key in self.now:
            expected = self.now[key]
        elif key in self.waiting:
            expected = self.waiting[key]
            self.readable[key] = expected
            if key not in self.kept:
                del self.waiting[key]
                before += 1
        else:
            expected = self.readable.get(key)  # type: ignore[assignment]
        assert found == expected
        assert self.writes.count == before

    @rule(key=keys)
    def a_message_is_kept(self, key: str) -> None:
        self.flash.keep(key)
        if key in self.waiting:
            self.kept.add(key)
        elif key in self.now or key in self.readable:
            self.waiting[key] = self.readable[key] = self.now.get(key, self.readable.get(key, 0))
            self.kept.add(key)

    @rule(key=keys)
    def a_message_is_discarded(self, key: str) -> None:
        self.flash.discard(key)
        if key in self.waiting:
            self.readable[key] = self.waiting.pop(key)
            self.kept.discard(key)

    @rule(key=keys)
    def a_message_is_popped(self, key: str) -> None:
        visible = {**self.readable, **self.waiting, **self.now}
        assert self.flash.pop(key, None) == visible.get(key)
        for messages in (self.readable, self.waiting, self.now):
            messages.pop(key, None)
        self.kept.discard(key)


TestRequestsOneAfterTheOther = RequestsOneAfterTheOther.TestCase
TestRequestsOneAfterTheOther.settings = settings(max_examples=min(settings().max_examples, 400))


READS: dict[str, Callable[[Flash], object]] = {
    "[]": lambda flash: flash["notice"],
    "get": lambda flash: flash.get("notice"),
    "values": lambda flash: next(iter(flash.values())),
    "items": lambda flash: dict(flash.items())["notice"],
    "dict": lambda flash: dict(flash)["notice"],
    "setdefault": lambda flash: flash.setdefault("notice", "other"),
    "attribute": lambda flash: flash.notice,
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_stored_message_is_read_by_exactly_one_request(read: Callable[[Flash], object]) -> None:
    writes = Writes()
    flash = Flash({"notice": "Welcome"}, on_write=writes)
    assert read(flash) == "Welcome"
    assert flash.pending() == {}
    assert writes.count == 1
    assert read(flash) == "Welcome"
    assert flash["notice"] == "Welcome"
    assert writes.count == 1
    assert Flash(flash.pending()).get("notice") is None


def test_pop_reads_and_removes() -> None:
    flash = Flash({"notice": "Welcome"})
    assert flash.pop("notice") == "Welcome"
    assert "notice" not in flash
    assert flash.pending() == {}
    with pytest.raises(KeyError, match="notice"):
        del flash["notice"]
    with pytest.raises(KeyError, match="notice"):
        flash["notice"]


@pytest.mark.parametrize(
    "look",
    [
        lambda flash: "notice" in flash,
        lambda flash: len(flash),
        list,
        lambda flash: list(flash.keys()),
        bool,
        repr,
        lambda flash: flash.pending(),
        lambda flash: flash == {"notice": 1},
        lambda flash: flash == Flash({"notice": 1}),
        lambda flash: flash.get("other"),
        lambda flash: flash.keep("other"),
        lambda flash: flash.discard("other"),
        lambda flash: flash.keep("notice"),
        lambda flash: flash.keep_all(),
        lambda flash: flash.now.get("notice"),
        lambda flash: flash.now.update(alert="x"),
    ],
)
def test_what_does_not_read_a_message_writes_nothing(look: Callable[[Flash], object]) -> None:
    writes = Writes()
    flash = Flash({"notice": 1}, on_write=writes)
    look(flash)
    assert writes.count == 0
    assert flash.pending() == {"notice": 1}


def test_an_empty_flash_may_be_read_without_a_write() -> None:
    writes = Writes()
    flash = Flash(on_write=writes)
    assert [flash.notice, flash.get("x"), list(flash.items()), flash.pop("x", None)] == [None, None, [], None]
    flash.discard_all()
    flash.keep_all()
    flash.clear()
    assert writes.count == 0


def test_a_message_set_and_read_in_one_request_is_consumed() -> None:
    flash = Flash()
    flash["notice"] = "Saved"
    assert flash.pending() == {"notice": "Saved"}
    assert flash["notice"] == "Saved"
    assert flash.pending() == {}


def test_a_message_for_now_hides_a_stored_one_without_consuming_it() -> None:
    flash = Flash({"notice": "later"})
    flash.now["notice"] = "now"
    assert flash["notice"] == "now"
    assert flash.pending() == {"notice": "later"}
    del flash.now["notice"]
    assert flash["notice"] == "later"


def test_a_kept_message_survives_reading_before_and_after_and_only_once() -> None:
    flash = Flash({"a": 1, "b": [2]})
    assert flash["a"] == 1
    flash.now["n"] = 3
    flash.keep_all()
    assert [flash["a"], flash["b"], flash["n"]] == [1, [2], 3]
    flash["b"].append("changed by the template")
    assert flash.pending() == {"a": 1, "b": [2], "n": 3}
    after = Flash(flash.pending())
    assert dict(after) == {"a": 1, "b": [2], "n": 3}
    assert after.pending() == {}


def test_discarded_messages_stay_readable_in_this_request_alone() -> None:
    flash = Flash({"a": 1, "b": 2, "c": 3})
    flash.keep("b")
    flash.discard("a")
    assert flash.pending() == {"b": 2, "c": 3}
    flash.discard_all()
    assert flash.pending() == {}
    assert flash == {"a": 1, "b": 2, "c": 3}


def test_clear_forgets_everything() -> None:
    writes = Writes()
    flash = Flash({"a": 1, "b": 2}, on_write=writes)
    assert flash["a"] == 1
    flash.now["n"] = 1
    flash.clear()
    assert (dict(flash), flash.pending(), writes.count) == ({}, {}, 2)


@pytest.mark.parametrize("name", ["notice", "alert", "error", "success", "warning", "info"])
def test_customary_messages_are_attributes(name: str) -> None:
    flash = Flash()
    assert getattr(flash, name) is None
    setattr(flash, name, "x")
    assert flash.pending() == {name: "x"}
    assert getattr(flash, name) == "x"
    assert flash.pending() == {}
    with pytest.raises(AttributeError):
        flash.mistyped = "x"  # type: ignore[attr-defined]


def refuse() -> None:
    raise SessionStateError("the session was destroyed")


@pytest.mark.parametrize(
    "change",
    [
        lambda flash: flash["a"],
        lambda flash: flash.__setitem__("a", 2),
        lambda flash: flash.__setitem__("z", 2),
        lambda flash: flash.__delitem__("a"),
        lambda flash: flash.discard("a"),
        lambda flash: flash.discard_all(),
        lambda flash: flash.keep("n"),
        lambda flash: flash.clear(),
        lambda flash: flash.popitem(),
    ],
)
def test_a_refused_write_changes_nothing(change: Callable[[Flash], object]) -> None:
    flash = Flash({"a": 1}, on_write=refuse)
    flash.now["n"] = 1
    with pytest.raises(SessionStateError):
        change(flash)
    assert flash.pending() == {"a": 1}
    assert flash == {"a": 1, "n": 1}


def test_a_thirty_third_message_is_refused_and_the_others_kept() -> None:
    flash = Flash({str(number): number for number in range(MAX_MESSAGES)})
    flash["0"] = "replaced"
    flash.now["n"] = 1
    for change in (lambda: flash.__setitem__("x", 1), lambda: flash.keep("n")):
        with pytest.raises(SessionTooLargeError, match="would be more than 32"):
            change()
    assert len(flash.pending()) == 32
    assert flash["5"] == 5
    flash["x"] = 1
    assert len(flash.pending()) == 32


# Values


class Word(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "another"


class Level(enum.IntEnum):
    HIGH = 3


@given(value=json_values)
def test_json_values_are_stored_as_deep_copies(value: Any) -> None:
    flash = Flash()
    flash["a"] = value
    stored = flash.pending()["a"]
    assert stored == value
    assert repr(stored) == repr(value)
    if isinstance(value, list):
        value.append("changed later")
        assert flash["a"] == value[:-1]


Cyclic: list[object] = []
Cyclic.append(Cyclic)


@pytest.mark.parametrize(
    "value",
    [
        object(),
        b"x",
        {SECRET},
        (SECRET, object()),
        [SECRET, [object()]],
        {SECRET: {1: 2}},
        float("nan"),
        float("inf"),
        2**64,
        -(2**63) - 1,
        "\ud800",
        {"\udfff": 1},
        Cyclic,
    ],
)
@pytest.mark.parametrize("where", [lambda flash: flash, lambda flash: flash.now])
def test_f15_what_is_no_json_value_is_refused_naming_the_key(where: Callable[[Flash], Any], value: Any) -> None:
    writes = Writes()
    flash = Flash(on_write=writes)
    with pytest.raises(SerializationError, match="flash message 'notice' holds a .* that is no JSON value") as caught:
        where(flash)["notice"] = value
    assert SECRET not in str(caught.value)
    assert (len(flash), writes.count) == (0, 0)


def test_f15_keys_are_text() -> None:
    flash = Flash()
    for messages in (flash, flash.now):
        with pytest.raises(SerializationError, match="keys of flash messages are str, not int"):
            messages[1] = "x"  # type: ignore[index]
        with pytest.raises(SerializationError, match=r"flash message '\\ud800'"):
            messages["\ud800"] = "x"
    assert len(flash) == 0


def test_subclasses_of_json_types_are_stored_as_the_plain_type() -> None:
    flash = Flash()
    flash[Word("key")] = {Word("word"): [Word("x"), Level.HIGH]}
    stored = flash.pending()
    assert stored == {"key": {"word": ["x", 3]}}
    inner = next(iter(stored["key"].items()))
    assert [type(part) for part in (next(iter(stored)), inner[0], *inner[1])] == [str, str, str, int]


any_values = st.recursive(
    json_values
    | st.sampled_from([float("nan"), 2**64, -(2**63) - 1, "\ud800", b"x", 1j, Word("w"), Level.HIGH])
    | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.tuples(inner)
        | st.dictionaries(st.sampled_from(["a", "\udfff", Word("k"), 1]), inner, max_size=2)
    ),
    max_leaves=4,
)


def deep(levels: int) -> Any:
    return [deep(levels - 1)] if levels else []


def written(value: Any) -> str:
    """Return what tells a value from every other one: its type as well, and those of what it holds."""
    inside = value.items() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return f"{type(value).__name__}({'' if inside else repr(value)}{''.join(map(written, inside))})"


@example(deep(63))
@example(deep(64))
@example([{1: None}])
@example({Word("k"): 1})
@example([float("nan")])
@example([2**64])
@example([True, {"a": ["\ud800"]}])
@given(any_values)
def test_what_is_told_to_be_json_is_what_a_copy_leaves_as_it_is(value: Any) -> None:
    try:
        copied = json_copy(value, "it")
    except SerializationError:
        assert not is_json(value)
        with pytest.raises(SerializationError):
            json_value(value, "it")
        return
    assert is_json(value) is (written(copied) == written(value))
    assert json_value(value, "it") == copied
    assert not is_json(value) or json_value(value, "it") is value


def test_a_value_of_the_session_may_be_checked_under_another_name() -> None:
    assert json_copy({"a": [1, 2.5, None, True]}, "session key 'x'") == {"a": [1, 2.5, None, True]}
    with pytest.raises(SerializationError, match="session key 'x' holds a complex"):
        json_copy([1j], "session key 'x'")


def test_r6_the_representation_shows_no_message() -> None:
    flash = Flash({SECRET: SECRET})
    flash.now[SECRET] = SECRET
    flash.now["x"] = 1
    assert (repr(flash), repr(flash.now)) == ("<Flash: 2 messages>", "<FlashNow: 2 messages>")


def test_a_flash_equals_mappings_only_and_has_no_hash() -> None:
    flash: object = Flash({"a": 1})
    assert flash == {"a": 1}
    assert flash != {"a": 2}
    assert flash != Flash({"b": 1})
    assert flash != object()
    with pytest.raises(TypeError, match="unhashable"):
        hash(flash)
    assert dict(FlashNow()) == {}
