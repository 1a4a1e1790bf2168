"""``sojourn doctor`` finds each of these misconfigurations and says what to do, and is silent on a right set-up."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from redis.exceptions import ResponseError

from sojourn import SessionManager, new_secret
from sojourn.manager import BlockingManager
from sojourn.settings import SessionSettings
from sojourn_cli import main
from tests.faults.proxy import Fault, FaultProxy
from tests.servers import RedisServer

Output = pytest.CaptureFixture[str]
pytestmark = pytest.mark.server

SECRET, OTHER = new_secret(), new_secret()
SOON = (datetime.now(UTC) + timedelta(hours=12)).isoformat()
RIGHTS = (
    "~sojourn:session:* ~sojourn:index:* &sojourn:invalidations -@all +publish +client|setname +info +get "
    "+getrange +setrange +set +unlink +pttl +pexpire +zadd +zrem +zremrangebyscore +zscan +scan +eval +evalsha"
)


Plant = Callable[["Site"], object]


@dataclass
class Basket:
    note: str = ""


@dataclass
class Site:
    """A service with a right set-up, into which something wrong is planted."""

    server: RedisServer
    folder: Path
    monkeypatch: pytest.MonkeyPatch
    running: list[BlockingManager[Any]] = field(default_factory=list)
    proxies: list[FaultProxy] = field(default_factory=list)

    def set(self, **variables: str) -> None:
        for name, value in variables.items():
            self.monkeypatch.setenv(f"SOJOURN_{name}", value)

    def unset(self, *names: str) -> None:
        for name in names:
            self.monkeypatch.delenv(f"SOJOURN_{name}")

    def start(self, **variables: str) -> None:
        """Have a process of the fleet serve a request under other settings than doctor is asked with."""
        with self.monkeypatch.context() as other:
            for name, value in variables.items():
                other.setenv(f"SOJOURN_{name}", value)
            node = SessionManager.from_settings(Basket, SessionSettings()).blocking
            self.running.append(node)
            session = node.open(None)
            session.login("ada")
            node.open(node.commit(session).token)

    def command(self, *words: str) -> None:
        self.server.command(*words)

    def user(self, rights: str) -> None:
        self.command("ACL", "SETUSER", "shop", "reset", "on", ">hunter22", *rights.split())
        with suppress(ResponseError):  # unknown before Redis 7.2
            self.command("ACL", "SETUSER", "shop", "+client|setinfo")
        self.set(REDIS_USERNAME="shop", REDIS_PASSWORD="hunter22")

    def through_a_slow_line(self) -> None:
        proxy = FaultProxy(self.server.port, pause=0.3)
        proxy.__enter__()
        proxy.fault = Fault.DELAY
        self.proxies.append(proxy)
        self.set(REDIS_URL=proxy.url, REQUEST_DEADLINE="2s", REDIS_TIMEOUT="1500ms")

    def with_a_readable_secret(self) -> None:
        (self.folder / "keys").mkdir()
        path = self.folder / "keys" / "sojourn_secret"
        path.write_text(SECRET)
        path.chmod(0o644)
        self.unset("SECRETS")
        self.set(SECRETS_DIR=str(path.parent))

    def install(self, entry_points: str, *distributions: str) -> None:
        for name in distributions:
            metadata = self.folder / name / f"{name}-1.dist-info"
            metadata.mkdir(parents=True)
            (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
            (metadata / "entry_points.txt").write_text(f"[sojourn]\n{entry_points}\n")
            self.monkeypatch.syspath_prepend(str(self.folder / name))

    def with_a_serializer_of_a_plugin(self) -> None:
        self.install("serializer-figures = figures_of_delta", "delta")
        code = """
            from sojourn.hookspecs import hookimpl
            from sojourn.plugins import find_serializer

            @hookimpl
            def sojourn_create_serializer(name, settings):
                return find_serializer("json", settings) if name == "figures" else None
        """
        (self.folder / "delta" / "figures_of_delta.py").write_text(dedent(code))


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer("--appendonly", "yes") as server:
        yield server


@pytest.fixture
def site(server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in list(os.environ):
        if name.upper().startswith("SOJOURN_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    server.start_if_stopped()
    server.flush()
    site = Site(server, tmp_path, monkeypatch)
    site.set(SECRETS=json.dumps([SECRET]), STORE="redis", REDIS_URL=server.url)
    # A busy machine is no misconfiguration.
    site.set(REDIS_CONNECT_TIMEOUT="20s", REDIS_TIMEOUT="20s", REQUEST_DEADLINE="60s", BREAKER_PROBE_DEADLINE="60s")
    yield site
    for node in site.running:
        node.close()
    for proxy in site.proxies:
        proxy.__exit__()
    server.command("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "0")
    server.command("CONFIG", "SET", "appendonly", "yes")
    server.command("REPLICAOF", "NO", "ONE")
    server.command("ACL", "DELUSER", "shop")


def ask(capsys: Output, *options: str) -> tuple[int, list[dict[str, Any]]]:
    """Return the exit code of doctor, and what it found."""
    capsys.readouterr()
    code = main(["doctor", "--json", *options])
    output = capsys.readouterr()
    assert output.err == ""
    assert SECRET not in output.out
    findings: list[dict[str, Any]] = json.loads(output.out)["findings"]
    return code, findings


def test_a_right_set_up_is_met_with_silence(site: Site, capsys: Output) -> None:
    site.user(RIGHTS)
    site.set(TRUSTED_PROXIES="10.1.0.0/16", COOKIE_SAME_SITE="strict")
    site.start()
    site.start()
    code, findings = ask(capsys, "--url", "https://shop.example/account", "--running")
    assert (code, [each for each in findings if each["is_problem"]]) == (0, [])
    assert {each["subject"] for each in findings} == {"replication"}
    assert main(["doctor"]) == 0
    output = capsys.readouterr()
    assert re.fullmatch(r"note   replication: .*\nok     sessions: answers in [\d.]+ ms\n", output.out)
    assert output.err == ""


def test_the_whole_report_is_the_result(site: Site, capsys: Output) -> None:
    site.set(STOER="redis")
    assert main(["doctor"]) == 1
    output = capsys.readouterr()
    assert "error  settings: " in output.out
    assert "ok     sessions: " in output.out
    assert output.err == ""


def test_the_clustered_store_is_right_too(site: Site, capsys: Output) -> None:
    site.user(f"{RIGHTS} +subscribe +ping")
    site.set(STORE="clustered-redis", PRESET="clustered")
    site.start()
    assert ask(capsys, "--running")[0] == 0


def test_sessions_in_cookies_are_right_too_with_an_index(site: Site, capsys: Output) -> None:
    site.set(STORE="cookie", REVOCATION_STORE="redis")
    code, findings = ask(capsys, "--url", "https://shop.example")
    assert (code, {each["subject"] for each in findings}) == (0, {"replication", "fleet"})
    assert any("nobody can know which processes serve them" in each["message"] for each in findings)


def first(*plants: Plant) -> Plant:
    """Return what does one thing after the other."""

    def plant(site: Site) -> None:
        for each in plants:
            each(site)

    return plant


def r44(site: Site) -> None:
    site.set(STORE="cookie", REVOCATION_STORE="memory")


def f32(site: Site) -> None:
    site.start(REDIS_ANNOUNCE="false")
    site.set(STORE="clustered-redis")


Planted = tuple[Plant, str, str, tuple[str, ...]]


def by_setting(subject: str, words: str, *options: str, **variables: str) -> Planted:
    """Return what settings alone plant: the words under which it is found, and the options of doctor."""
    return (lambda site: site.set(**variables)), subject, words, options


PLANTS: dict[str, Planted] = {
    # settings
    "a value that is none": by_setting("settings", "IDLE_TIMEOUT = 'soon'.*write a duration", IDLE_TIMEOUT="soon"),
    "a misspelt setting": by_setting("settings", "did you mean SOJOURN_STORE", STOER="redis"),
    "a misspelt setting of a plugin": by_setting(
        "settings", "did you mean SOJOURN_REDIS_MAX_STALENESS", REDIS_MAX_STALENES="1s"
    ),
    "a value of a plugin that is none": by_setting("store", "REDIS_TIMEOUT.*write a duration", REDIS_TIMEOUT="soon"),
    "retries that can never happen": by_setting("start-up", "raise SOJOURN_REQUEST_DEADLINE", REDIS_TIMEOUT="3m"),
    # secrets
    "no secret": (lambda s: s.unset("SECRETS"), "secret", "needs a secret.*sojourn keygen", ()),
    "R30: a short secret": by_setting("secret", "fewer than 20 characters.*sojourn keygen", SECRETS='["short"]'),
    "R30: a passphrase without salt": by_setting(
        "secret", "needs SOJOURN_SALT", SECRETS='["a sentence that nobody else has written"]'
    ),
    "R47: a secret from a tutorial": by_setting(
        "secret",
        "well-known.*sojourn keygen",
        SECRETS='["your-256-bit-secret your-256-bit-secret"]',
        SALT="8 bytes or more",
    ),
    "a file with a secret that others may read": (
        Site.with_a_readable_secret,
        "secret",
        "sojourn_secret holds a secret and others may read it: chmod 600 .*sojourn_secret",
        (),
    ),
    # preset rules
    "R19: a cookie without Secure": by_setting("settings", "serve https", COOKIE_SECURE="false"),
    "R19: a domain with a __Host- name": by_setting(
        "settings", "__Host-.*(leave|without|rename|another name|take)", COOKIE_DOMAIN="shop.example"
    ),
    "R11: high_security loosened": by_setting(
        "settings",
        "longer than the 15m of the high_security preset; lower it",
        PRESET="high_security",
        IDLE_TIMEOUT="1h",
    ),
    "R11: sessions that live too long": by_setting("settings", "longer than the 1h .*AAL2", IDLE_TIMEOUT="7d"),
    "sessions in the memory of one process": by_setting(
        "manager", "set SOJOURN_STORE to redis or cookie", STORE="memory"
    ),
    "R44: a revocation index in memory": (r44, "start-up", "set SOJOURN_REVOCATION_STORE to redis", ()),
    # the store
    "a store that nothing listens for": by_setting(
        "store", "refused; start it, or correct host and port of SOJOURN_REDIS_URL", REDIS_URL="redis://127.0.0.1:1"
    ),
    "a database that is not there": (
        lambda s: s.set(REDIS_URL=f"redis://127.0.0.1:{s.server.port}/99"),
        "store",
        r"wrong server; correct SOJOURN_REDIS_URL: .* the number of the database",
        (),
    ),
    "a cluster that is none": (
        lambda s: s.set(REDIS_URL=f"redis+cluster://127.0.0.1:{s.server.port}"),
        "store",
        "wrong server; correct SOJOURN_REDIS_URL",
        (),
    ),
    "sentinels that are none": (
        lambda s: s.set(REDIS_URL=f"redis+sentinel://127.0.0.1:{s.server.port}/master"),
        "store",
        "wrong server; correct SOJOURN_REDIS_URL",
        (),
    ),
    "a cluster that does not listen": by_setting(
        "store", "refused; start it, or correct host and port", REDIS_URL="redis+cluster://127.0.0.1:1"
    ),
    "a store of before that is the one of now": by_setting(
        "fallback",
        "no session from before is found; name the server or namespace of before",
        FALLBACK_STORE="redis",
        FALLBACK_UNTIL=SOON,
    ),
    "a wrong password": by_setting(
        "store", "auth; correct user and password of SOJOURN_REDIS_URL", REDIS_PASSWORD="wrong", REDIS_USERNAME="shop"
    ),
    "a slow line": (Site.through_a_slow_line, "latency", "one read took .* bring the server nearer", ()),
    "F14: a server that evicts": (
        lambda s: s.command("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru"),
        "eviction",
        "set maxmemory-policy noeviction",
        (),
    ),
    "a server that keeps nothing": (
        lambda s: s.command("CONFIG", "SET", "appendonly", "no"),
        "persistence",
        "all sessions are lost.*set appendonly yes",
        (),
    ),
    "replicas that are not there": by_setting(
        "replication", "has 0 replicas.*bring the replicas back", REDIS_WAIT_REPLICAS="1"
    ),
    "a replica in the place of the primary": (
        lambda s: s.command("REPLICAOF", "127.0.0.1", "1"),
        "replication",
        "name the primary in SOJOURN_REDIS_URL",
        (),
    ),
    "a user without rights": (
        lambda s: s.user(RIGHTS.replace("+zscan", "").replace("+pexpire", "")),
        "rights",
        r"ACL SETUSER <user> \+pexpire \+zscan",
        (),
    ),
    "a user of another namespace": (
        lambda s: s.user(RIGHTS.replace("~sojourn:session", "~shop:session")),
        "rights",
        r"ACL SETUSER <user> ~sojourn:session:\*",
        (),
    ),
    "a user without the channel": (
        lambda s: s.user(RIGHTS.replace("&sojourn", "&shop")),
        "rights",
        r"ACL SETUSER <user> &sojourn:invalidations",
        (),
    ),
    "a user who may not listen": (
        first(lambda s: s.set(STORE="clustered-redis"), lambda s: s.user(f"{RIGHTS} +ping")),
        "rights",
        r"ACL SETUSER <user> \+subscribe",
        (),
    ),
    "a clock that is wrong": (
        lambda s: s.monkeypatch.setattr(time, "time", lambda now=time.time: now() - 300.0),
        "clock",
        "(299|300) s behind .*run NTP",
        (),
    ),
    # the URL
    "a Secure cookie over http": (lambda _: None, "cookie", "is http.*serve https", ("--url", "http://shop.example")),
    "a preset for one's own machine on a site": by_setting(
        "cookie", "set SOJOURN_PRESET=production", "--url", "https://shop.example", PRESET="testing"
    ),
    "a cookie of another domain": by_setting(
        "cookie",
        "SOJOURN_COOKIE_DOMAIN is example.org.*correct it",
        "--url",
        "https://shop.example",
        COOKIE_NAME="sid",
        COOKIE_DOMAIN="example.org",
    ),
    "a cookie of another path": by_setting(
        "cookie",
        "SOJOURN_COOKIE_PATH is /shop.*set it to /",
        "--url",
        "https://shop.example/account",
        COOKIE_NAME="sid",
        COOKIE_PATH="/shop",
    ),
    "proxies that are anybody": by_setting(
        "proxies", "name the networks of your own proxies alone", TRUSTED_PROXIES="128.0.0.0/1"
    ),
    # plugins
    "a store that is not installed": by_setting("store", "did you mean 'redis'", STORE="redsi"),
    "two packages with one name": (
        lambda s: s.install("metrics-figures = x", "alpha", "beta"),
        "plugins",
        "(alpha and beta|beta and alpha) offer metrics-figures: uninstall all but one",
        (),
    ),
    "a plugin that does not import": (
        first(lambda s: s.install("metrics-figures = no_such_module", "gamma"), lambda s: s.set(METRICS="figures")),
        "metrics",
        "cannot be imported.*pip install --force-reinstall gamma",
        (),
    ),
    # the fleet
    "F31: another name of the cookie": (
        first(lambda s: s.start(), lambda s: s.set(COOKIE_NAME="__Host-sid")),
        "fleet",
        "SOJOURN_COOKIE_NAME is another one in 1 of 1 running processes: .*everybody logs in again",
        (),
    ),
    "F31: encryption turned on": (
        first(lambda s: s.start(ENCRYPT="false"), lambda s: s.set(ENCRYPT="true")),
        "fleet",
        "SOJOURN_ENCRYPT is another one.*set SOJOURN_ACCEPT_UNSEALED_UNTIL on all processes first",
        (),
    ),
    "F31: encryption turned off": (
        first(lambda s: s.start(), lambda s: s.set(ENCRYPT="false", ACCEPT_UNSEALED_UNTIL=SOON)),
        "fleet",
        "SOJOURN_ENCRYPT is another one.*set SOJOURN_ACCEPT_UNSEALED_UNTIL on all processes first",
        (),
    ),
    "F31: high_security over logins of clients that are not bound": (
        first(lambda s: s.start(), lambda s: s.set(PRESET="high_security")),
        "fleet",
        "SOJOURN_BINDING is another one.*switch it on under the production preset first",
        (),
    ),
    "F31: clients compared otherwise": (
        first(lambda s: s.set(BINDING="reject"), Site.start, lambda s: s.set(BINDING_IP="false")),
        "fleet",
        "SOJOURN_BINDING_IP.*set SOJOURN_BINDING=observe",
        (),
    ),
    "F31: a secret taken out": (
        first(lambda s: s.start(), lambda s: s.set(SECRETS=json.dumps([OTHER]))),
        "keys",
        "Put it into SOJOURN_RETIRED_SECRETS",
        (),
    ),
    "F31: a secret that opens taken out": (
        lambda s: s.start(RETIRED_SECRETS=json.dumps([OTHER])),
        "keys",
        "the processes open what the key [0-9a-f]+ sealed.*ask `sojourn keys rotate --step` first",
        (),
    ),
    "F31: a serializer that the processes do not read": (
        first(Site.with_a_serializer_of_a_plugin, Site.start, lambda s: s.set(SERIALIZER="figures")),
        "fleet",
        "do not read what figures writes; put it into SOJOURN_READ_SERIALIZERS of all of them first",
        (),
    ),
    "F31: a serializer that nothing reads any more": (
        first(Site.with_a_serializer_of_a_plugin, lambda s: s.start(SERIALIZER="figures")),
        "fleet",
        "figures wrote their sessions, and nothing here reads it; put it into SOJOURN_READ_SERIALIZERS",
        (),
    ),
    "F32: announcements on another channel": (
        first(lambda s: s.start(REDIS_CHANNEL="one"), lambda s: s.set(STORE="clustered-redis", REDIS_CHANNEL="two")),
        "fleet",
        "SOJOURN_REDIS_CHANNEL is another one.*give all processes one channel",
        (),
    ),
    "F32: local copies that hear of no writes": (f32, "fleet", "SOJOURN_REDIS_ANNOUNCE is off.*set it to true", ()),
    "R42: another namespace": (
        first(lambda s: s.start(), lambda s: s.set(REDIS_NAMESPACE="shop")),
        "fleet",
        "no process told of itself.*another store or namespace",
        ("--running",),
    ),
    "R45: a key that seals before it is known": (
        first(lambda s: s.start(), lambda s: s.set(SECRETS=json.dumps([OTHER, SECRET]))),
        "keys",
        "First deploy it in SOJOURN_RETIRED_SECRETS",
        (),
    ),
}


@pytest.mark.parametrize("name", PLANTS)
def test_doctor_finds_what_is_wrong_and_says_what_to_do(name: str, site: Site, capsys: Output) -> None:
    plant, subject, words, options = PLANTS[name]
    plant(site)
    code, findings = ask(capsys, *options)
    told = {each["message"] for each in findings if each["is_problem"] and each["subject"] == subject}
    assert any(re.search(words, message, re.DOTALL) for message in told), findings
    assert code == 1


def test_the_list_of_what_is_found_is_long_enough() -> None:
    assert len(PLANTS) >= 25


def test_r44_an_index_in_memory_that_is_wanted_is_a_note(site: Site, capsys: Output) -> None:
    r44(site)
    site.set(SINGLE_PROCESS="true")
    code, findings = ask(capsys)
    assert code == 0
    assert any("start no second process" in each["message"] for each in findings)


def test_f31_what_harms_nobody_is_a_note(site: Site, capsys: Output) -> None:
    site.start(COMPRESS="false", REDIS_TIMEOUT="25s")
    code, findings = ask(capsys)
    (told,) = [each["message"] for each in findings if each["subject"] == "fleet"]
    assert (code, "SOJOURN_COMPRESS, SOJOURN_REDIS_TIMEOUT" in told) == (0, True)


def test_f31_who_encrypts_by_another_word_is_told_nothing_that_harms(site: Site, capsys: Output) -> None:
    site.start(ENCRYPT="true")
    site.start(ENCRYPT="false", REDIS_ENCRYPT="true", ACCEPT_UNSEALED_UNTIL=SOON)
    site.set(ENCRYPT="auto", ACCEPT_UNSEALED_UNTIL=SOON)
    code, findings = ask(capsys)
    assert not [each for each in findings if each["is_problem"] and each["subject"] == "fleet"]
    site.set(ENCRYPT="false")  # and the first, which encrypts, has no date
    code, findings = ask(capsys)
    assert (code, [each["subject"] for each in findings if each["is_problem"]].count("fleet")) == (1, 1)


def test_f31_high_security_over_bound_clients_logs_nobody_out(site: Site, capsys: Output) -> None:
    site.start(BINDING="reject")
    site.set(PRESET="high_security")
    assert ask(capsys)[0] == 0


def test_f31_a_shorter_life_is_told_with_what_it_ends(site: Site, capsys: Output) -> None:
    site.start(ABSOLUTE_TIMEOUT="20h")
    code, findings = ask(capsys)
    (told,) = [each["message"] for each in findings if each["subject"] == "fleet"]
    assert (code, "nobody is logged out, but whose session is older than a shorter" in told) == (0, True)


def test_f32_both_kinds_that_announce_are_a_note(site: Site, capsys: Output) -> None:
    site.start(STORE="clustered-redis")
    code, findings = ask(capsys)
    assert code == 0
    assert any("share these sessions; each announces its writes" in each["message"] for each in findings)


def test_a_secret_in_a_file_that_others_read_is_found(site: Site, capsys: Output) -> None:
    site.unset("SECRETS")
    (site.folder / ".env").write_text(f"SOJOURN_RETIRED_SECRETS=[]\nSOJOURN_SECRET={SECRET}\n")
    (site.folder / ".env").chmod(0o644)
    code, findings = ask(capsys)
    assert (code, [each["message"] for each in findings if each["subject"] == "secret"]) == (
        1,
        [".env holds a secret and others may read it: chmod 600 .env"],
    )
    (site.folder / ".env").chmod(0o600)
    assert ask(capsys)[0] == 0


@pytest.mark.parametrize(("mode", "is_told"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_a_secret_of_its_own_file_is_for_its_owner(mode: int, is_told: bool, site: Site, capsys: Output) -> None:
    site.with_a_readable_secret()
    folder = site.folder / "keys"
    (folder / "sojourn_secret").chmod(mode)
    (folder / "sojourn_idle_timeout").write_text("30m")  # no secret, so anybody may read it
    (folder / "sojourn_idle_timeout").chmod(0o644)
    code, findings = ask(capsys)
    assert (code, [each["subject"] for each in findings if each["is_problem"]]) == (
        (1, ["secret"]) if is_told else (0, [])
    )


def test_a_file_of_another_owner_may_be_read_by_the_group_that_the_service_is_in(
    site: Site, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.with_a_readable_secret()
    (site.folder / "keys" / "sojourn_secret").chmod(0o640)
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    assert ask(capsys)[0] == 0


def test_what_a_container_is_given_has_the_mode_that_it_has(
    site: Site, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.with_a_readable_secret()
    monkeypatch.setattr("sojourn.settings.sources.DEFAULT_SECRETS_DIRECTORY", str(site.folder / "keys"))
    site.unset("SECRETS_DIR")
    code, findings = ask(capsys)
    assert (code, [each for each in findings if each["subject"] == "secret"]) == (0, [])


@pytest.mark.parametrize(
    "command",
    [
        ["doctor"],
        ["config", "check", "--connect"],
        ["nodes"],
        ["keys", "rotate", "--step"],
        ["sessions", "ls", "--principal", "ada"],
        ["sessions", "count"],
        ["sessions", "revoke-all", "--principal", "ada"],
        ["sessions", "purge", "--anonymous"],
        ["sessions", "rekey"],
        ["sessions", "rekey", "--dry-run"],
    ],
)
def test_every_command_says_the_same_of_a_wrong_password(command: list[str], site: Site, capsys: Output) -> None:
    site.user(RIGHTS)
    site.set(REDIS_PASSWORD="wrong")
    capsys.readouterr()
    assert main(command) == 1
    output = capsys.readouterr()
    said = output.out + output.err
    (told,) = [line for line in said.splitlines() if line.startswith("error")]
    assert "; correct user and password of SOJOURN_REDIS_URL" in told
    assert "try again later" not in said
    assert "run the command again for the rest" not in said


def test_doctor_leaves_nothing_behind(site: Site, capsys: Output) -> None:
    assert ask(capsys)[0] == 0
    time.sleep(1.1)  # the key on which rights are tried expires
    assert site.server.command("DBSIZE") == 0


def test_the_store_that_sessions_move_from_is_looked_at_too(site: Site, capsys: Output) -> None:
    site.set(FALLBACK_STORE="redis", FALLBACK_UNTIL=SOON)
    site.set(FALLBACK_NAMESPACE="before", FALLBACK_REDIS_URL=site.server.url)
    site.command("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
    code, findings = ask(capsys)
    assert (code, {each["subject"] for each in findings if each["is_problem"]}) == (1, {"eviction"})
