"""The command ``sojourn doctor``: everything that can be found wrong before a deployment, each with what to do.

It looks at the settings, at the server of the store, at the URL of the site and at the running processes, and changes nothing
but a session of its own, which it ends.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click

from sojourn import Finding
from sojourn.errors import ConfigurationError, SessionUnavailableError
from sojourn_cli.config import start_up_steps, try_store
from sojourn_cli.fleet import COOKIES, NOBODY, next_step
from sojourn_cli.output import WELL, WRONG, for_programs
from sojourn_cli.sessions import ONE_PLACE, explained, is_one_place, make_manager, what_to_do

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sojourn import Node, SessionManager
    from sojourn.settings import SessionSettings

_SLOW: Final = 0.1
"""The share of SOJOURN_REQUEST_DEADLINE that one read may take."""
_LOOKS: Final = 3
_WIDEST: Final = {4: 8, 6: 16}
"""The fewest bits of a network of proxies: a larger one is not one's own."""
_LOST: Final = {
    "SOJOURN_COOKIE_NAME": "no cookie of before is read, so everybody logs in again",
    "SOJOURN_STORE": "sessions of the other store are not found, so everybody logs in again",
}
_LOST_WHILE_BOUND: Final = (
    "SOJOURN_BINDING_IP",
    "SOJOURN_BINDING_USER_AGENT",
    "SOJOURN_BINDING_IPV4_PREFIX",
    "SOJOURN_BINDING_IPV6_PREFIX",
)
_ENCRYPTION: Final = ("SOJOURN_ENCRYPT", "SOJOURN_REDIS_ENCRYPT", "SOJOURN_SQL_ENCRYPT")
_ABSOLUTE: Final = "SOJOURN_ABSOLUTE_TIMEOUT"
_REFUSED: Final = {"rights", "writes", "replication"}
"""What keeps a session from being stored; then the store is not asked for more, which would be refused once more."""
_REDIS: Final = ("redis", "clustered-redis")


@click.command()
@click.option("--url", help="Where browsers find the site: https://shop.example/.")
@click.option("--running", is_flag=True, help="A fleet is running: it is a problem if none of its processes is known.")
@for_programs
def doctor(*, url: str | None, running: bool, as_json: bool) -> int:
    """Look for everything that is wrong or will be, in the environment of the service; exit code 1 when something is."""
    findings: list[Finding] = []
    with _log_becomes(findings):
        settings = _settings(findings)
        findings += _of_plugins()
        manager = None if settings is None else _start(settings, findings)
    servers: list[dict[str, object]] = []
    if settings is not None:
        findings += [*_of_secrets(settings), *_of_proxies(settings), *([] if url is None else _of_url(settings, url))]
    if manager is not None:
        if is_one_place(manager.settings):
            findings.append(Finding("fallback", ONE_PLACE))
        with _log_becomes([]):  # what goes wrong from here on is told by an answer, too
            servers = _look_at_the_store(manager, findings, running=running)
            manager.blocking.close()
    found = list(dict.fromkeys(findings))
    problems = [each for each in found if each.is_problem]
    if as_json:
        told = [{**asdict(each), "is_problem": each.is_problem} for each in found]
        click.echo(json.dumps({"findings": told, "servers": servers}, indent=2))
    else:
        for each in found:
            click.echo(f"{'error' if each.is_problem else 'note '}  {each.subject}: {each.message}")
        for server in servers:
            name = f"{server['store']} {server['server']}".rstrip()
            click.echo(f"ok     {name}: answers in {server['milliseconds']} ms")
    return WRONG if problems else WELL


@contextmanager
def _log_becomes(findings: list[Finding]) -> Generator[None]:
    """Have what is logged become *findings*, in the place of lines on standard error: a warning is a problem."""

    def note(record: logging.LogRecord) -> bool:
        subject = record.name.rpartition(".")[2]
        findings.append(Finding(subject, record.getMessage(), record.levelno >= logging.WARNING))
        return False

    collector = logging.Handler()
    collector.addFilter(note)
    loggers = [logging.getLogger("sojourn"), logging.getLogger()]
    before = [(logger, logger.handlers, logger.level) for logger in loggers]
    loggers[0].handlers, loggers[1].handlers = [collector], [logging.NullHandler()]
    loggers[0].setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger, handlers, level in before:
            logger.handlers = handlers
            logger.setLevel(level)


# -- what needs no server ----------------------------------------------------------------------------------------


