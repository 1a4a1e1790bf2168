"""Which rule a wrong answer, or a wrong effect, of a call breaks.

The one rule: the verdict follows from the model's state before the call alone, never from how a store works.
"""

from __future__ import annotations

from dataclasses import dataclass

from sojourn.stores.contract import Created, Deleted, Record, Replaced
from sojourn.testing.calls import Answer, Call, Create, Delete, Load, Replace, Touch


@dataclass(frozen=True, slots=True)
class Case:
    """One call, and what the model knew before it."""

    call: Call
    before: Record | None
    """The live record."""
    lapsed: bool
    """Whether there is a record whose deadline has passed."""
    used: frozenset[bytes]
    """The write ids of all earlier calls for this id."""
    expected: Answer
    tries: int
    """How often the call is made in all; every try but the last meets a fault."""

    def accepts(self, answer: Answer) -> bool:
        """Tell whether the answer is right; a delete that is repeated cannot know that the first one worked."""
        if isinstance(self.call, Delete) and self.tries > 1 and self.expected is Deleted.OK:
            return answer in (Deleted.OK, Deleted.GONE)
        return answer is self.expected

    def rule_of_answer(self, *, is_visible: bool) -> str:
        """Return the rule that a wrong answer breaks; *is_visible* tells whether the record can be loaded afterwards."""
        if self.lapsed and not (is_visible and isinstance(self.call, Touch | Replace)):
            return "S12"
        return self.rule_of_effect(None, None) if self._is_special else _ANSWERS[type(self.call)]

    def rule_of_effect(self, field: str | None, loaded: Record | None) -> str:
        """Return the rule that is broken when the record is not what the model says, *field* being what differs."""
        match self.call, self.expected:
            case ((Create() | Replace()), (Created.OK | Replaced.OK)):
                if not self._is_repeated:
                    return "S13"
                return "S4" if self._is_newest else "S5"
            case ((Create(write_id=write_id) | Replace(write_id=write_id)), (Created.EXISTS | Replaced.CONFLICT)):
                return "S5" if write_id in self.used else _ANSWERS[type(self.call)]
            case Replace(), _:
                return "S2"
            case Touch(), True if loaded is not None and field == "idle_deadline":
                return "S7" if loaded.idle_deadline > loaded.absolute_deadline else "S8"
            case Touch(), True:
                return "S9"
            case Delete(), Deleted.CONFLICT:
                return "S10"
            case _:
                return _ANSWERS[type(self.call)]

    @property
    def _is_repeated(self) -> bool:
        if not isinstance(self.call, Create | Replace):
            return False
        return self.tries > 1 or (self.before is not None and self.call.write_id in self.before.write_ids)

    @property
    def _is_newest(self) -> bool:
        """Tell whether the write that is repeated is the last one."""
        if self.before is None or not isinstance(self.call, Create | Replace):
            return True
        return self.call.write_id not in self.before.write_ids[:-1]

    @property
    def _is_special(self) -> bool:
        """Tell whether a wrong answer has a more special rule than its method."""
        return self._is_repeated or self.expected in (
            Created.EXISTS,
            Replaced.CONFLICT,
            Replaced.GONE,
            Deleted.CONFLICT,
        )


_ANSWERS: dict[type[Call], str] = {Load: "S13", Create: "S1", Replace: "S3", Touch: "S6", Delete: "S11"}
