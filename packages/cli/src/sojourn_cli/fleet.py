"""The commands ``sojourn nodes`` and ``sojourn keys``: the running processes, and the next safe step of a change of keys."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from sojourn.errors import ConfigurationError
from sojourn_cli.output import WELL, WRONG, for_programs, moment, print_table, tell
from sojourn_cli.sessions import counted, open_manager

if TYPE_CHECKING:
    from sojourn import Node
    from sojourn.settings import SessionSettings

_HEADINGS = ("NODE", "PROCESS", "VERSION", "SEEN", "SEALS WITH", "OPENS TOO", "HAS SET OTHERWISE")
COOKIES = (
    "sessions live in the cookie, so nobody can know which processes serve them: make sure of each step by yourself, on "
    "every process, before the next one"
)
NOBODY = (
    "no process told of itself within the last five minutes: none has had a request, SOJOURN_REPORT_NODE is off there, or "
    "these settings lead to another store or namespace"
)


_RETIRED = """SOJOURN_RETIRED_SECRETS, a JSON list such as '["..."]' (or the file sojourn_retired_secrets)"""


@click.command()
@for_programs
def nodes(*, as_json: bool) -> int:
    """List the processes that serve the sessions of the store, and what they have set otherwise."""
    with open_manager() as manager:
        settings = manager.settings
        if _in_cookies(settings):
            tell(f"error: {COOKIES}")
            return WRONG
        found = manager.blocking.nodes()
    if as_json:
        click.echo(json.dumps({"nodes": [_described(node, settings) for node in found]}, indent=2))
    elif found:
        print_table(_HEADINGS, [_row(node, settings) for node in found])
    else:
        tell(NOBODY)
    return WELL


def _in_cookies(settings: SessionSettings) -> bool:
    from sojourn.plugins import find_store

    return bool(getattr(find_store(settings.store, settings), "client_side", False))


def _described(node: Node, settings: SessionSettings) -> dict[str, object]:
    return {
        "name": node.name or None,
        "process": node.process or None,
        "version": node.version or None,
        "began": moment(node.began),
        "seen": moment(node.seen),
        "keys": list(node.keys),
        "differs": node.differs(settings),
    }


def _row(node: Node, settings: SessionSettings) -> tuple[str, ...]:
    if not node.name:
        return ("under a key that these settings do not have", "-", "-", moment(node.seen), node.keys[0], "-", "-")
    others, differs = " ".join(node.keys[1:]), " ".join(node.differs(settings))
    return (node.name, str(node.process), node.version, moment(node.seen), node.keys[0], others or "-", differs or "-")


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next, and whether these settings may be deployed now."""

    is_safe: bool
    advice: str


def next_step(ours: Sequence[str], fleet: Sequence[Sequence[str]], records: Mapping[str, int]) -> Step:
    """Return the step that is safe when processes with the keys *fleet* are to get the keys *ours*, the first of each seals.

    *records* tells how many records each key encrypts.
    """
    mine, sealing = set(ours), {keys[0] for keys in fleet}
    unknown = sorted(sealing - mine)
    if unknown:
        number = sum(keys[0] in unknown for keys in fleet)
        return Step(
            False,
            f"{number} of {len(fleet)} processes seal with the key {' '.join(unknown)}, which is not in these settings: what "
            f"they write could not be opened. Put it into {_RETIRED}",
        )
    behind = [keys for keys in fleet if ours[0] not in keys]
    if behind:
        return Step(
            False,
            f"{len(behind)} of {len(fleet)} processes do not know the key {ours[0]}, with which these settings seal: they could "
            f"not open what is written. First deploy it in {_RETIRED}, behind the key that seals now, to every "
            "process; then ask again",
        )
    needed = {key: number for key, number in records.items() if key and key not in mine}
    if needed:
        number = sum(needed.values())
        return Step(
            False,
            f"{number} records are still under the key {' '.join(sorted(needed))}, which is not in these settings: keep it in "
            "SOJOURN_RETIRED_SECRETS until they are over, or run `sojourn sessions rekey` first",
        )
    missing = [key for key in ours if any(key not in keys for keys in fleet)]
    if missing:
        told = " ".join(missing)
        return Step(
            True, f"deploy these settings: they make the key {told} known, and it does not seal yet. Then ask again"
        )
    if any(keys[0] != ours[0] for keys in fleet):
        return Step(
            True, f"deploy these settings: every process knows the key {ours[0]}, so it may seal now. Then ask again"
        )
    dropped = {key for keys in fleet for key in keys} - mine
    if dropped:
        return Step(
            True,
            f"deploy these settings: no record is under the key {' '.join(sorted(dropped))} any more, so it may go",
        )
    others = list(ours[1:])
    if not others:
        return Step(
            True,
            f"all processes have this one key. To change it put a new one (`sojourn keygen`) into {_RETIRED}, and "
            "ask with those settings",
        )
    used = {key: records.get(key, 0) for key in others}
    waits = [f"{number} records are under {key}" for key, number in used.items() if number]
    if waits:
        return Step(
            True,
            f"{'; '.join(waits)}: wait until they are over, the absolute timeout at most or the longest login(remember=), or run "
            "`sojourn sessions rekey`; then take the key out, and ask with those settings",
        )
    told = " ".join(others)
    return Step(
        True,
        f"all processes know the key {told}, and no record is under it. If it is the new one, make it the first of "
        f"SOJOURN_SECRETS and put the other one into {_RETIRED}; if it is the old one, take it out. Ask with those "
        "settings before they are deployed",
    )


@click.group()
def keys() -> None:
    """Change the key that seals sessions, and log nobody out."""


@keys.command()
@click.option("--step", is_flag=True, required=True, help="Say which step is safe now; nothing is changed.")
@for_programs
def rotate(*, step: bool, as_json: bool) -> int:
    """Say whether these settings may be deployed now, by what the processes of the fleet have, and what comes next.

    Run it in the environment that the next deployment is to have. Exit code 1 when it is not safe.
    """
    del step
    with open_manager() as manager:
        if _in_cookies(manager.settings):
            raise ConfigurationError(f"{COOKIES}. The steps are in docs/operations.md, changing the secret")
        found = [node.keys for node in manager.blocking.nodes()]
        if not found:
            raise ConfigurationError(NOBODY)
        ours = [key.id.hex() for key in manager.settings.key_ring().keys]
        with counted(manager, "looked at", goes_on=False) as done:
            records = manager.blocking.keys_in_use(done)
    told = next_step(ours, found, records)
    if as_json:
        click.echo(
            json.dumps({"safe": told.is_safe, "advice": told.advice, "processes": len(found), "records": records})
        )
    else:
        click.echo(f"{'safe' if told.is_safe else 'NOT SAFE'}: {told.advice}")
    return WELL if told.is_safe else WRONG
