"""Find the stores, serializers, ciphers, metrics, readers and observers that settings name.

Only a plugin that is named is imported, and only while a manager is built: nothing here runs during a request.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

import pluggy

from sojourn import hookspecs
from sojourn.errors import ConfigurationError, PluginConflictError, PluginNotFoundError, SojournError

if TYPE_CHECKING:
    from sojourn.crypto.ciphers import Cipher
    from sojourn.events import Observer
    from sojourn.hookspecs import Reader
    from sojourn.metrics import Metrics
    from sojourn.serializers import SerializerFactory
    from sojourn.settings import PluginSettings, SessionSettings
    from sojourn.stores import ClientSideStore, Store

__all__ = [
    "BUILT_IN",
    "InstalledPlugin",
    "PluginLoader",
    "UnknownVariable",
    "find_cipher",
    "find_metrics",
    "find_observers",
    "find_serializer",
    "find_store",
    "installed",
    "unknown_variables",
    "warn_about_unknown_variables",
]

Kind: TypeAlias = Literal["store", "serializer", "cipher", "metrics", "reader", "observer"]

BUILT_IN: Final[Mapping[Kind, tuple[str, ...]]] = MappingProxyType(
    {
        "store": ("memory",),
        "serializer": ("auto", "json", "msgpack", "pydantic"),
        "cipher": ("aes-256-gcm", "aes-256-cbc-hmac-sha256"),
        "metrics": ("null", "log"),
        "reader": (),
        "observer": (),
    }
)
"""What the core brings; looked up before any plugin."""

_KNOWN_READERS: Final = (
    "aiohttp-cookie",
    "aiohttp-redis",
    "azutoolkit-cookie",
    "azutoolkit-redis",
    "django-cache",
    "django-cookie",
    "django-db",
    "express-session",
    "flask",
    "flask-session",
    "litestar-cookie",
    "litestar-redis",
    "starlette",
    "starsessions",
)

KNOWN_DISTRIBUTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "store-cookie": "sojourn-store-cookie",
        "store-redis": "sojourn-store-redis",
        "store-clustered-redis": "sojourn-store-redis",
        "store-sql": "sojourn-store-sql",
        "metrics-opentelemetry": "sojourn-metrics-opentelemetry",
        "metrics-statsd": "sojourn-metrics-statsd",
        **{f"reader-{name}": "sojourn-contrib-migrate" for name in _KNOWN_READERS},
    }
)
"""The distributions that messages recommend, and no others: a misspelt name may be a stranger's package."""

FIRST_THIRD_PARTY_SUITE: Final = 128
"""Suite bytes below this are reserved for the core (docs/security.md)."""

_NAMING_SETTINGS: Final[tuple[tuple[Kind, str], ...]] = (
    ("store", "store"),
    ("store", "revocation_store"),
    ("store", "fallback_store"),
    ("serializer", "serializer"),
    ("cipher", "cipher"),
    ("metrics", "metrics"),
    ("reader", "readers"),
    ("observer", "observers"),
)

_log = logging.getLogger("sojourn.settings")

_PREFIX: Final = "SOJOURN_"
_VERY_NEAR: Final = 0.93


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledPlugin:
    """One entry point of the group ``sojourn``, with the distribution that offers it."""

    entry_point: str
    """Its name: ``store-redis``."""
    kind: str
    """``store``, ``serializer``, ``cipher``, ``metrics``, ``reader``, ``observer``, or another word, which is ignored."""
    name: str
    """The name in a setting: ``redis``."""
    target: str
    """The module or object that is imported when it is named."""
    distribution: str
    version: str
    conflict: bool
    """Whether another distribution offers the same entry point."""

    @property
    def prefix(self) -> str:
        """The prefix of the variables that belong to it: ``SOJOURN_REDIS_``."""
        return _prefix(self.entry_point)


def find_store(name: str, settings: SessionSettings) -> Store | ClientSideStore:
    """Return a new store called *name*; raises ``PluginNotFoundError`` with the choices."""
    return PluginLoader(settings).store(name)


def find_serializer(name: str, settings: SessionSettings) -> SerializerFactory:
    """Return the factory of the serializer called *name*; raises ``PluginNotFoundError`` with the choices."""
    return PluginLoader(settings).serializer(name)


def find_cipher(name: str, settings: SessionSettings) -> Cipher:
    """Return the cipher called *name*; raises ``PluginNotFoundError`` with the choices."""
    return PluginLoader(settings).cipher(name)


