"""How the switches of the page “Try to break it” stand: in plain memory, which several nodes can map from a file."""

from __future__ import annotations

import ctypes
import hmac
import mmap
import os
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Self

from sojourn import new_secret

LEVERS = "SHOP_LEVERS"
"""The variable that names the file of the levers, where several nodes share them."""


class Levers(ctypes.Structure):
    """How the switches stand."""

    _fields_ = (("is_down", ctypes.c_bool), ("rotations", ctypes.c_int), ("seed", ctypes.c_char * 64))
    is_down: bool
    rotations: int
    """How often the secret was changed."""
    seed: bytes

    @classmethod
    def new(cls) -> Self:
        """Return levers that nobody has moved."""
        return cls(seed=new_secret().encode())

    @classmethod
    def shared(cls) -> Self:
        """Return those of the environment, or new ones."""
        path = os.environ.get(LEVERS)
        if path is None:
            return cls.new()
        with Path(path).open("r+b") as file:
            return cls.from_buffer(mmap.mmap(file.fileno(), 0))

    def derive(self, purpose: str) -> str:
        """Return a secret for *purpose*, the same one on every node."""
        return urlsafe_b64encode(hmac.digest(self.seed, purpose.encode(), "sha256")).decode().rstrip("=")
