"""The commands ``sojourn sessions``, and ``sojourn inspect`` of one cookie, by the settings alone.

They know nothing of the application's model and show nothing of a session's data (SECURITY R58).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from sojourn import ForeignSession, Session, SessionInfo, SessionManager
from sojourn.errors import ConfigurationError, SessionUnavailableError, SojournError
from sojourn_cli.output import WELL, WRONG, for_programs, moment, print_table, progress, tell

if TYPE_CHECKING:
    from sojourn import Inspection
    from sojourn.settings import SessionSettings

_PAGE: Final = 500
"""How many sessions of a principal are asked for at once."""
_HEADINGS: Final = ("ID", "BEGAN", "LAST SEEN", "EXPIRES", "CLIENT")
_ANSWERS: Final = {
    "refused": "start it, or correct host and port of {url}",
    "name not found": "correct the name in {url}",
    "timeout": "look at the load of the server and at the line to it, or raise the time-out of the store",
    "wrong server": "correct {url}: redis://, redis+sentinel:// or redis+cluster://, the port and the number of the database",
    "auth": "correct user and password of {url}",
    "no table": "run `sojourn sql init`",
    "tls": "renew the certificate, or name its authority in {url}",
}
ONE_PLACE: Final = (
    "the fallback store is where SOJOURN_STORE is, so no session from before is found; name the server or namespace of before, "
    "as by SOJOURN_FALLBACK_REDIS_URL or SOJOURN_FALLBACK_NAMESPACE"
)
_LATER: Final = "; try again later"
_MEANINGS: Final = {
    "none": "this is no value of our cookie: it has another form, or was cut",
    "loaded": "a session",
    "expired": "a session that expired",
    "unknown": "well-formed, but the store knows no such session: it ended, or was never here",
    "corrupt": "damaged, forged, or sealed for another cookie name, namespace or key",
    "future": "sealed with a key, serializer or format that these settings do not have",
    "unavailable": "the store does not answer",
}


@dataclass
class AnyModel:
    """Stands in for the model of the application: no command looks into a session's data."""


_ID_LENGTH: Final = 43
# Some ids begin with a hyphen, so click takes what is no option of the command for one.
_takes_ids = {"ignore_unknown_options": True, "help_option_names": ["--help"]}


def _refuse_options(context: click.Context, _: click.Parameter, value: Any) -> Any:
    """Refuse what begins with a hyphen and has not the length of an id: a misspelt option must not end a session."""
    for given in (value,) if isinstance(value, str) else value:
        if given.startswith("-") and len(given) != _ID_LENGTH:
            raise click.NoSuchOption(given, ctx=context)
    return value


_dry_run = click.option("--dry-run", is_flag=True, help="Say what would end, and end nothing.")


class StoppedError(SojournError):
    """The store stopped answering before a command was at its end; what was done stays done."""


@click.group()
def sessions() -> None:
    """Work on the sessions of the store."""


@sessions.command("ls")
@click.option("--principal", required=True, help="Whose: what the application gave to login().")
@click.option("--limit", type=click.IntRange(1), default=_PAGE, show_default=True, help="How many at most.")
@click.option("--after", help="The id after which to go on, as the page before said.")
@for_programs
def list_sessions(*, principal: str, limit: int, after: str | None, as_json: bool) -> None:
    """List a user's sessions, one page in the order of their ids."""
    with open_manager() as manager:
        page = manager.blocking.list(principal, limit=limit, after=after)
    if as_json:
        click.echo(json.dumps({"sessions": [_described(item) for item in page.items], "after": page.after}))
        return
    print_table(_HEADINGS, [tuple(_described(item).values()) for item in page.items])
    if page.after is not None:
        tell(f"there are more: --after {page.after}")


