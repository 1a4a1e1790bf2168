"""Where settings come from: code > environment > .env > secrets file > framework > preset > default.

Every value remembers its source. No error repeats a secret, neither in its message nor in a chained exception
(SECURITY R6).
"""

from __future__ import annotations

import codecs
import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal, TypeAlias, cast, get_args

from pydantic import PrivateAttr, SecretBytes, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from sojourn.errors import ConfigurationError, PluginConflictError
from sojourn.settings.types import HOW_TO_WRITE_A_DURATION, write_duration

Origin: TypeAlias = Literal["code", "environment", ".env", "secrets file", "framework", "preset", "default"]
ORIGINS: Final[tuple[Origin, ...]] = get_args(Origin)
"""The places of a value, the first one winning."""
Presets: TypeAlias = Mapping[str, Mapping[str, object]]

ENV_FILE: Final = ".env"
"""Read from the working directory; variables of other programs in it are ignored."""
DEFAULT_SECRETS_DIRECTORY: Final = "/run/secrets"
"""Where container engines mount secrets; read only when it exists."""
DEFAULT_PRESET: Final = "production"
"""No preset named means production (SECURITY R30)."""

_PLACES: Final = {
    "code": "given in code",
    "environment": "from the environment",
    ".env": "from .env",
    "secrets file": "from a secrets file",
    "framework": "from the framework's own settings",
    "preset": "from the preset",
}
_URL: Final = re.compile(r"([a-z][a-z0-9+.-]*)://.*", re.IGNORECASE | re.DOTALL)
_LONGEST_SHOWN: Final = 60
_SAMPLE: Final = 4096
"""How many bytes at the beginning of an env file tell whether it is text."""
_NOT_SET: Final = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Where values come from beside the arguments: files and the preset. None: as the variables say.

    *variables* are ``SOJOURN_*`` names and values that count as given in code, for whoever's settings they are.
    *framework* are fields that a framework's own settings stand for; whatever names sojourn's own wins over them.
    *presets* are the application's own. With *is_fallback* ``SOJOURN_FALLBACK_REDIS_URL`` counts before
    ``SOJOURN_REDIS_URL``, and so on.
    """

    env_file: str | os.PathLike[str] | None = ENV_FILE
    secrets_dir: str | os.PathLike[str] | None = None
    preset: str | None = None
    variables: Mapping[str, object] = field(default_factory=dict[str, object], repr=False)
    framework: Mapping[str, object] = field(default_factory=dict[str, object], repr=False)
    presets: Presets = field(default_factory=dict[str, Mapping[str, object]], repr=False)
    is_fallback: bool = False


class LayeredSettings(BaseSettings):
    """The parent of every settings class: takes each value from the first source that has it, and remembers which."""

    model_config = SettingsConfigDict(
        extra="ignore", frozen=True, env_ignore_empty=True, hide_input_in_errors=True, protected_namespaces=()
    )

    presets: ClassVar[Presets] = {}

    _origins: dict[str, Origin] = PrivateAttr(default_factory=dict)
    _surroundings: Surroundings = PrivateAttr(default_factory=Surroundings)

    def __init__(self, *, _surroundings: Surroundings | None = None, **values: Any) -> None:
        """Read every source and validate; raises ``ConfigurationError`` naming the variable, never a secret."""
        surroundings = _surroundings or Surroundings()
        refuse_unknown_names(type(self), values)
        layers = read_layers(type(self), values, surroundings)
        merged: dict[str, Any] = {}
        origins: dict[str, Origin] = {}
        for origin, layer in layers:
            for name, value in layer.items():
                if name not in merged:
                    merged[name] = value
                    origins[name] = origin
        problem: str
        try:
            # Past BaseSettings, which would go through the fields three times for sources of its own.
            super(BaseSettings, self).__init__(**merged)
        except ValidationError as error:
            problem = explain(type(self), error, origins, merged)
        else:
            self._origins = origins
            self._surroundings = surroundings
            return
        # Raised outside the handler, because a chained ValidationError would hold the input (SECURITY R6).
        raise ConfigurationError(problem)

    @classmethod
    def values_of_preset(cls, name: str, own: Presets) -> dict[str, object]:  # noqa: ARG003 - for who extends presets
        """Return what the preset sets, by field; *own* are presets that were given in code."""
        return dict(cls.presets.get(name, {}))

    def origin_of(self, name: str) -> Origin:
        """Return where the value of the field *name* came from."""
        refuse_unknown_names(type(self), (name,))
        return self._origins.get(name, "default")

    @classmethod
    def variable_of(cls, name: str) -> str:
        """Return the environment variable of the field *name*: ``SOJOURN_IDLE_TIMEOUT``."""
        return f"{cls.model_config.get('env_prefix') or ''}{name}".upper()


def refuse_unknown_names(model: type[LayeredSettings], names: Mapping[str, object] | tuple[str, ...]) -> None:
    """Raise ``ConfigurationError`` for the first name that is no field, with the nearest one and all choices."""
    fields = model.model_fields
    for name in names:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ConfigurationError(
                f"there is no setting called {name!r}; {hint}The settings are: {', '.join(fields)}"
            )


PresetName: TypeAlias = Literal["development", "testing", "production", "high_security", "clustered"]

RELAXED_PRESETS: Final = frozenset({"development", "testing"})
"""The presets that allow a weak secret and a cookie without Secure (SECURITY R18, R30)."""

_RELAXED: Final = MappingProxyType(
    {
        "cookie_name": "sojourn",
        "cookie_secure": False,
        "compress": False,
        "breaker": False,
        "retry_attempts": 0,
        "check_round_trip": True,
        "report_node": False,
    }
)
_PRODUCTION: Final = MappingProxyType(
    {
        "idle_timeout": timedelta(hours=1),
        "absolute_timeout": timedelta(hours=24),
        "on_unavailable": "strict",
        "breaker": True,
        "retry_attempts": 2,
        "compress_over": 1024,
        "max_session_bytes": 64 * 1024,
        "max_anonymous_bytes": 16 * 1024,
    }
)

SESSION_PRESETS: Final[Presets] = MappingProxyType(
    {
        "development": MappingProxyType(
            {**_RELAXED, "idle_timeout": timedelta(minutes=30), "absolute_timeout": timedelta(hours=24)}
        ),
        "testing": MappingProxyType(
            {**_RELAXED, "idle_timeout": timedelta(minutes=5), "absolute_timeout": timedelta(hours=1)}
        ),
        "production": _PRODUCTION,
        "high_security": MappingProxyType(
            {
                **_PRODUCTION,
                "idle_timeout": timedelta(minutes=15),
                "absolute_timeout": timedelta(hours=12),
                "encrypt": True,
                "binding": "reject",
                "renew_after": timedelta(minutes=10),
            }
        ),
        "clustered": MappingProxyType({**_PRODUCTION, "store": "clustered-redis"}),
    }
)
"""What each preset sets. The clustered store brings its own values for the local cache (``PluginSettings.presets``)."""

EXTENDS: Final = "extends"
"""The key under which a preset names the one whose values it takes where it has none; `production` without it."""


@dataclass(frozen=True, slots=True)
class Preset:
    """The values of a preset and of those that it extends, and the one of the five at the end of that row."""

    base: PresetName = field(repr=False)
    values: Mapping[str, object] = field(repr=False)


def resolve_preset(name: str, known: Presets) -> Preset | None:
    """Return the preset *name*: one of *known*, or the entry point ``preset-<name>`` of a package; None when there is none.

    Raises ``ConfigurationError`` for one that extends itself, or what does not exist.
    """
    values: dict[str, object] = {}
    row: list[str] = []
    while name not in SESSION_PRESETS:
        found = known.get(name)
        if found is None:
            found = _installed_preset(name)
        if found is None:
            if not row:
                return None
            raise ConfigurationError(f"the preset {row[-1]!r} extends {name!r}, and there is no such preset")
        row.append(name)
        values = {**{key: value for key, value in found.items() if key != EXTENDS}, **values}
        name = cast("Any", found.get(EXTENDS, DEFAULT_PRESET))
        if not isinstance(cast("object", name), str) or name in row:
            raise ConfigurationError(f"the preset {row[0]!r} extends itself: {' -> '.join([*row, str(name)])}")
    return Preset(cast("PresetName", name), {**known.get(name, {}), **values})


def _installed_preset(name: str) -> Mapping[str, object] | None:
    """Return what a package offers as a preset; only the one that is named is imported."""
    points = list(entry_points(group="sojourn", name=f"preset-{name}"))
    if not points:
        return None
    if len(points) > 1:
        offering = ", ".join(point.dist.name if point.dist else "an unnamed distribution" for point in points)
        raise PluginConflictError(f"{len(points)} distributions offer preset-{name}: {offering}; uninstall all but one")
    loaded: object = points[0].load()
    if not isinstance(loaded, Mapping):
        msg = f"preset-{name} ({points[0].value}) is a {type(loaded).__name__}, not a mapping of settings to values"
        raise ConfigurationError(msg)
    return cast("Mapping[str, object]", loaded)


def read_layers(
    model: type[LayeredSettings], values: Mapping[str, Any], surroundings: Surroundings
) -> list[tuple[Origin, dict[str, Any]]]:
    """Return the values of each source for the fields of *model*, the first source first."""
    prefix = model.variable_of("")
    layers: list[tuple[Origin, dict[str, Any]]] = []
    if surroundings.is_fallback:
        layers += _read_sources(model, {}, surroundings, prefix.replace("SOJOURN_", "SOJOURN_FALLBACK_", 1))
    layers += _read_sources(model, values, surroundings, prefix)
    if surroundings.framework:
        layers.append(("framework", dict(surroundings.framework)))
    preset = surroundings.preset or _first(layers, "preset") or DEFAULT_PRESET
    if isinstance(preset, str):
        layers.append(("preset", model.values_of_preset(preset, surroundings.presets)))
    return layers


def _read_sources(
    model: type[LayeredSettings], values: Mapping[str, Any], surroundings: Surroundings, prefix: str
) -> list[tuple[Origin, dict[str, Any]]]:
    """Return the values of each source for variables under *prefix*."""
    configured = {name: surroundings.variables.get(f"{prefix}{name}".upper()) for name in model.model_fields}
    given = {name: value for name, value in configured.items() if value is not None}
    layers: list[tuple[Origin, dict[str, Any]]] = [("code", {**given, **values})]
    # The source looks for every field by itself, which takes longer than all the rest.
    if any(name.upper().startswith(prefix) for name in os.environ):
        layers.append(("environment", _read(EnvSettingsSource(model, env_prefix=prefix), model, "the environment")))
    if surroundings.env_file is not None and Path(surroundings.env_file).is_file():
        path = Path(surroundings.env_file)
        encoding = encoding_of(path)
        dotenv = DotEnvSettingsSource(model, env_file=path, env_file_encoding=encoding, env_prefix=prefix)
        layers.append((".env", _read(dotenv, model, str(path))))
    directory = _secrets_directory(surroundings.secrets_dir or _first(layers, "secrets_dir"))
    if directory is not None:
        files = SecretsSettingsSource(model, secrets_dir=directory, env_prefix=prefix)
        layers.append(("secrets file", _read(files, model, str(directory))))
    return layers


def encoding_of(path: Path) -> str:
    """Return an encoding that decodes the file, which may hold anything; the names in it are ASCII.

    Raises ``ConfigurationError`` when the file cannot be read at all.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror}); mend it or move it away") from error
    # as some editors and shells of Windows write
    is_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        sample = content.decode("utf-16")[:_SAMPLE] if is_utf_16 else content[:_SAMPLE].decode("latin-1")
        # in UTF-16 without its mark, or in UTF-32, no name would be found, and nothing would say so
        if "\0" in sample:
            raise ConfigurationError(
                f"{path} is no text in UTF-8; save it as UTF-8, or with a byte order mark as UTF-16"
            )
        if is_utf_16:
            return "utf-16"
        content.decode("utf-8")
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig" if content.startswith(codecs.BOM_UTF8) else "utf-8"


