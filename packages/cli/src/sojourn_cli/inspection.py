"""The command ``sojourn inspect``: what a cookie value leads to; neither the value nor the data of the session is shown."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from sojourn_cli.output import WELL, WRONG, for_programs, moment, print_table
from sojourn_cli.sessions import open_manager

if TYPE_CHECKING:
    from sojourn import Inspection
    from sojourn.settings import SessionSettings

_MEANINGS = {
    "none": "this is no value of our cookie: it has another form, or was cut",
    "loaded": "a session",
    "expired": "a session that expired",
    "unknown": "well-formed, but the store knows no such session: it ended, or was never here",
    "corrupt": "damaged, forged, or sealed for another cookie name, namespace or key",
    "future": "sealed with a key, serializer or format that these settings do not have",
    "unavailable": "the store does not answer",
}


@click.command("inspect")
@for_programs
def inspect_cookie(*, as_json: bool) -> int:
    """Explain a cookie value, which is read from standard input or asked for; exit code 1 when it leads to no session."""
    if sys.stdin.isatty():
        value = str(click.prompt("value of the cookie", hide_input=True, err=True))
    else:
        value = sys.stdin.read()
    with open_manager() as manager:
        name = manager.settings.cookie_name
        found = manager.blocking.inspect(_bare(value, name))
        told = {"store": manager.settings.store, "cookie": name, **_described(found, manager.settings)}
    if as_json:
        click.echo(json.dumps(told))
    else:
        print_table(("WHAT", "VALUE"), [(what, "-" if value is None else str(value)) for what, value in told.items()])
    return WELL if found.outcome.value == "loaded" else WRONG


def _bare(value: str, name: str) -> str:
    """Return the value of what was copied from a header or a browser: ``Cookie: name=value; other=...``."""
    text = value.strip().removeprefix("Set-Cookie:").removeprefix("Cookie:").strip()
    pairs = [pair.strip() for pair in text.split(";")]
    return next((pair.removeprefix(f"{name}=") for pair in pairs if pair.startswith(f"{name}=")), pairs[0]).strip('"')


def _described(found: Inspection, settings: SessionSettings) -> dict[str, str | int | None]:
    known = {key.id.hex() for key in settings.key_ring().keys}
    outcome = found.outcome.value
    key = found.key and f"{found.key} ({'in' if found.key in known else 'NOT in'} these settings)"
    return {
        "outcome": outcome,
        "meaning": _MEANINGS.get(outcome, outcome),
        "id": found.id or None,
        "format": found.format,
        "suite": found.suite or None,
        "key": key or None,
        "sealed_on": found.sealed_on.isoformat() if found.sealed_on else None,
        "bytes": found.size or None,
        "principal_hash": found.principal,
        "client": found.client or None,
        "began": moment(found.began) if found.began else None,
        "expires": moment(found.expires) if found.expires else None,
    }