@sessions.command(context_settings=_takes_ids)
@click.argument("id", callback=_refuse_options)
@for_programs
def show(*, id: str, as_json: bool) -> int:
    """Show what is known of one session, without its data."""
    with open_manager() as manager:
        session = manager.blocking.read(id)
        if session is None:
            tell("error: there is no session of that id; ids are in events and in `sojourn sessions ls`")
            return 1
        told = {
            "id": session.id,
            "principal_hash": manager.blocking.principal_hash(session.principal) if session.principal else None,
            "began": moment(session.created_at),
            "logged_in": moment(session.authenticated_at) if session.authenticated_at else None,
            "last_seen": moment(session.last_seen),
            "expires": moment(session.expires_at),
        }
    if as_json:
        click.echo(json.dumps(told))
    else:
        print_table(("WHAT", "VALUE"), [(name, value or "-") for name, value in told.items()])
    return 0


@sessions.command("count")
@for_programs
def count_sessions(*, as_json: bool) -> None:
    """Count the sessions of the store, by going through all of them."""
    with open_manager() as manager, counted(manager, "counted", goes_on=False) as done:
        number = manager.blocking.count(progress=done)
    click.echo(json.dumps({"sessions": number}) if as_json else str(number))


@sessions.command(context_settings=_takes_ids)
@click.argument("ids", nargs=-1, required=True, metavar="ID...", callback=_refuse_options)
@_dry_run
@for_programs
def revoke(*, ids: Sequence[str], dry_run: bool, as_json: bool) -> int:
    """End sessions by their ids; exit code 1 when one of them was not there."""
    with open_manager() as manager:
        blocking = manager.blocking
        found = {id: blocking.read(id) is not None if dry_run else blocking.revoke(id) for id in ids}
    if as_json:
        ended = "would_revoke" if dry_run else "revoked"
        click.echo(json.dumps({ended: [id for id, was in found.items() if was], "absent": _absent(found)}))
    else:
        for id, was_there in found.items():
            click.echo(f"{id}: {('would end' if dry_run else 'ended') if was_there else 'was not there'}")
    return 1 if _absent(found) else 0


def _absent(found: dict[str, bool]) -> list[str]:
    return [id for id, was_there in found.items() if not was_there]


@sessions.command("revoke-all")
@click.option("--principal", required=True, help="Whose: what the application gave to login().")
@click.option("--except", "except_id", help="The id of a session that stays.")
@_dry_run
@for_programs
def revoke_all(*, principal: str, except_id: str | None, dry_run: bool, as_json: bool) -> None:
    """End all sessions of a user. Stopped in the middle, it may be run again for the rest."""
    with open_manager() as manager:
        if dry_run:
            number = sum(item.id != except_id for item in manager.blocking.list(principal))
        else:
            with counted(manager, "ended") as done:
                number = manager.blocking.revoke_all(principal, except_id, progress=done)
    _tell_ended(number, dry_run=dry_run, as_json=as_json)


@sessions.command()
@click.option("--older-than", type=click.FloatRange(0), help="Days since the session began.")
@click.option("--unused-for", type=click.FloatRange(0), help="Days since the session was used.")
@click.option("--anonymous", is_flag=True, help="Only sessions in which nobody is logged in.")
@_dry_run
@for_programs
def purge(*, older_than: float | None, unused_for: float | None, anonymous: bool, dry_run: bool, as_json: bool) -> None:
    """End every session that all of the options fit. Stopped in the middle, it may be run again for the rest."""
    if older_than is None and unused_for is None and not anonymous:
        raise click.UsageError("say which sessions end: --older-than DAYS, --unused-for DAYS or --anonymous")
    now = datetime.now(UTC)

    def fits(session: Session[AnyModel]) -> bool:
        return (
            (older_than is None or session.created_at <= now - timedelta(days=older_than))
            and (unused_for is None or session.last_seen <= now - timedelta(days=unused_for))
            and not (anonymous and session.principal is not None)
        )

    with open_manager() as manager:
        if dry_run:
            number = manager.blocking.count_by(fits)
        else:
            with counted(manager, "ended") as done:
                number = manager.blocking.bulk_delete(fits, progress=done)
    _tell_ended(number, dry_run=dry_run, as_json=as_json)