def names_in_env_file(path: Path) -> list[str]:
    """Return the names of all variables in an env file, in upper case; none when there is no such file."""
    if not path.is_file():
        return []
    source = DotEnvSettingsSource(LayeredSettings, env_file=path, env_file_encoding=encoding_of(path))
    return [name.upper() for name in source.env_vars]


def _read(source: PydanticBaseSettingsSource, model: type[LayeredSettings], place: str) -> dict[str, Any]:
    """Return the fields of *model* from one source of pydantic-settings; its errors are raised without the value."""
    problem: str
    try:
        found = source()
    except SettingsError as error:
        # The message is 'error parsing value for field "x" from source "y"'; the cause holds the text of the value,
        # which may be a secret.
        named = [name for name in model.model_fields if f'"{name}"' in str(error)]
        variable = model.variable_of(named[0]) if named else "a setting"
        problem = f"{variable}, from {place}, {_reason(error.__cause__)}"
    else:
        return {name: value for name, value in found.items() if name in model.model_fields}
    raise ConfigurationError(problem)


def _reason(cause: BaseException | None) -> str:
    match cause:
        case OSError():
            return f"cannot be read ({cause.strerror}); mend its permissions"
        case UnicodeDecodeError():
            return "is not UTF-8; a random key is written as text, see `sojourn keygen`"
        case _:
            return "cannot be read; write it as JSON"


