"""A newcomer's walk: an empty environment, our built wheels, and the commands of a page under "Go to production".

They are given to a shell as they stand; only the server of Redis and the port are the test's own. A browser behind a proxy that
ends TLS then visits. That it takes minutes is said by the number of commands: each of them ends by itself.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from redis import Redis

from tests.docs.pages import blocks, page, section
from tests.packaging.environments import Environment, make_environment, third_parties_of
from tests.servers import LOOPBACK, RedisServer, free_port, release_port

pytestmark = pytest.mark.slow

MOST_COMMANDS = 9
# Serve until the test has seen enough.
SERVE = """
{serve} &
read -r _ || true
kill $!
wait $! || true
"""


class Walk:
    """One page, its commands, and a browser."""

    def __init__(self, framework: str, wheels: dict[str, Path], folder: Path, redis_url: str) -> None:
        text = page(f"docs/quickstarts/{framework}.md")
        (code,) = blocks(text)
        (commands,) = blocks(section(text, "Go to production"), "sh")
        self.port = free_port()
        self.cookie = ""
        self.commands = [line.partition("  #")[0].strip() for line in commands.splitlines()]
        install, *self._rest = self.commands
        self.environment = self._install(install, wheels, folder / "clean")
        (self.environment.folder / "main.py").write_text(code)
        self.log = self.environment.folder / "log"
        self._replace = {"redis://localhost:6379/0": redis_url, ":8000": f":{self.port}", " 8000": f" {self.port}"}

    def _install(self, command: str, wheels: dict[str, Path], folder: Path) -> Environment:
        """Do what `pip install` is told to, from our wheels and what is locked."""
        named = [Requirement(text.strip('"')) for text in command.removeprefix("pip install ").split()]
        (ours,) = (one for one in named if one.name == "sojourn")
        folders = [
            "core",
            *(next(name for name in wheels if name.endswith(f"-{extra}") or name == extra) for extra in ours.extras),
        ]
        assert len(folders) == 1 + len(ours.extras)
        return make_environment(folder, [wheels[name] for name in folders], third_parties_of(*map(str, named)))

    @contextmanager
    def shell(self) -> Iterator[subprocess.Popen[str]]:
        """Run the commands in one shell; the server ends with its input."""
        *prepare, serve = self._rest
        script = "\n".join(["set -eu", *prepare, SERVE.format(serve=serve)])
        for given, own in self._replace.items():
            script = script.replace(given, own)
        path = f"{self.environment.folder / 'bin'}:/usr/bin:/bin"
        with (
            self.log.open("w") as output,
            subprocess.Popen(
                ["bash", "-c", script],
                cwd=self.environment.folder,
                env={"PATH": path, "HOME": str(self.environment.folder)},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                text=True,
                start_new_session=True,
            ) as shell,
        ):
            try:
                yield shell
                shell.communicate(timeout=60)
            finally:
                # The server too, where a test failed in the middle.
                with suppress(ProcessLookupError):
                    os.killpg(shell.pid, signal.SIGKILL)
                release_port(self.port)
        assert "Traceback" not in self.log.read_text(), self.log.read_text()

    def wait(self, shell: subprocess.Popen[str]) -> None:
        """Wait until the server answers."""
        deadline = time.monotonic() + 60
        while not self._answers():
            if shell.poll() is not None or time.monotonic() > deadline:
                pytest.fail(self.log.read_text())
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            return self.ask("GET", "/", cookie="") == []
        except OSError:
            return False

    def ask(self, method: str, path: str, cookie: str | None = None) -> object:
        """Send a request with the cookie of this browser; return the JSON of the answer."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=30)
        headers = {"Cookie": self.cookie if cookie is None else cookie, "X-Forwarded-Proto": "https"}
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        line = answer.getheader("Set-Cookie")
        if line and cookie is None:
            value, _, about = line.partition(";")
            assert value.startswith("__Host-session=")
            assert {" Secure", " HttpOnly", " SameSite=Lax", " Path=/"} <= set(f"{about}".split(";"))
            self.cookie = value
        connection.close()
        return json.loads(body)


@pytest.mark.parametrize("framework", ["fastapi", "flask", "django"])
def test_the_way_to_production_is_walked_in_a_few_commands(
    framework: str, wheels: dict[str, Path], tmp_path: Path, redis_server: RedisServer
) -> None:
    url = f"{redis_server.url.rpartition('/')[0]}/8"
    walk = Walk(framework, wheels, tmp_path, url)
    assert len(walk.commands) <= MOST_COMMANDS
    with Redis.from_url(url) as client, walk.shell() as shell:
        client.flushdb()
        walk.wait(shell)
        assert walk.ask("GET", "/") == []
        assert walk.cookie == ""
        assert walk.ask("POST", "/cart?book=emma") == ["emma"]
        assert walk.ask("GET", "/") == ["emma"]
        token = walk.cookie.partition("=")[2].encode()
        id = urlsafe_b64encode(sha256(token).digest()).rstrip(b"=")
        keys = list(client.scan_iter())
        assert [key for key in keys if key.endswith(id)], "the record is in Redis, under the hash of its token"
        assert not [key for key in keys if token in key]
        assert not [key for key in keys if client.type(key) == b"string" and b"emma" in (client.get(key) or b"")]
        assert walk.ask("GET", "/", cookie="") == []


def test_the_pages_of_a_walk_say_the_same_but_for_their_server() -> None:
    def settings(framework: str) -> list[str]:
        (commands,) = blocks(section(page(f"docs/quickstarts/{framework}.md"), "Go to production"), "sh")
        return re.findall(r"^(?:export|sojourn) .*$", commands, re.MULTILINE)

    assert settings("fastapi") == settings("flask") == settings("django")