def _settings(findings: list[Finding]) -> SessionSettings | None:
    from sojourn.settings import SessionSettings

    try:
        return SessionSettings()
    except ConfigurationError as error:
        findings.append(Finding("settings", str(error)))
        return None


def _start(settings: SessionSettings, findings: list[Finding]) -> SessionManager[Any] | None:
    """Do what start-up does, all problems at once; return the manager if there is one."""
    from sojourn.plugins import PluginLoader, warn_about_unknown_variables

    loader = PluginLoader(settings)
    well = True
    for subject, step in start_up_steps(settings, loader):
        try:
            step()
        except ConfigurationError as error:
            findings.append(Finding(subject, str(error)))
            well = False
    if not well:
        warn_about_unknown_variables(plugins=loader.settings())
        return None
    try:
        return make_manager(settings)
    except ConfigurationError as error:
        findings.append(Finding("start-up", str(error)))
        return None


def _of_plugins() -> Iterator[Finding]:
    from sojourn.plugins import installed

    conflicts: dict[str, list[str]] = {}
    for plugin in installed():
        if plugin.conflict:
            conflicts.setdefault(plugin.entry_point, []).append(plugin.distribution)
    for entry_point, distributions in conflicts.items():
        yield Finding("plugins", f"{' and '.join(distributions)} offer {entry_point}: uninstall all but one")


def _of_secrets(settings: SessionSettings) -> Iterator[Finding]:
    """Tell of secrets in a file that others may read, and of what only one process may have."""
    if settings.single_process:
        yield Finding(
            "revocation store",
            "SOJOURN_SINGLE_PROCESS is true: start no second process, which would accept what this one revoked",
            is_problem=False,
        )
    if settings.is_relaxed:
        return
    for path in _files_of_secrets(settings):
        status = path.stat()
        # By its group a service reads a file that is not its own.
        others = 0o077 if status.st_uid == os.geteuid() else 0o007
        if stat.S_IMODE(status.st_mode) & others:
            yield Finding("secret", f"{path} holds a secret and others may read it: chmod 600 {path}")


def _files_of_secrets(settings: SessionSettings) -> Iterator[Path]:
    """Yield the files from which secrets of the core and of plugins were read.

    What is in /run/secrets was mounted for one container, mostly with a mode that cannot be chosen.
    """
    from sojourn.settings import write_value

    read: dict[str, set[str]] = {}
    for each in (settings, *settings.of_plugins.values()):
        for name in type(each).model_fields:
            # A secret is written as (set), or how many of a list are.
            if write_value(type(each), name, getattr(each, name)).endswith("set)"):
                read.setdefault(each.origin_of(name), set()).add(each.variable_of(name).lower())
    if ".env" in read:
        yield Path(settings.surroundings.env_file or ".env")
    if "secrets file" in read and settings.surroundings.secrets_dir is not None:
        files = sorted(Path(settings.surroundings.secrets_dir).iterdir())
        yield from (path for path in files if path.name.lower() in read["secrets file"])


def _of_proxies(settings: SessionSettings) -> Iterator[Finding]:
    networks = [ip_network(each, strict=False) for each in settings.trusted_proxies if each != "unix"]
    wide = [str(each) for each in networks if each.prefixlen < _WIDEST[each.version]]
    if wide:
        yield Finding(
            "proxies",
            f"SOJOURN_TRUSTED_PROXIES has {', '.join(wide)}: whoever is in there says by X-Forwarded-For which address they "
            "have; name the networks of your own proxies alone",
        )
    if settings.binding != "off" and settings.binding_ip and not settings.trusted_proxies:
        yield Finding(
            "proxies",
            "clients are bound to their address and SOJOURN_TRUSTED_PROXIES is not set: behind a proxy all have its address; "
            "then name its network",
            is_problem=False,
        )


def _of_url(settings: SessionSettings, url: str) -> Iterator[Finding]:
    """Compare the cookie with the URL under which browsers find the site (SECURITY R18, R19)."""
    parts = urlsplit(url if "://" in url else f"https://{url}")
    host, path = parts.hostname or "", parts.path or "/"
    is_local = host in {"localhost", "127.0.0.1", "::1"} or host.endswith(".localhost")
    if parts.scheme == "http" and settings.cookie_secure and not is_local:
        yield Finding(
            "cookie",
            f"{url} is http, and browsers keep a cookie with Secure for https alone: each request would begin a new session; "
            "serve https",
        )
    if settings.is_relaxed and not is_local:
        yield Finding(
            "cookie",
            f"the preset {settings.preset} is for one's own machine, and the site is at {host}: weak secrets pass and the "
            "cookie goes over http, too; set SOJOURN_PRESET=production",
        )
    domain = (settings.cookie_domain or host).removeprefix(".").lower()
    if host != domain and not host.endswith(f".{domain}"):
        yield Finding(
            "cookie", f"SOJOURN_COOKIE_DOMAIN is {domain}, and browsers drop such a cookie of {host}; correct it"
        )
    prefix = settings.cookie_path.rstrip("/")
    if path != prefix and not path.startswith(f"{prefix}/"):
        yield Finding(
            "cookie", f"SOJOURN_COOKIE_PATH is {settings.cookie_path}: no page under {path} gets it; set it to /"
        )


