"""The command ``sojourn sql``: make the table of the sessions, bring it up to date, tell its version.

Only the package sojourn-cli imports this module, and brings click with it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
from sqlalchemy.exc import SQLAlchemyError

from sojourn.errors import ConfigurationError
from sojourn_store_sql.schema import VERSION, make_table, upgrade, version_of

if TYPE_CHECKING:
    from sqlalchemy import Table

    from sojourn_store_sql.address import Address


@click.group()
def command() -> None:
    """Work on the schema of the store sql."""


@command.command()
def init() -> None:
    """Make the table of the sessions; does nothing where it is."""
    _bring_up_to_date()


@command.command("upgrade")
def upgrade_command() -> None:
    """Bring the table of the sessions to the version of this release; safe to repeat, and while sessions are in use."""
    _bring_up_to_date()


@command.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(*, as_json: bool) -> int:
    """Tell which version of the schema the database has; exit code 1 when it is not that of this release."""
    address, table = _settings()
    try:
        with address.engine().connect() as connection:
            found = version_of(connection, table)
    except SQLAlchemyError as error:
        raise _unreachable(address, error) from error
    if as_json:
        click.echo(json.dumps({"table": table.name, "version": found, "wanted": VERSION}))
    elif found is None:
        click.echo(f"{table.name}: not there; run `sojourn sql init`")
    elif found < VERSION:
        click.echo(f"{table.name}: version {found} of {VERSION}; run `sojourn sql upgrade`")
    else:
        click.echo(f"{table.name}: version {found}")
    return 0 if found == VERSION else 1


def _bring_up_to_date() -> None:
    address, table = _settings()
    try:
        with address.engine().begin() as connection:
            before = version_of(connection, table)
            upgrade(connection, table)
    except SQLAlchemyError as error:
        raise _unreachable(address, error) from error
    click.echo(f"{table.name}: version {VERSION}{'' if before is None else f', was {before}'}")


def _settings() -> tuple[Address, Table]:
    from sojourn.settings import SessionSettings
    from sojourn_store_sql.settings import SqlSettings

    settings = SessionSettings()
    own = SqlSettings.build(settings)
    return own.address(), make_table(own.namespace or settings.namespace)


def _unreachable(address: Address, error: SQLAlchemyError) -> ConfigurationError:
    reason = str(getattr(error, "orig", None) or error).strip().split("\n", 1)[0]
    return ConfigurationError(f"the database {address.name} cannot be used: {reason}; mend SOJOURN_SQL_URL or start it")
