"""The files of deploy/ fit the schemas of those who read them, and name what there is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sojourn.metrics import METRIC_NAMES
from sojourn.settings import SessionSettings
from sojourn_metrics_opentelemetry.metrics import INSTRUMENTS
from sojourn_store_redis.settings import RedisSettings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
COMPOSE = sorted((DEPLOY / "compose").glob("*.yaml"))
ALERTS = yaml.safe_load((DEPLOY / "monitoring" / "alerts.yaml").read_text())
DASHBOARD = json.loads((DEPLOY / "monitoring" / "dashboard.json").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]

# What reads the files comes with the tools, and not with the environments of `make test-all`.
pytestmark = pytest.mark.server


def by_name(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", MANIFESTS, ids=by_name)
@pytest.mark.parametrize("version", ["1.30", "1.34"])
def test_kubernetes_takes_every_manifest(path: Path, version: str) -> None:
    import kubernetes_validate

    for document in yaml.safe_load_all(path.read_text()):
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("path", COMPOSE, ids=by_name)
def test_compose_takes_every_file(path: Path) -> None:
    import jsonschema

    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
    jsonschema.Draft7Validator(schema).validate(yaml.safe_load(path.read_text()))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(schema).validate({"services": {"shop": {"imagine": "shop:1"}}})


@pytest.mark.parametrize("path", [*MANIFESTS, *COMPOSE], ids=by_name)
def test_every_variable_is_a_setting_and_no_secret_stands_in_a_file(path: Path) -> None:
    text = path.read_text()
    known = {kind.variable_of(name) for kind in (SessionSettings, RedisSettings) for name in kind.model_fields}
    named = set(re.findall(r"\bSOJOURN_[A-Z_]+|\bsojourn_[a-z_]+", text)) - {"SOJOURN_SECRET"}
    assert {name.upper() for name in named} <= known
    assert not re.search(r"(?<![\w-])[\w-]{43}(?![\w-])", text), "what `sojourn keygen` prints has 43 characters"


def deployments() -> Iterator[Any]:
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text()):
            if document["kind"] in {"Deployment", "StatefulSet", "Job"}:
                yield pytest.param(document, id=document["metadata"]["name"])


@pytest.mark.parametrize("document", [*deployments()])
def test_every_pod_runs_without_rights_within_bounds_and_is_probed(document: Any) -> None:
    pod = document["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    for container in pod["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        if document["kind"] != "Job":
            assert {"readinessProbe", "livenessProbe", "resources"} <= container.keys()
            names = set(document["spec"]["selector"]["matchLabels"].items())
            assert names <= set(document["spec"]["template"]["metadata"]["labels"].items())


# -- figures -----------------------------------------------------------------------------------------------------


def queries() -> Iterator[Any]:
    for rule in RULES:
        yield pytest.param(rule["expr"], id=rule["alert"])
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")


@pytest.fixture(scope="module")
def scrape() -> dict[str, set[str]]:
    """Return what Prometheus reads of a process in which each figure was sent once: the labels of each series."""
    import urllib.request

    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.sdk.metrics import MeterProvider
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.parser import text_string_to_metric_families

    from sojourn_metrics_opentelemetry import OpenTelemetryMetrics

    registry = CollectorRegistry()
    reader = PrometheusMetricReader()
    registry.register(reader._collector)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    sink = OpenTelemetryMetrics(meter_provider=provider)
    tags = {"operation": "load", "reason": "corrupt", "kind": "timeout", "calls": "read", "server": "a", "size": "1k"}
    for name in METRIC_NAMES:
        sends: dict[str, Any] = {"counter": sink.increment, "gauge": sink.gauge, "histogram": sink.timing}
        sends[INSTRUMENTS[name].kind](name, 1, tags)
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    server.shutdown()
    server.server_close()
    thread.join()
    provider.shutdown()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.mark.parametrize("query", [*queries()])
def test_every_query_asks_for_what_is_scraped(query: str, scrape: dict[str, set[str]]) -> None:
    about_labels = re.findall(r"\{([^}]*)\}|\b(?:by|ignoring) \(([^)]*)\)", query)
    bare = re.sub(r"\{[^}]*\}|\b(?:by|ignoring) \([^)]*\)", "", query)
    series = set(re.findall(r"\bsojourn_[a-z_]+", bare))
    assert series
    assert series <= scrape.keys()
    labels = {name for matchers, _ in about_labels for name in re.findall(r"([a-z_]+)\s*=", matchers)}
    labels |= {name.strip() for _, names in about_labels for name in names.split(",") if name}
    assert labels <= set().union(*(scrape[name] for name in series))


def test_every_figure_stands_in_the_dashboard(scrape: dict[str, set[str]]) -> None:
    shown = " ".join(target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"])
    left_out = {name for name in scrape if name.startswith("sojourn_") and name not in shown}
    assert left_out == {"sojourn_store_operation_duration_seconds_sum"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_every_alert_says_how_bad_it_is_and_leads_to_what_to_do(rule: Any) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["summary"]
    page, _, heading = rule["annotations"]["runbook"].partition("#")
    text = (ROOT / page).read_text()
    headings = [
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("#")
    ]
    assert not heading or heading in headings