def _tell_ended(number: int, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"would_end" if dry_run else "ended": number}))
    elif number < 0:
        click.echo("all of them ended; sessions in cookies are not counted")
    else:
        click.echo(f"{number} {'would end' if dry_run else 'ended'}")


@sessions.command()
@click.option("--dry-run", is_flag=True, help="Say how many would be sealed anew, and seal none.")
@for_programs
def rekey(*, dry_run: bool, as_json: bool) -> None:
    """Seal every session with the first secret, before an older one goes. Stopped in the middle, run it again."""
    what = "would be sealed anew" if dry_run else "sealed anew"
    with open_manager() as manager, counted(manager, what, goes_on=not dry_run) as done:
        number = manager.blocking.reseal(done, dry_run=dry_run)
    click.echo(json.dumps({"would_reseal" if dry_run else "resealed": number}) if as_json else f"{number} {what}")


sessions.add_command(rekey, "reseal")


@sessions.command()
@click.option("--from", "from_", metavar="STORE", help="The store of before; without it SOJOURN_FALLBACK_STORE.")
@click.option("--to", metavar="STORE", help="The store of now; without it SOJOURN_STORE.")
@click.option("--dry-run", is_flag=True, help="Say how many records are there, and move none.")
@for_programs
def copy(*, from_: str | None, to: str | None, dry_run: bool, as_json: bool) -> int:
    """Move what is left in the store of before into the one of now, sealed for it, while requests go on.

    The store of before has settings of its own under SOJOURN_FALLBACK_, as SOJOURN_FALLBACK_REDIS_URL. Every node has to have
    it as its fallback already, or nobody finds there what was moved. Stopped in the middle, it may be run again for the rest.
    What cannot be moved is named with the reason, and then the exit code is 1.
    """
    named = {name: value for name, value in (("fallback_store", from_), ("store", to)) if value is not None}
    left: dict[str, str] = {}
    what = "would move" if dry_run else "moved"
    with open_manager(**named) as manager, counted(manager, what, goes_on=not dry_run) as done:
        if manager.settings.fallback_store is None:
            msg = (
                "there is no store to move from: name it by --from STORE or SOJOURN_FALLBACK_STORE, its own settings under "
                "SOJOURN_FALLBACK_, as SOJOURN_FALLBACK_REDIS_URL, and the last moment in SOJOURN_FALLBACK_UNTIL"
            )
            raise ConfigurationError(msg)
        if is_one_place(manager.settings):
            raise ConfigurationError(ONE_PLACE)
        number = manager.blocking.move(done, dry_run=dry_run, on_left=left.__setitem__)
    if as_json:
        told = [{"id": id, "why": why} for id, why in left.items()]
        click.echo(json.dumps({what.replace(" ", "_"): number, "left": told}))
    else:
        click.echo(f"{number} {what}")
        if left:
            click.echo("\n  ".join((f"{len(left)} cannot be moved:", *(f"{id}: {why}" for id, why in left.items()))))
    return WRONG if left else WELL


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
        told = {"store": manager.settings.store, "cookie": name, **_explained(found, manager.settings)}
    if as_json:
        click.echo(json.dumps(told))
    else:
        print_table(("WHAT", "VALUE"), [(what, "-" if value is None else str(value)) for what, value in told.items()])
    return WELL if found.outcome.value == "loaded" else WRONG


def _bare(value: str, name: str) -> str:
    """Return the value of what was copied from a header or a browser: ``Cookie: name=value; other=...``."""
    text = re.sub(r"\A\s*(?:set-)?cookie:", "", value, flags=re.IGNORECASE).strip()
    pairs = [pair.strip() for pair in text.split(";")]
    return next((pair.removeprefix(f"{name}=") for pair in pairs if pair.startswith(f"{name}=")), pairs[0]).strip('"')