def find_metrics(name: str, settings: SessionSettings) -> Metrics:
    """Return the metrics sink called *name*; raises ``PluginNotFoundError`` with the choices."""
    return PluginLoader(settings).metrics(name)


def find_observers(settings: SessionSettings) -> tuple[Observer, ...]:
    """Return the observers of every plugin that the settings name: those of ``SOJOURN_OBSERVERS`` must be installed."""
    loader = PluginLoader(settings)
    loader.load_named()
    return loader.observers()


class PluginLoader:
    """Finds what the settings name, for one manager, and checks what the hooks of plugins return.

    Looked up are, in this order: the built-ins, the plugins already loaded, and the entry point of that name. Raises
    ``PluginNotFoundError``, ``PluginConflictError``, or ``ConfigurationError`` when a plugin does not work.
    """

    def __init__(self, settings: SessionSettings) -> None:
        self._settings = settings
        self._loaded: dict[str, None] = {}

    @cached_property
    def _plugins(self) -> pluggy.PluginManager:
        # Most managers name no plugin, and to look for the hooks is a good part of what it takes to make them.
        plugins = pluggy.PluginManager(hookspecs.PROJECT_NAME)
        plugins.add_hookspecs(hookspecs)
        return plugins

    def store(self, name: str) -> Store | ClientSideStore:
        """Return the store called *name*."""
        if name == "memory":
            return _memory_store(self._settings)
        from sojourn.stores import ClientSideStore, Store

        found: Store | ClientSideStore = self._find("store", name, Store, ClientSideStore)
        return found

    def serializer(self, name: str) -> SerializerFactory:
        """Return the factory of the serializer called *name*."""
        if name in BUILT_IN["serializer"]:
            from sojourn.serializers import builtin_serializer

            return cast("SerializerFactory", partial(builtin_serializer, name))
        found: SerializerFactory = self._find("serializer", name, Callable)
        return found

    def cipher(self, name: str) -> Cipher:
        """Return the cipher called *name*; that of a plugin has a suite byte from 128 (SECURITY R26)."""
        from sojourn.crypto.ciphers import BUILTIN_CIPHERS

        for built_in in BUILTIN_CIPHERS:
            if built_in.name == name:
                return built_in
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
        """Return the metrics sink called *name*; of several names between commas, one that passes figures on to each."""
        sinks = [self._sink(each) for each in dict.fromkeys(name.split(","))]
        if len(sinks) == 1:
            return sinks[0]
        from sojourn.metrics import CompositeMetrics

        return CompositeMetrics(sinks)

    def _sink(self, name: str) -> Metrics:
        from sojourn.metrics import LogMetrics, Metrics, NullMetrics

        if name in BUILT_IN["metrics"]:
            return NullMetrics() if name == "null" else LogMetrics()
        found: Metrics = self._find("metrics", name, Metrics)
        return found

    def reader(self, name: str) -> Reader:
        """Return the reader called *name* of another library's sessions."""
        found: Reader = self._find("reader", name, hookspecs.Reader)
        return found

    def observers(self) -> tuple[Observer, ...]:
        """Return the observers of every plugin loaded so far and of those that ``SOJOURN_OBSERVERS`` names."""
        for name in self._settings.observers:
            if not self.load("observer", name):
                raise _not_found("observer", name)
        if not self._loaded:
            return ()
        answers = self._call("sojourn_observers", settings=self._settings)
        observers: list[Observer] = []
        # Pluggy calls the last one registered first.
        for answer in reversed(answers):
            for observer in cast("list[object]", list(answer)):
                if not callable(observer):
                    raise ConfigurationError(f"the hook sojourn_observers returned {_type(observer)}, no callable")
                observers.append(cast("Observer", observer))
        return tuple(observers)

    def settings(self) -> list[type[PluginSettings]]:
        """Return the classes of the settings of every plugin loaded so far, of those that say which theirs are."""
        found = [self._call("sojourn_settings", name=name) for name in self._loaded]
        return list(dict.fromkeys(one for one in found if one is not None))

    def load_named(self) -> None:
        """Import every plugin that the settings name, if it is installed, and register its hooks."""
        for kind, field in _NAMING_SETTINGS:
            named: str | tuple[str, ...] = getattr(self._settings, field) or ()
            for name in named.split(",") if isinstance(named, str) else named:
                if name not in BUILT_IN[kind]:
                    self.load(kind, name)

    def load(self, kind: Kind, name: str) -> bool:
        """Import the plugin that offers *name* and register its hooks; return whether one is installed."""
        point = entry_point_of(kind, name)
        if point is None:
            return False
        try:
            plugin: object = point.load()
        except Exception as error:
            detail = f"{type(error).__name__}: {error}" if isinstance(error, ImportError) else type(error).__name__
            raise ConfigurationError(
                f"the plugin {point.name} of {distribution_of(point)} cannot be imported ({detail}); "
                f"reinstall it: pip install --force-reinstall {distribution_of(point)}"
            ) from error
        self._loaded[name] = None
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

    def _find(self, kind: Kind, name: str, *contracts: Any) -> Any:
        """Call the hook of the loaded plugins, then load the one of that name; raises ``PluginNotFoundError``.

        What is found has one of the *contracts*, where any are given.
        """
        hook = f"sojourn_create_{kind}"
        if (answer := self._call(hook, name=name, settings=self._settings)) is None:
            if not self.load(kind, name):
                raise _not_found(kind, name)
            answer = self._call(hook, name=name, settings=self._settings)
        if answer is None:
            raise PluginNotFoundError(
                f"the plugin {kind}-{name} is installed, but its hook {hook} does not know {name!r}; "
                "that is a defect of the plugin"
            )
        if contracts and not isinstance(answer, contracts):
            raise _unfit(kind, name, answer)
        return answer

    def _call(self, hook: str, **arguments: Any) -> Any:
        caller: Callable[..., Any] = getattr(self._plugins.hook, hook)
        try:
            return caller(**arguments)
        except SojournError:
            raise
        except Exception as error:
            # The text of a plugin's exception may hold a secret, so only its type is shown (SECURITY R6).
            raise ConfigurationError(f"a plugin's hook {hook} failed with {type(error).__name__}") from error


