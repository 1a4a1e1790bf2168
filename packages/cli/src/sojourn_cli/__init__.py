"""The command ``sojourn``: make a key, look at plugins and settings, check them before a deployment, move to a new key.

No secret is ever printed, but the new one of ``keygen`` (SECURITY R6). Exit codes: 0 well, 1 wrong, 2 misused.
"""

from __future__ import annotations

from sojourn_cli.command import main

__all__ = ["main"]
