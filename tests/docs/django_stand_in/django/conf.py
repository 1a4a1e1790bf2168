"""The configuration of the stand-in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class Settings(SimpleNamespace):
    def configure(self, **values: Any) -> None:
        self.__dict__.update(values)


settings = Settings()