def _first(layers: list[tuple[Origin, dict[str, Any]]], name: str) -> Any:
    return next((layer[name] for _, layer in layers if layer.get(name) is not None), None)


def _secrets_directory(named: str | os.PathLike[str] | None) -> Path | None:
    if named is None:
        default = Path(DEFAULT_SECRETS_DIRECTORY)
        return default if default.is_dir() else None
    directory = Path(named)
    if not directory.is_dir():
        raise ConfigurationError(f"SOJOURN_SECRETS_DIR names {directory}, which is no directory; make it or unset it")
    return directory


# Errors of pydantic, turned into messages for the person who sets the variables.


def is_secret(model: type[LayeredSettings], name: str) -> bool:
    """Return whether the field holds a secret: its type mentions ``SecretStr`` or ``SecretBytes``."""
    field = model.model_fields.get(name)
    return field is not None and _mentions_secret(field.annotation)


def _mentions_secret(annotation: Any) -> bool:
    if annotation in (SecretStr, SecretBytes):
        return True
    return any(_mentions_secret(part) for part in getattr(annotation, "__args__", ()))


def shown(value: object) -> str:
    """Return a value that is no secret for a message: shortened, and without what follows ``://``, as passwords do."""
    if isinstance(value, str):
        url = _URL.fullmatch(value.strip())
        if url:
            return f"'{url[1]}://...'"
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def explain(
    model: type[LayeredSettings], error: ValidationError, origins: Mapping[str, str], values: Mapping[str, object]
) -> str:
    """Return one line for each error: the variable, where its value came from, and what to write instead."""
    lines: list[str] = []
    for finding in error.errors(include_url=False, include_input=False):
        name = str(finding["loc"][0]) if finding["loc"] else ""
        what = _advice(finding["type"], finding["msg"], finding.get("ctx", {}), values.get(name), model, name)
        if name not in model.model_fields:
            lines.append(what)
            continue
        place = _PLACES.get(origins.get(name, ""), "missing")
        value = f" = {shown(values[name])}" if name in values and not is_secret(model, name) else ""
        lines.append(f"{model.variable_of(name)}{value} ({place}): {what}")
    unique = list(dict.fromkeys(lines))
    if len(unique) == 1:
        return unique[0]
    return "\n  ".join((f"{len(unique)} settings are wrong:", *unique))


