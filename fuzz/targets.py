"""All targets by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from fuzz.plain import PLAIN_TARGETS
from fuzz.sealed import SEALED
from fuzz.target import Target

TARGETS: Final[Mapping[str, Target]] = MappingProxyType({target.name: target for target in (*SEALED, *PLAIN_TARGETS)})