def _not_found(kind: Kind, name: str) -> PluginNotFoundError:
    choices = names_of(kind)
    told = f"no {kind} {'are' if kind == 'metrics' else 'is'} called {name!r}"
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


def installed() -> list[InstalledPlugin]:
    """Return the installed plugins, sorted by entry point and distribution, from metadata; imports none of them."""
    points = list(entry_points(group=hookspecs.PROJECT_NAME))
    names = [point.name for point in points]
    plugins = [
        InstalledPlugin(
            entry_point=point.name,
            kind=point.name.partition("-")[0],
            name=point.name.partition("-")[2],
            target=point.value,
            distribution=distribution_of(point),
            version=point.dist.version if point.dist else "",
            conflict=names.count(point.name) > 1,
        )
        for point in points
    ]
    return sorted(plugins, key=lambda plugin: (plugin.entry_point, plugin.distribution))


def entry_point_of(kind: Kind, name: str) -> EntryPoint | None:
    """Return the entry point ``<kind>-<name>``; raises ``PluginConflictError`` when two distributions offer it."""
    points = list(entry_points(group=hookspecs.PROJECT_NAME, name=f"{kind}-{name}"))
    if len(points) > 1:
        raise PluginConflictError(
            f"{len(points)} distributions offer {kind}-{name}: {_listed(map(distribution_of, points))}; "
            "uninstall all but one"
        )
    return points[0] if points else None


def names_of(kind: Kind) -> list[str]:
    """Return the names that a setting may hold: the built-ins and what is installed."""
    return [*BUILT_IN[kind], *dict.fromkeys(plugin.name for plugin in installed() if plugin.kind == kind)]


def distribution_of(point: EntryPoint) -> str:
    """Return the name of the distribution that offers the entry point."""
    return point.dist.name if point.dist else "an unnamed distribution"


def _listed(words: Iterable[str]) -> str:
    *others, last = sorted(words)
    return f"{', '.join(others)} and {last}" if others else last


def _memory_store(settings: SessionSettings) -> Store:
    """Return a new ``MemoryStore``; that of ``development`` outlives a reload (SECURITY R56)."""
    if settings.base_preset == "development":
        from sojourn.settings.development import development_store

        return development_store(settings.namespace, settings.key_ring(), settings.memory_max_sessions)
    from sojourn.stores.memory import MemoryStore

    return MemoryStore(max_sessions=settings.memory_max_sessions)


