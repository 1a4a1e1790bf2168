"""Run the command ``sojourn``; ``pip install "sojourn[cli]"`` brings it."""

import sys
from importlib import import_module

if __name__ == "__main__":
    try:
        command = import_module("sojourn_cli")
    except ModuleNotFoundError as error:
        if error.name != "sojourn_cli":
            raise
        sys.exit('the command is in the distribution sojourn-cli: pip install "sojourn[cli]"')
    sys.exit(command.main())
