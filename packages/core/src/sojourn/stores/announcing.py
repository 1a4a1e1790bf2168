"""What a store of several processes may tell its manager: which records were deleted, and how its link is.

The one rule: callbacks are called in whatever thread learns of it and return at once; the manager's never raise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable


@runtime_checkable
class AnnouncingStore(Protocol):
    """A store that hears of the records that any process deletes (docs/clustering.md)."""

    def on_dead(
        self, callback: Callable[[str], object], *, on_doubt: Callable[[], object] | None = None
    ) -> Callable[[], None]:
        """Call *callback* with the id of every record that is deleted; return what ends that.

        *on_doubt* is called when deletions may have gone unnoticed.
        """
        ...


@runtime_checkable
class ConfirmingStore(Protocol):
    """A store that waits until replicas have what ends a session, so that a failover does not bring it back."""

    def on_unconfirmed(self, callback: Callable[[str, int], object]) -> Callable[[], None]:
        """Call *callback* with the id of each ended session whose end too few replicas confirmed, and their number.

        The session is over all the same. What is returned ends that.
        """
        ...


@runtime_checkable
class LinkedStore(Protocol):
    """A store that depends on a link beside its calls, and notices when that is lost and when it is back."""

    def on_link(self, callback: Callable[[bool, int], object]) -> Callable[[], None]:
        """Call *callback* when a link is lost or works (again): whether it works, and how many are down now.

        What is returned ends that.
        """
        ...