def _advice(
    kind: str, message: str, context: Mapping[str, Any], value: object, model: type[LayeredSettings], name: str
) -> str:
    match kind:
        case "value_error":
            return str(context["error"])
        case "literal_error":
            expected = str(context["expected"])
            near = () if is_secret(model, name) else _nearest(value, re.findall(r"'([^']*)'", expected))
            return f"choose {expected}" + (f"; did you mean {near[0]}?" if near else "")
        case "bool_parsing" | "bool_type":
            return "write true or false"
        case "time_delta_parsing" | "time_delta_type":
            return HOW_TO_WRITE_A_DURATION
        case _ if kind.startswith(("date", "timezone")):
            return "write it such as 2027-01-31" + ("" if kind.startswith("date_") else "T12:00:00Z, with its zone")
        case "missing":
            return "set it"
        case _:
            return (
                re.sub(r"^[A-Z][a-z]+ should", "it must", message)
                .replace("a valid integer", "a whole number")
                .replace("a valid", "a")
            )


def choose(model: type[LayeredSettings], name: str, origin: str, value: object, choices: Sequence[str]) -> str:
    """Return the message for a value that is none of the *choices*."""
    near = _nearest(value, [*choices])
    listed = ", ".join(map(repr, choices[:-1])) + f" or {choices[-1]!r}"
    return f"{model.variable_of(name)} = {shown(value)} ({_PLACES.get(origin, 'default')}): choose {listed}" + (
        f"; did you mean {near[0]}?" if near else ""
    )


def _nearest(value: object, choices: list[str]) -> list[str]:
    if not isinstance(value, str):
        return []
    word = value.strip().lower()
    longer = [choice for choice in choices if word and choice.startswith(word)]
    return longer or difflib.get_close_matches(word, choices, n=1)


# Values for people who look at settings.


def write_value(model: type[LayeredSettings], name: str, value: object) -> str:
    """Return *value* of the field *name* as a variable holds it: ``30m``, ``true``, ``a,b``, ``auto``, ``off``.

    A secret is written as ``(set)`` (SECURITY R6), what is not set as ``-``.
    """
    if value is None:
        return _word_for_none(model, name)
    members = _members(value)
    if is_secret(model, name):
        return "(set)" if members is None else f"({len(members)} set)" if members else _NOT_SET
    if members is not None:
        return ",".join(map(str, members)) or _NOT_SET
    match value:
        case bool():
            return "true" if value else "false"
        case timedelta():
            return write_duration(value)
        case _:
            return str(value) or _NOT_SET


def _members(value: object) -> tuple[object, ...] | None:
    return cast("tuple[object, ...]", value) if isinstance(value, tuple) else None


def _word_for_none(model: type[LayeredSettings], name: str) -> str:
    """Return the word that reads as None: a choice is left to the store, a limit is off, text is not set."""
    field = model.model_fields[name]
    if not field.metadata:  # and so nothing that reads a word
        return _NOT_SET
    choices = str(get_args(field.annotation))
    if "bool" in choices:
        return "auto"
    return "off" if "timedelta" in choices or "int" in choices else _NOT_SET
