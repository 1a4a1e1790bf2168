"""The extras of a session as the dict that libraries expect to find in ``scope["session"]``."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, NoReturn, Self, cast

from sojourn.session import Session


class ExtrasMapping:
    """A view of a session's extras that opens the session when its content is used, and never by being named.

    Unlike `Session` it is true when it holds anything and compared by content. What a dict has as methods, and the
    attributes of the session, are the session's own. It derives from no abstract class, whose metaclass structs cannot have.
    """

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]  # compared by content, as a dict

    @property
    @abstractmethod
    def session(self) -> Session[Any]:
        """The session, opened on first use."""

    def __getitem__(self, key: str) -> Any:  # a JSON value
        return self.session[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.session[key] = value

    def __delitem__(self, key: str) -> None:
        del self.session[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.session)

    def __reversed__(self) -> Iterator[str]:
        return reversed(self.session)

    def __len__(self) -> int:
        return len(self.session)

    def __bool__(self) -> bool:
        return len(self.session) > 0

    def __contains__(self, key: object) -> bool:
        return key in self.session

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if isinstance(other, Session):
            return self.session is other or self.session.copy() == other.copy()
        return self.session.copy() == dict(cast("Mapping[str, Any]", other)) if isinstance(other, Mapping) else False

    def __ne__(self, other: object) -> bool:  # structs have one of their own
        return not self == other

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return self.session | other

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return other | self.session

    def __ior__(self, other: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Self:
        self.session.update(other)
        return self

    def __copy__(self) -> dict[str, Any]:
        return self.session.copy()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be pickled or copied deeply, as the session does."""
        raise TypeError(
            "the session of a request cannot be pickled or copied deeply: it belongs to its request; take dict(request.session)"
        )

    def clear(self) -> None:
        """See `Session.clear`."""
        self.session.clear()

    def mark_accessed(self) -> None:
        """Do nothing: frameworks that look whether a session has this name must not open it by looking."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...  # of the session


cast("ABCMeta", MutableMapping).register(cast("type[object]", ExtrasMapping))