# -- what the store and the fleet say ----------------------------------------------------------------------------


def _look_at_the_store(
    manager: SessionManager[Any], findings: list[Finding], *, running: bool
) -> list[dict[str, object]]:
    """Return how each server answered, if all do; then everything else is looked at."""
    settings = manager.settings
    # The first look opens the connections, and a machine may be busy for a moment.
    looks = [manager.blocking.health() for _ in range(_LOOKS)]
    health = min(looks, key=lambda look: max((server.latency for server in look.servers), default=0.0))
    for server in health.servers:
        if server.cause and not server.cause.startswith("denied"):
            advice = what_to_do(server.cause, settings) or "docs/operations.md says what to do"
            findings.append(
                Finding("store", f"{server.store} {server.server}: {server.cause}; {advice}".replace(" :", ":"))
            )
        elif server.latency > _SLOW * settings.request_deadline.total_seconds():
            findings.append(
                Finding(
                    "latency",
                    f"one read took {server.latency * 1000:.0f} ms, and SOJOURN_REQUEST_DEADLINE leaves a request "
                    f"{settings.request_deadline.total_seconds() * 1000:.0f} ms for all: bring the server nearer, or raise it",
                )
            )
    if any(each.subject == "store" and each.is_problem for each in findings):
        return []
    try:
        findings += manager.blocking.diagnose()
        if not any(each.is_problem and each.subject in _REFUSED for each in findings):
            try_store(manager)
            findings += _of_fleet(manager, running=running)
    except SessionUnavailableError as error:
        findings.append(Finding("store", explained(error, settings)))
    except ConfigurationError as error:
        findings.append(Finding("store", str(error)))
    return [
        {"store": each.store, "server": each.server, "milliseconds": round(each.latency * 1000, 2)}
        for each in health.servers
    ]


def _of_fleet(manager: SessionManager[Any], *, running: bool) -> Iterable[Finding]:
    """Say what these settings would do to the sessions of the running processes (FAILURES F31, F32, SECURITY R42, R45)."""
    settings = manager.settings
    try:
        nodes = manager.blocking.nodes()
    except ConfigurationError:
        return [Finding("fleet", COOKIES, is_problem=False)]
    if not nodes:
        return [Finding("fleet", NOBODY)] if running else []
    ours = [key.id.hex() for key in settings.key_ring().keys]
    step = next_step(ours, [node.keys for node in nodes], {})
    found: list[Finding] = []
    if not step.is_safe:
        found.append(
            Finding(
                "keys",
                f"{step.advice}. If they are of another application, give this one a SOJOURN_NAMESPACE of its own",
            )
        )
    dropped = {key for node in nodes for key in node.keys} - {*ours} - {node.keys[0] for node in nodes}
    if dropped:
        found.append(
            Finding(
                "keys",
                f"the processes open what the key {' '.join(sorted(dropped))} sealed, and these settings do not: what is under "
                "it is lost; ask `sojourn keys rotate --step` first",
            )
        )
    return [*found, *_of_differences(settings, nodes)]


def _of_differences(settings: SessionSettings, nodes: Sequence[Node]) -> Iterator[Finding]:
    differing: dict[str, list[Node]] = {}
    for node in nodes:
        for variable in node.differs(settings):
            differing.setdefault(variable, []).append(node)
    yield from _of_both_kinds(settings, nodes)
    harmless: list[str] = []
    for variable, others in differing.items():
        what = _what_is_lost(settings, variable, others)
        if what is not None:
            yield Finding(
                "fleet", f"{variable} is another one in {len(others)} of {len(nodes)} running processes: {what}"
            )
        else:
            harmless.append(variable)
    if harmless:
        told = ", ".join(sorted(harmless))
        older = ", but whose session is older than a shorter SOJOURN_ABSOLUTE_TIMEOUT" if _ABSOLUTE in harmless else ""
        yield Finding(
            "fleet", f"the running processes have {told} set otherwise; nobody is logged out{older}", is_problem=False
        )


