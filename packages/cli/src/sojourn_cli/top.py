"""The command ``sojourn top``: what a fleet is doing now, from the Prometheus endpoints of its processes.

It reads what the metrics sink ``opentelemetry`` sends, in the text format of Prometheus.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.request import urlopen

import click

from sojourn_cli.output import WELL, WRONG, for_programs, print_table

if TYPE_CHECKING:
    from rich.console import RenderableType

Labels: TypeAlias = tuple[tuple[str, str], ...]
Samples: TypeAlias = dict[tuple[str, Labels], float]

_SAMPLE: Final = re.compile(r"^(sojourn_\w+)(?:\{(.*)\})? (\S+)(?: \d+)?$")
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPED: Final = {r"\\": "\\", r"\"": '"', r"\n": "\n"}
_DURATION: Final = "sojourn_store_operation_duration_seconds"
_BREAKER: Final = "sojourn_circuit_breaker_state"
_LINK: Final = "sojourn_link_down"
_STATES: Final = ("closed", "open", "half open")
_QUANTILES: Final = (0.5, 0.95, 0.99)
_TIMEOUT: Final = 5.0
_LARGEST: Final = 16 * 1024 * 1024
_TOGETHER: Final = 16


@dataclass(frozen=True)
class Scrape:
    """What all endpoints said at one time, added up; of a breaker the worst state counts."""

    at: float
    samples: Samples
    not_closed: Mapping[str, int]
    """In how many processes a breaker is not closed, by the calls that it is for."""
    down: Mapping[str, str]
    """The endpoints that did not answer, with the cause."""


@dataclass(frozen=True)
class Calls:
    """How calls of the store went: their number, and the milliseconds within which shares of them ended."""

    number: float
    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True)
class Breaker:
    """The worst state of a breaker in the fleet, and in how many processes it is not closed."""

    state: str
    processes: int


@dataclass(frozen=True)
class Figures:
    """What is shown: what was counted within *seconds*, or since the processes began, and how things stand."""

    seconds: float | None
    sessions: Mapping[str, float]
    calls: Mapping[str, Calls]
    errors: Mapping[str, float]
    breakers: Mapping[str, Breaker]
    links_down: float
    down: Mapping[str, str]
    """The endpoints that did not answer, with the cause."""


def read_samples(text: str) -> Samples:
    """Return the samples of sojourn in the text format of Prometheus; whatever else is there is passed over."""
    found: Samples = {}
    for line in text.splitlines():
        sample = _SAMPLE.match(line)
        if sample is None:
            continue
        try:
            value = float(sample[3])
        except ValueError:
            continue
        labels = sorted(
            (name, re.sub(r"\\.", lambda escape: _ESCAPED.get(escape[0], escape[0]), text))
            for name, text in _LABEL.findall(sample[2] or "")
            if not name.startswith("otel_")
        )
        found[sample[1], tuple(labels)] = value
    return found


def add_up(scraped: Iterable[Samples]) -> tuple[Samples, dict[str, int]]:
    """Return the sum over all processes, the worst state of each breaker, and in how many each is not closed."""
    total: Samples = defaultdict(float)
    not_closed: dict[str, int] = defaultdict(int)
    for samples in scraped:
        for (name, labels), value in samples.items():
            if not name.startswith(_BREAKER):
                total[name, labels] += value
                continue
            told = dict(labels)
            calls = f"{told.get('sojourn_calls', '')} {told.get('sojourn_server', '')}".strip()
            key = _BREAKER, (("calls", calls),)
            total[key] = max(total[key], value)
            not_closed[calls] += value > 0
    return dict(total), dict(not_closed)


def quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """Return the seconds within which that share of calls ended, by counts up to each bound; None without calls."""
    bounds = sorted(buckets)
    calls = buckets[bounds[-1]] if bounds else 0.0
    if calls <= 0:
        return None
    wanted, below, lower = share * calls, 0.0, 0.0
    for bound in bounds:
        count = buckets[bound]
        if count >= wanted:
            if bound == math.inf or count == below:
                return lower
            return lower + (bound - lower) * (wanted - below) / (count - below)
        below, lower = count, bound
    return lower


def since(before: Samples | None, now: Samples) -> Samples:
    """Return what was counted in between; a count that became smaller began anew with its process."""
    if before is None:
        return now
    return {key: value - before.get(key, 0.0) if value >= before.get(key, 0.0) else value for key, value in now.items()}


def figures(before: Scrape | None, now: Scrape) -> Figures:
    """Return what was counted between two scrapes, or since the processes began, and how things stand."""
    counted = since(None if before is None else before.samples, now.samples)
    sessions: dict[str, float] = defaultdict(float)
    errors: dict[str, float] = defaultdict(float)
    histograms: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    for (name, labels), value in counted.items():
        told = dict(labels)
        operation = told.get("sojourn_operation", "")
        if name.startswith("sojourn_session_") and name.endswith("_total"):
            word = name.removeprefix("sojourn_session_").removesuffix("_total")
            sessions[f"{word} {told.get('sojourn_reason', '')}".strip()] += value
        elif name == "sojourn_store_error_total":
            errors[f"{operation} {told.get('error_type', '')}".strip()] += value
        elif name == f"{_DURATION}_bucket":
            histograms[operation][float(told.get("le", "inf"))] += value
    return Figures(
        seconds=None if before is None else now.at - before.at,
        sessions=dict(sorted(sessions.items())),
        calls={operation: _calls(buckets) for operation, buckets in sorted(histograms.items())},
        errors=dict(sorted(errors.items())),
        breakers={
            dict(labels)["calls"]: Breaker(_STATES[min(int(value), 2)], now.not_closed.get(dict(labels)["calls"], 0))
            for (name, labels), value in sorted(now.samples.items())
            if name == _BREAKER
        },
        links_down=sum(value for (name, _), value in now.samples.items() if name.startswith(_LINK)),
        down=now.down,
    )


def _calls(buckets: Mapping[float, float]) -> Calls:
    within = [quantile(share, buckets) for share in _QUANTILES]
    return Calls(max(buckets.values()), *(None if value is None else round(value * 1000, 3) for value in within))


@click.command()
@click.option(
    "--url",
    "urls",
    multiple=True,
    required=True,
    help="Where a process tells: http://10.0.0.1:9464/metrics. Repeat it.",
)
@click.option(
    "--interval", type=click.FloatRange(0.1), default=2.0, show_default=True, help="Seconds between two looks."
)
@click.option("--once", is_flag=True, help="Look once: what was counted since the processes began.")
@for_programs
def top(*, urls: Sequence[str], interval: float, once: bool, as_json: bool) -> int:
    """Show rates, outcomes, latencies and breakers of a fleet, as they are now; ^C ends it.

    With --json a line for each look. Exit code 1 when no endpoint answers.
    """
    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise click.UsageError(f"{url} is no http:// or https:// URL")
    now = scrape(urls)
    if once:
        told = figures(None, now)
        if as_json:
            click.echo(json.dumps(asdict(told)))
        else:
            for heading, rows in _tables(told):
                print_table(heading, rows)
                click.echo()
        return WRONG if len(now.down) == len(urls) else WELL
    if as_json:
        while True:
            time.sleep(interval)
            before, now = now, scrape(urls)
            click.echo(json.dumps(asdict(figures(before, now))))
    from rich.live import Live

    with Live(_screen(figures(None, now)), screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval)
            before, now = now, scrape(urls)
            live.update(_screen(figures(before, now)), refresh=True)


def scrape(urls: Sequence[str]) -> Scrape:
    """Ask all endpoints at once."""
    with ThreadPoolExecutor(min(_TOGETHER, len(urls))) as threads:
        answers = dict(zip(urls, threads.map(_ask, urls), strict=True))
    samples, not_closed = add_up(answer for answer in answers.values() if not isinstance(answer, str))
    down = {url: answer for url, answer in answers.items() if isinstance(answer, str)}
    return Scrape(time.monotonic(), samples, not_closed, down)


def _ask(url: str) -> Samples | str:
    """Return what an endpoint says, or why it does not."""
    try:
        with urlopen(url, timeout=_TIMEOUT) as reply:  # noqa: S310 - its scheme was looked at
            return read_samples(reply.read(_LARGEST).decode("utf-8", "replace"))
    except (OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def _tables(told: Figures) -> list[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """Return what is shown as tables, each with its heading; only those that hold something."""
    seconds = told.seconds
    unit = "SINCE START" if seconds is None else "PER SECOND"

    def rate(value: float) -> str:
        return f"{value:.0f}" if seconds is None else f"{value / seconds:.1f}"

    def within(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    tables: list[tuple[tuple[str, ...], list[tuple[str, ...]]]] = [
        (("SESSIONS", unit), [(name, rate(value)) for name, value in told.sessions.items()]),
        (
            ("CALLS OF THE STORE", unit, "P50 MS", "P95 MS", "P99 MS"),
            [(name, rate(of.number), *map(within, (of.p50, of.p95, of.p99))) for name, of in told.calls.items()],
        ),
        (("ERRORS", unit), [(name, rate(value)) for name, value in told.errors.items()]),
        (
            ("BREAKER", "WORST", "PROCESSES NOT CLOSED"),
            [(name, of.state, str(of.processes)) for name, of in told.breakers.items()],
        ),
        (("LINKS", "DOWN"), [("of local caches", f"{told.links_down:.0f}")] if told.links_down else []),
        (("ENDPOINT", "DOES NOT ANSWER"), list(told.down.items())),
    ]
    return [(heading, rows) for heading, rows in tables if rows]


def _screen(told: Figures) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown: list[Table] = []
    for heading, rows in _tables(told):
        table = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0), header_style="bold")
        for title in heading:
            table.add_column(Text(title))
        for row in rows:
            table.add_row(*map(Text, row))  # as text: whatever an endpoint says, it is no markup
        shown.append(table)
    return Group(*shown)
