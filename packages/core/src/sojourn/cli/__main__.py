"""Make ``python -m sojourn.cli`` the same as the command ``sojourn``."""

from __future__ import annotations

import sys

from sojourn.cli import main

if __name__ == "__main__":
    sys.exit(main())