def _what_is_lost(settings: SessionSettings, variable: str, others: Sequence[Node]) -> str | None:
    if variable == "SOJOURN_STORE" and settings.store in _REDIS:
        return None if all(_kind(node) is not None for node in others) else _LOST[variable]
    if variable in _LOST:
        return f"{_LOST[variable]}; docs/operations.md, changing settings"
    if variable in _LOST_WHILE_BOUND and settings.binding == "reject":
        return "clients are compared otherwise, so everybody logs in again; set SOJOURN_BINDING=observe for as long as sessions live"
    if (
        variable == "SOJOURN_BINDING"
        and settings.base_preset == "high_security"
        and _some_have(others, variable, "off")
    ):
        return (
            "high_security takes no login from before clients were bound, so everybody logs in again; switch it on under the "
            "production preset first, for as long as sessions live"
        )
    if variable in _ENCRYPTION and _is_damage(settings, others):
        return "records of one kind are damage to the other; set SOJOURN_ACCEPT_UNSEALED_UNTIL on all processes first, then change it"
    if variable == "SOJOURN_SERIALIZER":
        return _of_serializers(settings, others)
    if variable == "SOJOURN_REDIS_CHANNEL":
        return "they do not hear each other's announcements, so local copies are stale; give all processes one channel"
    return None


def _is_damage(settings: SessionSettings, others: Sequence[Node]) -> bool:
    """Tell whether a process that encrypts, of before or of now, refuses what one that does not writes (SECURITY R55)."""
    sealing = [node for node in others if _encrypts(node)]
    here = settings.encrypt
    if here is None:
        here = not any(getattr(each, "encrypt", None) is False for each in settings.of_plugins.values())
    if here:
        return len(sealing) < len(others) and settings.accept_unsealed_until is None
    return _some_have(sealing, "SOJOURN_ACCEPT_UNSEALED_UNTIL", "-")


def _encrypts(node: Node) -> bool:
    if node.has("SOJOURN_ENCRYPT", "auto"):
        return not any(node.has(variable, "false") for variable in _ENCRYPTION)
    return node.has("SOJOURN_ENCRYPT", "true")


def _some_have(nodes: Sequence[Node], variable: str, value: str) -> bool:
    return any(node.has(variable, value) for node in nodes)


def _of_serializers(settings: SessionSettings, others: Sequence[Node]) -> str | None:
    from sojourn.plugins import BUILT_IN, names_of

    readable = {*BUILT_IN["serializer"], settings.serializer, *settings.read_serializers}
    for name in names_of("serializer"):
        if name not in readable and any(node.has("SOJOURN_SERIALIZER", name) for node in others):
            return f"{name} wrote their sessions, and nothing here reads it; put it into SOJOURN_READ_SERIALIZERS"
    if settings.serializer not in BUILT_IN["serializer"] and not all(
        node.has("SOJOURN_READ_SERIALIZERS", settings.serializer) for node in others
    ):
        return f"they do not read what {settings.serializer} writes; put it into SOJOURN_READ_SERIALIZERS of all of them first"
    return None


def _of_both_kinds(settings: SessionSettings, nodes: Sequence[Node]) -> Iterator[Finding]:
    """Say what becomes of local copies where `redis` and `clustered-redis` meet (FAILURES F32)."""
    kinds = {settings.store, *filter(None, map(_kind, nodes))}
    if not kinds >= {*_REDIS}:
        return
    ours = settings.of_plugins.get("SOJOURN_REDIS_")
    silent = sum(_kind(node) == "redis" and node.has("SOJOURN_REDIS_ANNOUNCE", "false") for node in nodes)
    silent += settings.store == "redis" and not getattr(ours, "announce", True)
    if silent:
        yield Finding(
            "fleet",
            "processes of redis and of clustered-redis share these sessions, and SOJOURN_REDIS_ANNOUNCE is off on some of redis: "
            "local copies stay stale for as long as they are kept; set it to true on all of redis first",
        )
    else:
        yield Finding(
            "fleet",
            "processes of redis and of clustered-redis share these sessions; each announces its writes, so copies keep their bound",
            is_problem=False,
        )


def _kind(node: Node) -> str | None:
    return next((kind for kind in _REDIS if node.has("SOJOURN_STORE", kind)), None)
