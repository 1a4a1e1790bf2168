"""Let ``sojourn.testing`` name what ``sojourn_testing`` has; ``pip install "sojourn[testing]"`` brings it."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sojourn_testing import *  # noqa: F403 # pyright: ignore[reportWildcardImportFromLibrary] - its public names


def __getattr__(name: str) -> object:
    # What the import system asks every module for is this module's own.
    if name.startswith("__") and name != "__all__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module("sojourn_testing"), name)
    except ModuleNotFoundError as error:
        if error.name == "sojourn_testing":
            error.msg = 'sojourn.testing is in the distribution sojourn-testing: pip install "sojourn[testing]"'
        raise
