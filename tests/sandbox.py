"""Make a build sandbox, which lays our distributions beside the tests, look like an environment that holds them.

Its one rule: where they are installed, nothing is done.
"""

import os
import stat
import sys
import tempfile
from pathlib import Path

COMMAND = """#!{python}
import sys

sys.path[:0] = {paths!r}
from sojourn_cli import main

sys.exit(main())
"""


def furnish() -> None:
    """Offer this process and those that it starts the entry points, the modules and the command of the packages."""
    wheels = [str(wheel) for wheel in sorted(Path.cwd().glob("sojourn*.whl"))]
    if not wheels:
        return
    sys.path += wheels
    paths = [str(Path(entry).absolute()) for entry in sys.path if entry]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    folder = Path(tempfile.mkdtemp(prefix="sojourn-commands-"))
    command = folder / "sojourn"
    command.write_text(COMMAND.format(python=sys.executable, paths=paths))
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    os.environ["PATH"] = os.pathsep.join([str(folder), os.environ.get("PATH", os.defpath)])
