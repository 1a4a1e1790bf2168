from __future__ import annotations

import io
import json
import logging
import os
import runpy
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from sojourn.crypto import is_token
from sojourn.crypto.keys import new_secret
from sojourn.settings import SessionSettings
from sojourn_cli import command, main
from sojourn_store_redis.settings import RedisSettings

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_r30_keygen_prints_a_new_secret_and_nothing_else(capsys: Output) -> None:
    assert main(["keygen"]) == 0
    first = capsys.readouterr().out
    assert main(["keygen"]) == 0
    second = capsys.readouterr().out
    assert is_token(first.removesuffix("\n"))
    assert first != second


def test_a_secret_of_keygen_starts_production(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    main(["keygen"])
    monkeypatch.setenv("SOJOURN_SECRET", capsys.readouterr().out.strip())
    monkeypatch.setenv("SOJOURN_PRESET", "production")
    assert main(["config", "check"]) == 0


def test_the_version_is_that_of_the_distribution(capsys: Output) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sojourn {version('sojourn')}\n"


@pytest.mark.parametrize(
    "arguments", [[], ["config"], ["configure"], ["plugins", "--xml"], ["config", "show", "store"]]
)
def test_a_command_that_is_misused_exits_with_2_and_tells_how(arguments: list[str], capsys: Output) -> None:
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "Usage: sojourn" in output.err


def test_help_is_no_error(capsys: Output) -> None:
    assert main(["--help"]) == 0
    assert "keygen" in capsys.readouterr().out


def test_plugins_are_listed_with_what_is_built_in(capsys: Output) -> None:
    assert main(["plugins"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["KIND", "NAME", "FROM"]
    assert ["store", "memory", "sojourn", "built", "in"] in lines
    assert ["store", "redis", "sojourn-store-redis", version("sojourn-store-redis")] in lines


def test_plugins_are_listed_for_programs(capsys: Output) -> None:
    assert main(["plugins", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["built_in"]["metrics"] == ["null", "log"]
    names = {plugin["entry_point"]: plugin["distribution"] for plugin in listed["installed"]}
    assert names["store-clustered-redis"] == "sojourn-store-redis"


def test_plugins_that_conflict_are_marked_and_exit_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    for name in ("alpha", "beta"):
        metadata = tmp_path / name / f"{name}-1.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (metadata / "entry_points.txt").write_text("[sojourn]\nstore-same = x\nthing-odd = x\n")
        monkeypatch.syspath_prepend(tmp_path / name)
    assert main(["plugins"]) == 1
    output = capsys.readouterr().out
    assert output.count("CONFLICT") == 2
    assert "nothing asks for a 'thing'" in output
    assert main(["plugins", "--json"]) == 1


def test_every_setting_is_shown_with_its_origin(
    capsys: Output, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SOJOURN_STORE", "redis")
    monkeypatch.setenv("SOJOURN_TRUSTED_PROXIES", "10.0.0.0/8,::1")
    (tmp_path / ".env").write_text("SOJOURN_ABSOLUTE_TIMEOUT=90m\nDATABASE_URL=x\n")
    assert main(["config", "show"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["SOJOURN_STORE", "redis", "environment", "memory"] in lines
    assert ["SOJOURN_ABSOLUTE_TIMEOUT", "1h30m", ".env", "24h"] in lines
    assert ["SOJOURN_IDLE_TIMEOUT", "1h", "preset", "1h"] in lines
    assert ["SOJOURN_COOKIE_SECURE", "true", "default", "true"] in lines
    assert ["SOJOURN_MAX_SESSIONS", "off", "default", "off"] in lines
    assert ["SOJOURN_ENCRYPT", "auto", "default", "auto"] in lines
    assert ["SOJOURN_NODE_ID", "-", "default", "-"] in lines
    assert ["SOJOURN_TRUSTED_PROXIES", "10.0.0.0/8,::1", "environment", "-"] in lines
    shown = {line[0] for line in lines if line and line[0].startswith("SOJOURN_")} - {"SOJOURN_REDIS_*,"}
    assert shown == {kind.variable_of(name) for kind in (SessionSettings, RedisSettings) for name in kind.model_fields}


def test_the_settings_of_plugins_are_shown_like_the_others(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOJOURN_STORE", "redis")
    monkeypatch.setenv("SOJOURN_PRESET", "development")
    monkeypatch.setenv("SOJOURN_REDIS_NAMESPACE", "shop")
    assert main(["config", "show", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["plugins"]
    assert shown["SOJOURN_REDIS_NAMESPACE"] == {"value": "shop", "from": "environment", "default": None}
    assert shown["SOJOURN_REDIS_TIMEOUT"] == {"value": "2s", "from": "preset", "default": "500ms"}
    url = "redis://localhost:6379/0"
    assert shown["SOJOURN_REDIS_URL"] == {"value": url, "from": "default", "default": url}
    assert not [name for name in shown if name.startswith("SOJOURN_STATSD_")]
    assert main(["config", "show", "--json", "--all"]) == 0
    assert "SOJOURN_STATSD_HOST" in json.loads(capsys.readouterr().out)["plugins"]


@pytest.mark.parametrize("action", ["show", "check"])
def test_a_misspelt_setting_of_a_plugin_is_noticed(
    action: str, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOJOURN_STORE", "clustered-redis")
    monkeypatch.setenv("SOJOURN_SECRET", new_secret())
    assert main(["config", action]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("SOJOURN_REDIS_MAX_STALENES", "2s")
    assert main(["config", action]) == (action == "check")
    assert "did you mean SOJOURN_REDIS_MAX_STALENESS?" in capsys.readouterr().err


def test_what_is_wrong_with_a_plugin_is_told_beside_the_settings(
    capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOJOURN_STORE", "redis")
    monkeypatch.setenv("SOJOURN_REDIS_TIMEOUT", "soon")
    assert main(["config", "show"]) == 1
    output = capsys.readouterr()
    assert "SOJOURN_STORE" in output.out
    assert "error  SOJOURN_REDIS_TIMEOUT = 'soon' (from the environment): write a duration" in output.err


def test_what_is_shown_may_be_limited_to_what_was_changed(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOJOURN_NAMESPACE", "shop")
    assert main(["config", "show", "--changed"]) == 0
    output = capsys.readouterr().out
    assert "SOJOURN_NAMESPACE" in output
    assert "SOJOURN_IDLE_TIMEOUT" not in output, "the preset sets what is the default"
    assert "SOJOURN_COOKIE_PATH" not in output


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_r6_config_show_prints_no_secret(
    form: list[str], capsys: Output, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hidden = [new_secret() for _ in range(5)]
    monkeypatch.setenv("SOJOURN_SECRETS", json.dumps(hidden[:2]))
    monkeypatch.setenv("SOJOURN_SALT", hidden[2])
    monkeypatch.setenv("SOJOURN_REDIS_URL", f"redis://u:{hidden[3]}@h")
    monkeypatch.setenv("SOJOURN_SECRET_KEY", hidden[4])
    (tmp_path / ".env").write_text(f"SOJOURN_SECRET={hidden[0]}\n")
    assert main(["config", "show", "--all", *form]) == 0
    output = capsys.readouterr()
    assert "(2 set)" in output.out
    assert "(set)" in output.out
    assert "SOJOURN_REDIS_URL" in output.out
    assert "warning: SOJOURN_SECRET_KEY (from the environment) is no setting" in output.err
    assert not any(secret in output.out + output.err for secret in hidden)


def test_config_show_for_programs(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOJOURN_IDLE_TIMEOUT", "5m")
    assert main(["config", "show", "--json", "--changed"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["settings"]["SOJOURN_IDLE_TIMEOUT"] == {"value": "5m", "from": "environment", "default": "1h"}
    assert shown["plugins"] == {}


def test_config_check_tries_everything_and_reports_every_problem(
    capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOJOURN_STORE", "nowhere")
    monkeypatch.setenv("SOJOURN_METRICS", "nothing")
    monkeypatch.setenv("SOJOURN_STOER", "x")
    assert main(["config", "check"]) == 1
    output = capsys.readouterr()
    assert "error  secret: the production preset needs a secret" in output.err
    assert "sojourn keygen" in output.err
    assert "error  store: no store is called 'nowhere'" in output.err
    assert "error  metrics: no metrics are called 'nothing'" in output.err
    assert "warning: SOJOURN_STOER (from the environment)" in output.err
    assert "ok     cipher" in output.out


def test_r44_what_only_the_parts_together_get_wrong_is_found(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOJOURN_SECRET", new_secret())
    monkeypatch.setenv("SOJOURN_STORE", "cookie")
    monkeypatch.setenv("SOJOURN_REVOCATION_STORE", "memory")
    assert main(["config", "check"]) == 1
    output = capsys.readouterr()
    assert "ok     revocation store" in output.out
    assert "error  manager: the revocation index is in the memory of this process" in output.err
    monkeypatch.setenv("SOJOURN_SINGLE_PROCESS", "true")
    assert main(["config", "check"]) == 0


def test_wrong_settings_are_told_on_standard_error(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOJOURN_PRESET", "prod")
    for action in ("show", "check"):
        assert main(["config", action]) == 1
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith("error: SOJOURN_PRESET = 'prod' (from the environment): choose")


def test_the_log_is_left_as_it_was() -> None:
    before = list(logging.getLogger("sojourn").handlers)
    main(["config", "show"])
    assert logging.getLogger("sojourn").handlers == before


def test_a_reader_that_has_seen_enough_is_no_error(monkeypatch: pytest.MonkeyPatch, capfd: Output) -> None:
    def refuse(*_: object) -> None:
        raise BrokenPipeError

    closed: list[tuple[int, int]] = []
    monkeypatch.setattr("click.echo", refuse)
    monkeypatch.setattr("os.dup2", lambda source, target: closed.append((source, target)))
    assert main(["keygen"]) == 0
    assert [target for _, target in closed] == [sys.stdout.fileno()]
    os.close(closed[0][0])


@pytest.mark.parametrize(("name", "code"), [("__main__", 2), ("imported", None)])
def test_the_core_runs_the_command_as_a_module(name: str, code: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["sojourn"])
    monkeypatch.delitem(sys.modules, "sojourn.__main__", raising=False)
    stopped: object = None
    try:
        runpy.run_module("sojourn.__main__", run_name=name)
    except SystemExit as stop:
        stopped = stop.code
    assert stopped == code


def test_the_command_runs_as_a_process_and_survives_a_closed_pipe() -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = f"'{sys.executable}' -m sojourn config show | head -n 1"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["VARIABLE", "VALUE", "FROM", "DEFAULT"]
    assert done.stderr == ""


def test_without_the_command_the_core_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sojourn_cli", None)
    monkeypatch.delitem(sys.modules, "sojourn.__main__", raising=False)
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("sojourn", run_name="__main__")
    assert stop.value.code == 'the command is in the distribution sojourn-cli: pip install "sojourn[cli]"'


def test_what_the_command_itself_misses_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sojourn_cli")
    monkeypatch.delitem(sys.modules, "sojourn_cli.command")
    monkeypatch.setitem(sys.modules, "click", None)
    with pytest.raises(ModuleNotFoundError, match="import of click halted"):
        runpy.run_module("sojourn", run_name="__main__")


def test_a_command_that_is_interrupted_exits_as_shells_expect(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "new_secret", interrupt)
    assert main(["keygen"]) == 130
    assert capsys.readouterr().out == ""


class Terminal(io.StringIO):
    """What a command takes for a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_table_is_never_cut_nor_padded_where_no_terminal_shows_it(
    capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = ",".join(f"10.{number}.0.0/16" for number in range(200))
    monkeypatch.setenv("SOJOURN_TRUSTED_PROXIES", networks)
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["config", "show"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["SOJOURN_TRUSTED_PROXIES", networks, "environment", "-"] in [line.split() for line in lines]
    assert [line for line in lines if line != line.rstrip()] == []


def test_a_terminal_gets_every_character_of_a_long_value_and_takes_none_for_markup(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "dumb")  # which has 80 columns
    monkeypatch.setenv("SOJOURN_NODE_ID", f"[bold]:smile:{'x' * 100}[/bold]")
    assert main(["config", "show", "--changed"]) == 0
    shown = screen.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    assert "[bold]:smile:" in shown
    assert shown.count("x") >= 100