# Variables that look like settings but belong to nobody, most likely because they are misspelt.


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownVariable:
    """A variable that belongs neither to the core nor to an installed plugin."""

    name: str
    origin: str
    """``the environment`` or the path of the file."""
    nearest: str | None
    """The setting that was probably meant."""
    distribution: str | None
    """A distribution that would read it if it were installed."""

    def __str__(self) -> str:
        told = f"{self.name} (from {self.origin}) is no setting of sojourn or of an installed plugin"
        if self.nearest:
            return f"{told}; did you mean {self.nearest}?"
        if self.distribution:
            return f"{told}; it belongs to {self.distribution}, which is not installed"
        return f"{told}; run `sojourn config show` for the names that are"


def unknown_variables(
    names: Iterable[str], origin: str, *, known: Iterable[str], prefixes: Iterable[str], complete: Iterable[str] = ()
) -> list[UnknownVariable]:
    """Return those of *names* that begin with ``SOJOURN_``, are not *known* and are under none of the *prefixes*.

    A name under a plugin's prefix counts as the plugin's, unless it is all but equal to a known one of the same
    prefix: ``SOJOURN_COOKIE_`` is shared by the core and by the cookie store. Under the *complete* prefixes there is
    nothing but what is known.
    """
    settings = sorted(known)
    whole = frozenset(complete)
    theirs = sorted({*prefixes, *whole}, key=len, reverse=True)
    found: list[UnknownVariable] = []
    for name in sorted({name.upper() for name in names}):
        if not name.startswith(_PREFIX) or name in settings:
            continue
        prefix = next((prefix for prefix in theirs if name.startswith(prefix)), None)
        if prefix and prefix not in whole:
            shared = [setting for setting in settings if setting.startswith(prefix)]
            near = difflib.get_close_matches(name, shared, n=1, cutoff=_VERY_NEAR)
            if not near:
                continue
        else:
            meant = settings if prefix else [*settings, *_under(theirs, name)]
            near = difflib.get_close_matches(name, meant, n=1, cutoff=0.75)
        missing = next((dist for entry, dist in KNOWN_DISTRIBUTIONS.items() if name.startswith(_prefix(entry))), None)
        found.append(
            UnknownVariable(
                name=name,
                origin=origin,
                nearest=near[0] if near else None,
                distribution=None if prefix else missing,
            )
        )
    return found


def warn_about_unknown_variables(
    environ: Mapping[str, str] | None = None,
    dotenv_path: str | os.PathLike[str] | None = ".env",
    configured: Iterable[str] = (),
    plugins: Iterable[type[PluginSettings]] = (),
) -> list[UnknownVariable]:
    """Log a warning for every ``SOJOURN_*`` variable that nothing reads, with the nearest name; return them.

    *environ* is the environment of the process by default, *configured* are names in a framework's configuration,
    *plugins* the settings of those that are loaded. Values are neither read nor shown.
    """
    from sojourn.settings import LayeredSettings, SessionSettings
    from sojourn.settings.sources import names_in_env_file

    classes: list[type[LayeredSettings]] = [SessionSettings, *plugins]
    known = {each.variable_of(name) for each in classes for name in each.model_fields}
    given: list[tuple[str, Iterable[str]]] = [
        ("the environment", os.environ if environ is None else environ),
        ("the framework's configuration", configured),
    ]
    if dotenv_path is not None:
        path = Path(dotenv_path)
        given.append((str(path), names_in_env_file(path)))
    strange = [(origin, [name for name in names if name.upper() not in known]) for origin, names in given]
    if not any(name.upper().startswith(_PREFIX) for _, names in strange for name in names):
        # Spares reading the metadata of every distribution.
        return []
    prefixes = [_prefix(point.name) for point in entry_points(group=hookspecs.PROJECT_NAME)]
    prefixes += [prefix.replace(_PREFIX, f"{_PREFIX}FALLBACK_") for prefix in prefixes]
    complete = {each.variable_of("") for each in classes[1:]}
    found: list[UnknownVariable] = []
    for origin, names in strange:
        found += unknown_variables(names, origin, known=known, prefixes=prefixes, complete=complete)
    for variable in found:
        _log.warning("%s", variable)
    return found


def _under(prefixes: Iterable[str], name: str) -> list[str]:
    """Return the name with each of the prefixes instead of its own: ``SOJOURN_REDIS_URL`` for ``SOJOURN_REDSI_URL``."""
    rest = name.removeprefix(_PREFIX).partition("_")[2]
    return [prefix + rest for prefix in prefixes if rest]


def _prefix(entry_point: str) -> str:
    return f"{_PREFIX}{entry_point.partition('-')[2].replace('-', '_').upper()}_"
