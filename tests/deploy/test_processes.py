"""What the compose files start in containers, started here without: the same commands, on ports of loopback."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.servers import free_port, release_port
from tests.web_servers import WebServer

DEPLOY = Path(__file__).parents[2] / "deploy"
PASSWORD, SECRET = "p" * 43, "s3" + "cret" * 10 + "A"

pytestmark = [pytest.mark.server, pytest.mark.slow]


class Host:
    """One machine in the place of all containers: each service has a folder, and a port where it has one."""

    def __init__(self, name: str, folder: Path) -> None:
        self.services: dict[str, Any] = yaml.safe_load((DEPLOY / "compose" / f"{name}.yaml").read_text())["services"]
        self.folder = folder
        self.ports = {name: free_port() for name in self.services if name.startswith(("redis-", "sentinel-"))}
        secrets = folder / "secrets"
        secrets.mkdir()
        (secrets / "sojourn_secret").write_text(SECRET)
        (secrets / "sojourn_redis_password").write_text(PASSWORD)

    def here(self, text: str, service: str) -> str:
        """Return a command or setting of a container as it is on this machine."""
        own = self.folder / service
        own.mkdir(exist_ok=True)
        text = text.replace("$$", "$")
        text = re.sub(
            r"\$\(getent hosts (\S+) \| cut[^)]*\):6379", lambda found: f"127.0.0.1:{self.ports[found[1]]}", text
        )
        text = re.sub(r"-h (redis-\d)", lambda found: f"-h 127.0.0.1 -p {self.ports[found[1]]}", text)
        text = re.sub(
            r"(?<!announce-hostname )\b((?:redis|sentinel)-\d)([ :])6379|\b(sentinel-\d)(:)26379", self._address, text
        )
        text = re.sub(r"(announce-ip) redis-\d", r"\1 127.0.0.1", text)
        text = re.sub(r"(announce-hostname) redis-\d", r"\1 localhost", text)
        if service in self.ports:
            text = re.sub(r"(-?-?port) 2?6379", rf"\1 {self.ports[service]}", text)
        places = {"/run/secrets": self.folder / "secrets", "/data": own, "/tmp": own}
        return re.sub(r"(?<![\w/])(/run/secrets|/data|/tmp)(?=/)", lambda found: str(places[found[1]]), text)

    def _address(self, found: re.Match[str]) -> str:
        name, between = (found[1], found[2]) if found[1] else (found[3], found[4])
        return f"127.0.0.1{between}{self.ports[name]}"

    @contextmanager
    def running(self, service: str) -> Iterator[None]:
        """Run the command of a service in its folder."""
        command = [self.here(part, service) for part in self.services[service]["command"]]
        own = self.folder / service
        with (own / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=own, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            self.wait_until(service, process)
            yield
        finally:
            # told to end, a primary first waits for replicas that are gone, and longer on a busy machine
            process.kill()
            process.wait()
            release_port(self.ports[service])

    def wait_until(self, service: str, process: subprocess.Popen[bytes]) -> None:
        """Wait until the service is healthy, as its health check says."""
        test = self.services[service].get("healthcheck", {}).get("test", ["CMD-SHELL", "redis-cli ping | grep -q PONG"])
        check = self.here(test[1], service).replace("redis-cli", f"redis-cli -p {self.ports[service]}")
        for _ in range(600):
            if subprocess.run(["sh", "-c", check], check=False, capture_output=True, timeout=60).returncode == 0:
                return
            assert process.poll() is None, (self.folder / service / "log").read_text()
            time.sleep(0.05)
        pytest.fail(f"{service} is not healthy:\n{(self.folder / service / 'log').read_text()}")

    def once(self, service: str) -> None:
        """Run a service that ends by itself."""
        command = [self.here(part, service) for part in self.services[service]["command"]]
        done = subprocess.run(command, cwd=self.folder, check=False, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr

    def application(self, metrics_port: int) -> WebServer:
        """Return the server of the application, with the settings of its container."""
        variables = {
            name: self.here(value, "application") for name, value in self.services["application"]["environment"].items()
        }
        variables |= {"SOJOURN_SECRETS_DIR": str(self.folder / "secrets"), "METRICS_PORT": str(metrics_port)}
        # Over http the cookie cannot be Secure; the rest is that of production.
        variables |= {"SOJOURN_PRESET": "testing", "SOJOURN_REQUEST_DEADLINE": "10s"}
        arguments = ["-m", "uvicorn", "--host", "127.0.0.1", "--port", "{port}", "shop:app"]
        return WebServer(self.folder, arguments, variables, paths=[DEPLOY / "application"], health="/livez")


def get(url: str, cookie: str = "") -> tuple[int, str, str]:
    request = urllib.request.Request(url, headers={"Cookie": cookie} if cookie else {})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.status, answer.read().decode(), (answer.headers["Set-Cookie"] or "").partition(";")[0]


def begun(server: WebServer) -> tuple[int, str, str]:
    """Begin a session, as soon as the primary takes writes: its first replica has to be there."""
    for _ in range(200):
        try:
            return get(server.url)
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE:
                raise
            time.sleep(0.1)
    pytest.fail(server.log.read_text())


@pytest.mark.parametrize("name", ["sentinel", "cluster"])
def test_the_application_serves_sessions_on_what_compose_starts(name: str, tmp_path: Path) -> None:
    host = Host(name, tmp_path)
    metrics = free_port()
    with ExitStack() as stack:
        for service in host.ports:
            stack.enter_context(host.running(service))
        if "cluster" in host.services:
            host.once("cluster")
            host.once("cluster")  # it is there by now
        server = stack.enter_context(host.application(metrics))
        check = [
            part.replace("8000", str(server.port)) for part in host.services["application"]["healthcheck"]["test"][1:]
        ]
        for _ in range(200):  # replicas and slots take a moment
            if (
                subprocess.run([sys.executable, *check[1:]], check=False, capture_output=True, timeout=60).returncode
                == 0
            ):
                break
            time.sleep(0.1)
        status, body, cookie = begun(server)
        assert (status, body) == (200, "page 1 of your visit\n")
        assert get(server.url, cookie)[1] == "page 2 of your visit\n"
        assert get(f"{server.url}/readyz")[:2] == (200, '{"status": "up"}')
        figures = get(f"http://127.0.0.1:{metrics}/metrics")[1]
        assert re.search(r"^sojourn_session_created_total\{[^}]*\} 1\.0$", figures, re.MULTILINE)
    release_port(metrics)
