"""Turn pydantic's findings into messages for the person who sets the variables.

The one rule: the value of a secret field is never part of a message (SECURITY R6).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import SecretBytes, SecretStr, ValidationError
from pydantic_settings import BaseSettings

_PLACES: Final = {
    "code": "given in code",
    "environment": "from the environment",
    ".env": "from .env",
    "secrets file": "from a secrets file",
    "preset": "from the preset",
}
_URL: Final = re.compile(r"([a-z][a-z0-9+.-]*)://.*", re.IGNORECASE | re.DOTALL)
_LONGEST_SHOWN: Final = 60


def variable_of(model: type[BaseSettings], name: str) -> str:
    """Return the environment variable of a field."""
    return f"{model.model_config.get('env_prefix') or ''}{name}".upper()


def is_secret(model: type[BaseSettings], name: str) -> bool:
    """Tell whether the field holds a secret: its type mentions ``SecretStr`` or ``SecretBytes``."""
    field = model.model_fields.get(name)
    return field is not None and _mentions_secret(field.annotation)


def _mentions_secret(annotation: Any) -> bool:
    if annotation in (SecretStr, SecretBytes):
        return True
    return any(_mentions_secret(part) for part in getattr(annotation, "__args__", ()))


def shown(value: object) -> str:
    """Show a value that is no secret: shortened, and without what follows ``://``, where passwords stand."""
    if isinstance(value, str):
        url = _URL.fullmatch(value.strip())
        if url:
            return f"'{url[1]}://...'"
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def explain(
    model: type[BaseSettings], error: ValidationError, origins: Mapping[str, str], values: Mapping[str, object]
) -> str:
    """Say for every finding which variable it is about, where its value came from and what to write instead."""
    lines: list[str] = []
    for finding in error.errors(include_url=False, include_input=False):
        name = str(finding["loc"][0]) if finding["loc"] else ""
        what = _advice(finding["type"], finding["msg"], finding.get("ctx", {}), values.get(name), model, name)
        if name not in model.model_fields:
            lines.append(what)
            continue
        place = _PLACES.get(origins.get(name, ""), "missing")
        value = f" = {shown(values[name])}" if name in values and not is_secret(model, name) else ""
        lines.append(f"{variable_of(model, name)}{value} ({place}): {what}")
    unique = list(dict.fromkeys(lines))
    if len(unique) == 1:
        return unique[0]
    return "\n  ".join((f"{len(unique)} settings are wrong:", *unique))


def _advice(
    kind: str, message: str, context: Mapping[str, Any], value: object, model: type[BaseSettings], name: str
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
            from sojourn.settings.values import HOW_TO_WRITE_A_DURATION

            return HOW_TO_WRITE_A_DURATION
        case "missing":
            return "set it"
        case _:
            return (
                re.sub(r"^[A-Z][a-z]+ should", "it must", message)
                .replace("a valid integer", "a whole number")
                .replace("a valid", "a")
            )


def _nearest(value: object, choices: list[str]) -> list[str]:
    if not isinstance(value, str):
        return []
    word = value.strip().lower()
    longer = [choice for choice in choices if word and choice.startswith(word)]
    return longer or difflib.get_close_matches(word, choices, n=1)
