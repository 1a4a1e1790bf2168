"""What the commands print: results on standard output, everything else on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

import click

WELL: Final = 0
WRONG: Final = 1
"""The exit codes of a command that found nothing wrong, and something."""

for_programs = click.option("--json", "as_json", is_flag=True, help="For programs.")

_EVERY: Final = 1000
"""How many sessions are gone through between two lines of progress, where no terminal shows it."""
_WIDE: Final = 1_000_000
"""The width of a table that nobody looks at, in columns: more than its lines have."""


@contextmanager
def progress(done: str) -> Generator[Callable[[int], None]]:
    """Show how far a long command is: as it goes on a terminal, else a line now and then; on standard error.

    *done* says what was done to each session: ``sealed anew``.
    """
    if not sys.stderr.isatty():
        yield lambda number: None if number % _EVERY else tell(f"{number} {done}, going on")
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.completed} " + done), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda number: bar.update(task, completed=number)


def print_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print *rows* under *heading* in columns; a terminal folds long cells, other readers get a line for each row."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in heading:
        table.add_column(Text(title), overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # as text: whatever a value holds, it is no markup
    console = Console()
    if console.is_terminal:
        console.print(table)
        return
    wide = Console(width=_WIDE)
    with wide.capture() as capture:
        wide.print(table)
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def tell(line: str) -> None:
    """Write a line to standard error."""
    click.echo(line, err=True)


def moment(when: datetime) -> str:
    """Return a moment as programs and people read it, in UTC."""
    return when.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