def _explained(found: Inspection, settings: SessionSettings) -> dict[str, str | int | None]:
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


def make_manager(settings: SessionSettings) -> SessionManager[AnyModel]:
    """Return a manager of the settings; what the application makes of other libraries' sessions is its own matter.

    A command is no process of the fleet.
    """
    return SessionManager.from_settings(
        AnyModel, settings.model_copy(update={"report_node": False}), convert=_no_session
    )


def _no_session(foreign: ForeignSession) -> None:
    del foreign


@contextmanager
def open_manager(**named: Any) -> Generator[SessionManager[AnyModel]]:
    """Hand over a manager from the settings; say how far a command came when its store stops answering."""
    from sojourn.settings import SessionSettings

    settings = SessionSettings(**named)
    if settings.store == "memory":
        msg = (
            "the store is memory: those sessions are in the process of the application, and only that can reach them; "
            "call the method of `sessions` there, or set SOJOURN_STORE to the store that the application uses"
        )
        raise ConfigurationError(msg)
    manager = make_manager(settings)
    try:
        yield manager
    except SessionUnavailableError as error:
        raise StoppedError(f"{explained(error, settings)}; nothing was changed") from error
    finally:
        manager.blocking.close()


def is_one_place(settings: SessionSettings) -> bool:
    """Tell whether the store and its fallback are one, by what both are made from."""
    from sojourn.settings import PluginSettings

    kinds = {str(name).removeprefix("clustered-") for name in (settings.store, settings.fallback_store)}
    before, plugins = settings.of_fallback(), settings.of_plugins.values()
    of_servers = [each for each in plugins if isinstance(each, PluginSettings) and "url" in type(each).model_fields]
    return (
        len(kinds) == 1
        and bool(of_servers)
        and before.namespace == settings.namespace
        and all(
            type(each).build(before).model_dump(exclude={"encrypt"}) == each.model_dump(exclude={"encrypt"})
            for each in of_servers
        )
    )


def explained(error: SessionUnavailableError, settings: SessionSettings) -> str:
    """Return what the store says, and what to do where trying again does not help."""
    advice = what_to_do(error.kind, settings)
    return str(error) if advice is None else re.sub(rf"\.?{_LATER}$", lambda _: f"; {advice}", str(error))


def what_to_do(cause: str, settings: SessionSettings) -> str | None:
    """Return what to do about a store that fails for that *cause*, or None where waiting is all."""
    plugins = settings.of_plugins.items()
    url = next((f"{prefix}URL" for prefix, of in plugins if "url" in type(of).model_fields), "its URL")
    advice = _ANSWERS.get(cause)
    return None if advice is None else advice.format(url=url)


@contextmanager
def counted(manager: SessionManager[Any], done: str, *, goes_on: bool = True) -> Generator[Callable[[int], None]]:
    """Show how far a command is; on ^C or when the store stops answering it says how much was done.

    *goes_on* where the command, run again, does the rest; one that only looks begins anew.
    """
    number, rest = 0, ", run the command again for the rest" if goes_on else ""
    try:
        with progress(done) as show_progress:

            def count(now: int) -> None:
                nonlocal number
                number = now
                show_progress(now)

            yield count
    except SessionUnavailableError as error:
        said = explained(error, manager.settings)
        if what_to_do(error.kind, manager.settings) is not None:
            raise StoppedError(f"{said}, then run the command again; {number} {done}") from error
        raise StoppedError(f"{said}; {number} {done}{rest}") from error
    except KeyboardInterrupt:
        tell(f"stopped: {number} {done}{rest}")
        raise


def _described(item: SessionInfo) -> dict[str, str]:
    return {
        "id": item.id,
        "began": moment(item.created_at),
        "last_seen": moment(item.last_seen),
        "expires": moment(item.expires_at),
        "client": item.client,
    }
