"""From settings to the parts that they name: store, serializer, cipher, metrics and observers.

Its one rule: what is handed in wins, and what is not named is not imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sojourn.plugins import PluginDoor, warn_about_unknown_variables

if TYPE_CHECKING:
    from sojourn.settings import SessionSettings


def complete(settings: SessionSettings, parts: dict[str, Any]) -> dict[str, Any]:
    """Return *parts*, keywords of SessionManager, with everything else that the settings name."""
    warn_about_unknown_variables(dotenv_path=settings.surroundings.env_file)
    door = PluginDoor(settings)
    if "store" not in parts:
        parts["store"] = door.store(settings.store)
    if settings.revocation_store is not None and "revocation_store" not in parts:
        parts["revocation_store"] = door.store(settings.revocation_store)
    parts.setdefault("serializer", None if settings.serializer == "json" else door.serializer(settings.serializer))
    parts.setdefault("cipher", door.cipher(settings.cipher))
    parts.setdefault("metrics", door.metrics(settings.metrics))
    parts["observers"] = (*door.observers(), *parts.get("observers", ()))
    return parts
