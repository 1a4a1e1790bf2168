"""The typed door to plugins: what the hooks return comes out checked, or as a ``ConfigurationError``.

The one rule: only a plugin that is named is imported, and only while a manager is built.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any, Final, cast

import pluggy

from sojourn import hookspecs
from sojourn.errors import ConfigurationError, PluginNotFoundError, SojournError
from sojourn.plugins import built_in
from sojourn.plugins.discovery import KNOWN_DISTRIBUTIONS, Kind, distribution_of, entry_point_of, names_of

if TYPE_CHECKING:
    from sojourn.crypto import Cipher
    from sojourn.hookspecs import Observer
    from sojourn.metrics import Metrics
    from sojourn.serializers import SerializerFactory
    from sojourn.settings import SessionSettings
    from sojourn.stores import ClientSideStore, Store

FIRST_THIRD_PARTY_SUITE: Final = 128
"""Suite bytes below belong to the core (docs/security.md)."""

_WORDS: Final[dict[Kind, str]] = {
    "store": "store is",
    "serializer": "serializer is",
    "cipher": "cipher is",
    "metrics": "metrics are",
    "observer": "observer is",
}


class PluginDoor:
    """Find what the settings name, for one manager.

    Asked are, in this order: the built-ins, the plugins already loaded, and the entry point of that name. Raises
    ``PluginNotFoundError``, ``PluginConflictError``, or ``ConfigurationError`` when a plugin does not work.
    """

    def __init__(self, settings: SessionSettings) -> None:
        self._settings = settings
        self._plugins = pluggy.PluginManager(hookspecs.PROJECT_NAME)
        self._plugins.add_hookspecs(hookspecs)

    def store(self, name: str) -> Store | ClientSideStore:
        """Return the store called *name*."""
        found = built_in.store(name, self._settings)
        if found is not None:
            return found
        answer = self._find("store", name)
        from sojourn.stores import ClientSideStore, Store

        if isinstance(answer, Store | ClientSideStore):
            return answer
        raise _unfit("store", name, answer)

    def serializer(self, name: str) -> SerializerFactory:
        """Return what makes the serializer called *name* from a model."""
        answer = built_in.serializer(name) or self._find("serializer", name)
        if callable(answer):
            return cast("SerializerFactory", answer)
        raise _unfit("serializer", name, answer)

    def cipher(self, name: str) -> Cipher:
        """Return the suite called *name*; one of a plugin has a suite byte from 128 (SECURITY R26)."""
        found = built_in.cipher(name)
        if found is not None:
            return found
        answer = self._find("cipher", name)
        suite: object = getattr(answer, "suite", None)
        if not callable(getattr(answer, "box", None)) or not isinstance(suite, int):
            raise _unfit("cipher", name, answer)
        if not FIRST_THIRD_PARTY_SUITE <= suite <= 255:
            raise ConfigurationError(
                f"the cipher {name!r} has the suite byte {suite}; a plugin's is {FIRST_THIRD_PARTY_SUITE} to 255"
            )
        return cast("Cipher", answer)

    def metrics(self, name: str) -> Metrics:
        """Return the metrics sink called *name*."""
        found = built_in.metrics(name)
        if found is not None:
            return found
        answer = self._find("metrics", name)
        from sojourn.metrics import Metrics

        if isinstance(answer, Metrics):
            return answer
        raise _unfit("metrics", name, answer)

    def observers(self) -> tuple[Observer, ...]:
        """Return the observers of every plugin loaded so far and of those that ``SOJOURN_OBSERVERS`` names."""
        for name in self._settings.observers:
            if not self.load("observer", name):
                raise _not_found("observer", name)
        answers = self._call("sojourn_observers", settings=self._settings)
        observers: list[Observer] = []
        for answer in reversed(answers):  # pluggy asks the last one registered first
            for observer in cast("list[object]", list(answer)):
                if not callable(observer):
                    raise ConfigurationError(f"the hook sojourn_observers returned {_type(observer)}, no callable")
                observers.append(cast("Observer", observer))
        return tuple(observers)

    def load(self, kind: Kind, name: str) -> bool:
        """Import the plugin that offers *name* and register its hooks; tell whether one is installed."""
        point = entry_point_of(kind, name)
        if point is None:
            return False
        plugin = _import(point)
        if self._plugins.is_registered(plugin):
            return True
        try:
            self._plugins.register(plugin, name=point.name)
            self._plugins.check_pending()
        except pluggy.PluginValidationError as error:
            raise ConfigurationError(
                f"the plugin {point.name} of {distribution_of(point)} has a hook that does not exist or takes other "
                f"parameters: {' '.join(str(error).split())}"
            ) from error
        return True

    def _find(self, kind: Kind, name: str) -> Any:
        """Ask the loaded plugins, then the one of that name; raises ``PluginNotFoundError``."""
        hook = f"sojourn_create_{kind}"
        answer = self._call(hook, name=name, settings=self._settings)
        if answer is None:
            if not self.load(kind, name):
                raise _not_found(kind, name)
            answer = self._call(hook, name=name, settings=self._settings)
        if answer is None:
            raise PluginNotFoundError(
                f"the plugin {kind}-{name} is installed, but its hook {hook} does not know {name!r}; "
                "that is a defect of the plugin"
            )
        return answer

    def _call(self, hook: str, **arguments: Any) -> Any:
        caller: Callable[..., Any] = getattr(self._plugins.hook, hook)
        try:
            return caller(**arguments)
        except SojournError:
            raise
        except Exception as error:
            # the text of a stranger's exception may hold a secret, so only its type is told (SECURITY R6)
            raise ConfigurationError(f"a plugin's hook {hook} failed with {type(error).__name__}") from error


def _import(point: EntryPoint) -> object:
    try:
        loaded: object = point.load()
    except Exception as error:
        detail = f"{type(error).__name__}: {error}" if isinstance(error, ImportError) else type(error).__name__
        raise ConfigurationError(
            f"the plugin {point.name} of {distribution_of(point)} cannot be imported ({detail}); "
            f"reinstall it: pip install --force-reinstall {distribution_of(point)}"
        ) from error
    return loaded


def _not_found(kind: Kind, name: str) -> PluginNotFoundError:
    choices = names_of(kind)
    told = f"no {_WORDS[kind]} called {name!r}"
    distribution = KNOWN_DISTRIBUTIONS.get(f"{kind}-{name}")
    known = [entry.partition("-")[2] for entry in KNOWN_DISTRIBUTIONS if entry.startswith(f"{kind}-")]
    near = difflib.get_close_matches(name, [*choices, *known], n=1)
    if distribution:
        told += f"; try: pip install {distribution}"
    elif near:
        told += f"; did you mean {near[0]!r}?"
        if near[0] not in choices:
            told += f" Try: pip install {KNOWN_DISTRIBUTIONS[f'{kind}-{near[0]}']}"
    else:
        told += f"; a package that brings it has the entry point {kind}-{name}"
    return PluginNotFoundError(f"{told} (installed: {', '.join(choices) or 'none'})")


def _unfit(kind: Kind, name: str, answer: object) -> ConfigurationError:
    return ConfigurationError(
        f"the plugin {kind}-{name} returned {_type(answer)}, which lacks what sojourn asks of a {kind}; "
        "see docs/write-a-plugin.md"
    )


def _type(value: object) -> str:
    return f"an object of type {type(value).__qualname__}"
