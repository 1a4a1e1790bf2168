"""One contender under callgrind: counts the instructions of its requests, alone in a process of its own.

Only what is asked for is counted: the program switches the counting on and off by valgrind's client requests.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import mmap
import platform
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks.suite.clients import Jar
from benchmarks.suite.contract import SCENARIOS, Place, Scenario
from benchmarks.suite.registry import find
from benchmarks.suite.worker import Bench, drive

# The special sequence of valgrind.h for x86-64, around which it looks for a request at the address in rdi.
_CALL = bytes.fromhex("4889f8 31d2 48c1c703 48c1c70d 48c1c73d 48c1c733 4887db 4889d0 c3")
_DUMP, _ZERO, _START = 0x43540000, 0x43540001, 0x43540004
WARM_UP = 30
CROWD = "crowd"
"""A read whose cookie travels behind forty others, as analytics set them."""
COUNTED = {**SCENARIOS, CROWD: SCENARIOS["read"]}
OTHER_COOKIES = "; ".join(f"_ga_{number:02}=GS1.1.17{number:08}.1.1.17{number:08}.0.0.0" for number in range(40))


class Valgrind:
    """The valgrind under which this process runs, writing its counts to *out*.N."""

    def __init__(self, out: str) -> None:
        if platform.machine() not in {"x86_64", "AMD64"}:
            raise SystemExit(f"instructions are counted on x86-64 only, and this machine is {platform.machine()}")
        self._code = mmap.mmap(-1, len(_CALL), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._code.write(_CALL)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._code))
        self._call = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_void_p)(address)
        self._out = out
        self._dumps = 0

    def ask(self, request: int) -> None:
        """Make one client request."""
        arguments = (ctypes.c_ulong * 6)(request)
        self._call(ctypes.addressof(arguments))

    def begin(self) -> None:
        """Count from here on."""
        self.ask(_ZERO)

    def count(self) -> int:
        """Return the instructions since `begin`."""
        self.ask(_DUMP)
        self._dumps += 1
        dump = Path(f"{self._out}.{self._dumps}")
        found = re.search(r"^(?:totals|summary): (\d+)", dump.read_text(encoding="utf-8"), re.MULTILINE)
        if found is None:
            raise SystemExit(f"{dump} has no total; does this process run under valgrind --tool=callgrind?")
        dump.unlink()
        return int(found[1])


async def count_requests(
    valgrind: Valgrind, bench: Bench, name: str, scenario: Scenario, requests: int
) -> dict[str, Any]:
    """Return the instructions of one request with sessions and of one without, each counted twice."""
    await bench.measure(scenario, WARM_UP)  # also checks that the work is done
    jar = Jar()
    cookie = await bench.log_in() if scenario.sends_cookie else ""
    if name == CROWD:
        cookie = f"{OTHER_COOKIES}; {cookie}"
    counts: dict[str, list[float]] = {"with": [], "without": []}
    for _ in range(2):
        for which, client in (("with", bench.sessions), ("without", bench.baseline)):
            await bench.ask(client, scenario.path, jar, 2, cookie=cookie, keep=False)
            gc.collect()
            valgrind.begin()
            await bench.ask(client, scenario.path, jar, requests, cookie=cookie, keep=scenario.keeps_cookie)
            counts[which].append(valgrind.count() / requests)
            if scenario.keeps_cookie:
                cookie = jar.cookie or cookie
    return {"scenario": name, **counts}


async def _serve(name: str, redis_url: str, out: str, scenarios: list[str], requests: int) -> None:
    bench = Bench(find(name), Place(redis_url))
    valgrind = Valgrind(out)
    gc.collect()
    gc.freeze()
    valgrind.ask(_START)
    for scenario in scenarios:
        sys.stdout.write(
            json.dumps(await count_requests(valgrind, bench, scenario, COUNTED[scenario], requests)) + "\n"
        )
        sys.stdout.flush()
    if bench.pair.close is not None:
        await bench.pair.close()


def main() -> None:
    """Count the contender named first on the Redis named second; the rest: where valgrind writes, scenarios, requests."""
    name, redis_url, out, scenarios, requests = sys.argv[1:6]
    work = _serve(name, redis_url, out, scenarios.split(","), int(requests))
    if find(name).is_sync:
        drive(work)
    else:
        asyncio.run(work)


if __name__ == "__main__":
    main()
