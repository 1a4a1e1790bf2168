"""What a figure was measured on and with: kinds and versions, never names of hosts or paths."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "sojourn",
    "msgspec",
    "cryptography",
    "redis",
    "hiredis",
    "psycopg",
    "sqlalchemy",
    "starlette",
    "starsessions",
    "fastapi-redis-sdk",
    "litestar",
    "aiohttp",
    "aiohttp-session",
    "flask",
    "flask-session",
    "flask-sqlalchemy",
    "django",
    "django-redis",
    "uvicorn",
)


def cores() -> tuple[int | None, int | None]:
    """Return the core for what is measured, with its Redis, and the one for what sends load; None without a choice.

    Redis shares the core: waking a process on another one costs a call as much again, more or less of it from run to
    run, and no library can do anything about that.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    usable = sorted(os.sched_getaffinity(0))
    return usable[-1], usable[0]


def pin(pid: int, core: int | None) -> None:
    """Keep a process on one core, where the system can."""
    if core is not None:
        os.sched_setaffinity(pid, {core})


def describe(*programs: str) -> list[str]:
    """Return the lines that head every profile; *programs* are those of the servers."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    lines = [
        f"machine: {platform.system()} {platform.machine()}, {_processor()}, {usable} cores usable",
        f"python: {platform.python_implementation()} {platform.python_version()}",
    ]
    lines += [f"server: {_server(program)}" for program in programs]
    return [*lines, "packages: " + ", ".join(_versions(PACKAGES))]


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            found = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        found = ""
    return found or "processor unknown"


def _server(program: str) -> str:
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    if told.startswith("postgres"):
        return f"PostgreSQL {told.split()[2]}"
    words = [word for word in told.split() if word.startswith(("v=", "Redis", "Valkey"))]
    return " ".join(words) or "unknown"


def _versions(names: Iterable[str]) -> Iterable[str]:
    for name in names:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
