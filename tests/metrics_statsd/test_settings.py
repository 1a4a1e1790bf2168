"""``SOJOURN_STATSD_*`` and the plugin that reads them."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pluggy
import pytest

import sojourn_metrics_statsd
from sojourn import hookspecs
from sojourn.errors import ConfigurationError
from sojourn.settings import SessionSettings
from sojourn_metrics_statsd import StatsdMetrics
from sojourn_metrics_statsd.settings import StatsdSettings
from tests.metrics_statsd.agents import Agent


@pytest.fixture
def session_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SessionSettings:
    monkeypatch.chdir(tmp_path)
    return SessionSettings(preset="testing", metrics="statsd")


@pytest.fixture
def plugins() -> pluggy.PluginManager:
    plugins = pluggy.PluginManager(hookspecs.PROJECT_NAME)
    plugins.add_hookspecs(hookspecs)
    plugins.register(sojourn_metrics_statsd)
    plugins.check_pending()
    return plugins


def test_the_entry_point_names_the_plugin() -> None:
    found = entry_points(group="sojourn", name="metrics-statsd")
    assert [entry.value for entry in found] == ["sojourn_metrics_statsd"]


def test_the_plugin_answers_to_its_name_alone(plugins: pluggy.PluginManager, session_settings: SessionSettings) -> None:
    assert plugins.hook.sojourn_create_metrics(name="log", settings=session_settings) is None
    metrics = plugins.hook.sojourn_create_metrics(name="statsd", settings=session_settings)
    assert isinstance(metrics, StatsdMetrics)
    metrics.close()


def test_the_variables_describe_the_sink(
    plugins: pluggy.PluginManager, session_settings: SessionSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SOJOURN_STATSD_SOCKET_PATH", str(tmp_path / "agent"))
    monkeypatch.setenv("SOJOURN_STATSD_PREFIX", "shop")
    monkeypatch.setenv("SOJOURN_STATSD_DIALECT", "dogstatsd")
    monkeypatch.setenv("SOJOURN_STATSD_TAGS", " env:test, blue,")
    monkeypatch.setenv("SOJOURN_STATSD_BUFFER", "true")
    with Agent.unix(tmp_path / "agent") as agent:
        metrics = plugins.hook.sojourn_create_metrics(name="statsd", settings=session_settings)
        metrics.increment("session.created")
        metrics.increment("session.created", 2)
        metrics.close()
        assert agent.datagram() == "shop.session.created:1|c|#env:test,blue\nshop.session.created:2|c|#env:test,blue\n"


def test_host_port_and_sample_rate_come_from_variables(
    session_settings: SessionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOJOURN_STATSD_HOST", "192.0.2.7")
    monkeypatch.setenv("SOJOURN_STATSD_PORT", "9125")
    monkeypatch.setenv("SOJOURN_STATSD_SAMPLE_RATE", "0.25")
    metrics = StatsdMetrics.from_settings(StatsdSettings.build(session_settings))
    assert (metrics._client.host, metrics._client.port, metrics._sample_rate) == ("192.0.2.7", 9125, 0.25)
    metrics.close()


def test_nothing_set_means_plain_statsd_on_this_machine(session_settings: SessionSettings) -> None:
    settings = StatsdSettings.build(session_settings)
    assert settings.model_dump() == {
        "host": "localhost",
        "port": 8125,
        "socket_path": None,
        "prefix": "",
        "tags": (),
        "dialect": "plain",
        "sample_rate": 1.0,
        "buffer": False,
    }
    assert all(field.description for field in StatsdSettings.model_fields.values())


def test_the_documentation_lists_every_variable_with_its_default() -> None:
    text = Path(__file__).parents[2].joinpath("docs", "operations.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| `(SOJOURN_STATSD_\w+)` \| `?([^`|]+?)`? \|", text, re.MULTILINE))
    defaults = {name: field.default for name, field in StatsdSettings.model_fields.items()}
    assert table == {
        StatsdSettings.variable_of(name): {None: "none", "": "empty", (): "empty", False: "false"}.get(
            value, str(value)
        )
        for name, value in defaults.items()
    }


@pytest.mark.parametrize(
    ("wrong", "variable"),
    [
        ({"port": 0}, "SOJOURN_STATSD_PORT"),
        ({"port": 65536}, "SOJOURN_STATSD_PORT"),
        ({"socket_path": ""}, "SOJOURN_STATSD_SOCKET_PATH"),
        ({"socket_path": "/" + "a" * 107}, "SOJOURN_STATSD_SOCKET_PATH"),
        ({"socket_path": "a\0b"}, "SOJOURN_STATSD_SOCKET_PATH"),
        ({"prefix": "shop."}, "SOJOURN_STATSD_PREFIX"),
        ({"prefix": "a:1|c\nb"}, "SOJOURN_STATSD_PREFIX"),
        ({"dialect": "graphite"}, "SOJOURN_STATSD_DIALECT"),
        ({"tags": ["env:test"]}, "SOJOURN_STATSD_DIALECT=dogstatsd"),
        ({"tags": ["a,b"], "dialect": "dogstatsd"}, "SOJOURN_STATSD_TAGS"),
        ({"tags": [""], "dialect": "dogstatsd"}, "SOJOURN_STATSD_TAGS"),
        ({"tags": "env", "dialect": "dogstatsd"}, "SOJOURN_STATSD_TAGS"),
        ({"sample_rate": 0}, "SOJOURN_STATSD_SAMPLE_RATE"),
        ({"sample_rate": 1.01}, "SOJOURN_STATSD_SAMPLE_RATE"),
        ({"sample_rate": float("nan")}, "SOJOURN_STATSD_SAMPLE_RATE"),
    ],
)
def test_what_no_agent_would_understand_is_refused_naming_the_variable(wrong: dict[str, Any], variable: str) -> None:
    with pytest.raises(ConfigurationError, match=variable):
        StatsdMetrics(**wrong)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SOJOURN_STATSD_PORT", "many"),
        ("SOJOURN_STATSD_PORT", "70000"),
        ("SOJOURN_STATSD_DIALECT", "datadog"),
        ("SOJOURN_STATSD_TAGS", "env:test"),
        ("SOJOURN_STATSD_SAMPLE_RATE", "2"),
        ("SOJOURN_STATSD_BUFFER", "perhaps"),
    ],
)
def test_a_wrong_variable_is_named(
    plugins: pluggy.PluginManager,
    session_settings: SessionSettings,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=variable):
        plugins.hook.sojourn_create_metrics(name="statsd", settings=session_settings)


def test_importing_the_plugin_does_not_import_the_settings() -> None:
    program = "import sys, sojourn_metrics_statsd; print('pydantic_settings' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
