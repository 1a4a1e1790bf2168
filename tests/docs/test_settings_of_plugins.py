from __future__ import annotations

from typing import cast

import pytest

from release import reference
from sojourn.plugins import BUILT_IN, Kind, PluginLoader, installed
from sojourn.settings import LayeredSettings, SessionSettings
from sojourn_contrib_migrate.plugin import ReaderSettings


def settings_of_plugins() -> list[type[LayeredSettings]]:
    """Return the classes that declare the settings of the plugins of this repository."""
    loader = PluginLoader(SessionSettings(preset="testing", _env_file=None))
    for plugin in installed():
        if plugin.kind in BUILT_IN and plugin.distribution.startswith("sojourn-"):
            loader.load(cast("Kind", plugin.kind), plugin.name)
    # Each reader has a class of its own, which differs in the prefix alone.
    return list(
        dict.fromkeys(next(k for k in kind.__mro__ if "__annotations__" in vars(k)) for kind in loader.settings())
    )


PLUGINS = settings_of_plugins()


def test_the_reference_has_the_settings_of_every_plugin() -> None:
    assert {*PLUGINS} == {*reference.PACKAGES.values(), ReaderSettings}


@pytest.mark.parametrize("kind", [SessionSettings, *PLUGINS], ids=lambda kind: kind.__name__)
def test_every_setting_says_what_it_does(kind: type[LayeredSettings]) -> None:
    assert [name for name, field in kind.model_fields.items() if not field.description] == []
