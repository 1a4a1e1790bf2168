"""``sojourn keygen``: the one place that prints a secret, for it is new and nobody's yet."""

from __future__ import annotations

import argparse


def make_key(_arguments: argparse.Namespace) -> bool:
    """Print 43 characters for ``SOJOURN_SECRET`` (SECURITY R30)."""
    from sojourn.crypto import new_secret

    print(new_secret())
    return True
