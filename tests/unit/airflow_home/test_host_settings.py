"""The settings of an Airflow host for containers: which of them travel, and with which values."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pendulum
import pytest

from modalflow import airflow_logging
from modalflow.airflow_compat.host_options import Source
from modalflow.airflow_home import host_settings as module
from modalflow.airflow_home.host_settings import HostSettings, UnreadableSetting, host_settings
from modalflow.airflow_home.rules.rule import Place
from modalflow.airflow_home.rules.table import place_of
from modalflow.names import airflow_variable
from tests.airflows import AIRFLOW, needs_airflow
from tests.support import descendants, wait_until
from tests.unit.airflow_home.airflow_configuration import DECLARED, EVERY_OPTION, parser, planted


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of Airflow's from the machine of the tests."""
    for name in os.environ:
        if name.startswith("AIRFLOW__"):
            monkeypatch.delenv(name)


def values(settings: HostSettings) -> dict[str, str]:
    """The values that travel, readable or sealed: [section] option → value."""
    return {f"[{it.section}] {it.option}": it.value for it in settings.travelling}


def assert_planted_values_stay(settings: HostSettings) -> None:
    """No value of an option that stays is anywhere; one that is sealed is in the sealed part alone."""
    readable, sealed = json.dumps(settings.plain), json.dumps(settings.secret)
    for key in EVERY_OPTION:
        place = place_of(*key, "", sensitive=DECLARED.get(key, False)).place
        found = (planted(*key) in readable, planted(*key) in sealed)
        assert found == (place is Place.TRAVELS, place is Place.SEALED), key
    assert "planted" not in repr(settings)


def test_no_secret_of_the_host_travels_from_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a secret in the variable of every option, only those of tasks are collected, and secrets sealed."""
    for section, option in EVERY_OPTION:
        monkeypatch.setenv(airflow_variable(section, option), planted(section, option))
    # It would load the planted logging configuration.
    monkeypatch.setattr(airflow_logging, "is_in_use", lambda: False)
    assert_planted_values_stay(host_settings(parser()))


def test_no_secret_of_the_host_travels_from_the_file() -> None:
    """The same with every option in airflow.cfg."""
    conf = parser()
    for section, option in EVERY_OPTION:
        if not conf.has_section(section):
            conf.add_section(section)
        conf.set(section, option, planted(section, option))
    assert_planted_values_stay(host_settings(conf))


def test_no_command_of_a_setting_of_the_host_runs(tmp_path: Path) -> None:
    """A command for the database's URL or for a key runs in no executor: its output is of no use there."""
    ran = tmp_path / "ran"
    text = "\n".join(
        f"[{section}]\n{option}_cmd = touch {ran}"
        for section, option in (("core", "fernet_key"), ("database", "sql_alchemy_conn"), ("api_auth", "jwt_secret"))
    )
    kept = host_settings(parser(text)).kept
    assert {(it.option, it.source, it.rule.place) for it in kept} == {
        (option, Source.COMMAND, Place.NEVER) for option in ("fernet_key", "sql_alchemy_conn", "jwt_secret")
    }
    assert not ran.exists()


def test_only_what_is_set_travels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line in airflow.cfg with Airflow's default is not set: Airflow writes some itself. In a variable it is."""
    assert host_settings(parser()).travelling == ()
    text = "[core]\ndefault_timezone = utc\ndefault_task_retries = 3\n[operators]\ndefault_deferrable = false\n"
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_OWNER", "airflow")
    assert values(host_settings(parser(text))) == {
        "[core] default_task_retries": "3",
        "[operators] default_owner": "airflow",
    }
    assert [it.option for it in host_settings(parser("[core]\nparallelism = 32")).kept] == []
    assert [it.option for it in host_settings(parser("[core]\nparallelism = 33")).kept] == ["parallelism"]


ODD = {
    "percent": ("100 %% sure, %%(asctime)s", "100 % sure, %(asctime)s"),
    "dollar": ("a $NOT_SET_ANYWHERE ${NOR_THIS} $", "a $NOT_SET_ANYWHERE ${NOR_THIS} $"),
    "expanded": ("$FOLDER/dags", "/srv/dags"),
    "lines": ("one\n  two\n  three", "one\ntwo\nthree"),
    "quotes": ("\"a\" 'b' # c ; d = [e]", "\"a\" 'b' # c ; d = [e]"),
    "letters": ("Zürich 東京", "Zürich 東京"),
    "empty": ("", ""),
}


def test_values_arrive_as_airflow_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The value that travels is that of this host's conf.get, with its interpolation and expansion."""
    monkeypatch.setenv("FOLDER", "/srv")
    conf = parser("[acme]\n" + "".join(f"{name} = {written}\n" for name, (written, _) in ODD.items()))
    monkeypatch.setenv("AIRFLOW__ACME__IN_VARIABLE", 'a\nb "%" $FOLDER')
    found = values(host_settings(conf))
    expected = {f"[acme] {name}": read for name, (_, read) in ODD.items() if name != "empty"}
    assert found == {**expected, "[acme] in_variable": 'a\nb "%" /srv'}
    assert all(conf.get("acme", name) == read for name, (_, read) in ODD.items())


def test_a_variable_is_above_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The source is that of the value, and its name is the user's own."""
    monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", "acme.FromVariable")
    (setting,) = host_settings(parser("[core]\nxcom_backend = acme.FromFile")).travelling
    assert (setting.value, setting.source) == ("acme.FromVariable", Source.VARIABLE)
    assert setting.set_as == "AIRFLOW__CORE__XCOM_BACKEND"


def test_sections_with_a_dot_and_old_names_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of [common.io] and an option under an old name arrive under Airflow's present names."""
    monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH", "file:///xcom")
    conf = parser("[webserver]\nsecret_key = not-a-default\nbase_url = http://airflow.example\n")
    found = host_settings(conf)
    expected = {"[common.io] xcom_objectstorage_path": "file:///xcom"}
    if AIRFLOW >= (3, 1):
        expected["[api] base_url"] = "http://airflow.example"
    assert values(found) == expected
    assert {it.set_as for it in found.kept} >= {"[webserver] secret_key"}
    assert "not-a-default" not in repr(found)


def test_sections_of_the_user_travel() -> None:
    """A DAG reads its own section in a task; what is named as a secret is sealed."""
    settings = host_settings(parser("[acme]\ncolour = green\napi_token = hunter2\n[empty]\n"))
    assert settings.plain == {"acme": {"colour": "green"}}
    assert settings.secret == {"acme": {"api_token": "hunter2"}}


def test_commands_and_the_secrets_backend_are_read_for_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The value of a command is that of its output, sealed; so is that of a variable with a command."""
    (tmp_path / "dsn").write_text("https://key@sentry.example/1")
    monkeypatch.setenv("AIRFLOW__WORKERS__SECRETS_BACKEND_KWARGS_CMD", "echo '{}'")
    settings = host_settings(parser(f"[sentry]\nsentry_dsn_cmd = cat {tmp_path / 'dsn'}\n"))
    assert settings.secret["sentry"] == {"sentry_dsn": "https://key@sentry.example/1"}
    assert settings.secret["workers"]["secrets_backend_kwargs"].strip() == "{}"
    assert {it.source for it in settings.travelling} == {Source.COMMAND}


def test_a_setting_that_cannot_be_read_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing command, a failing secrets backend and a malformed text stop neither the scheduler nor the others."""
    monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND", "acme_not_here.Backend")
    monkeypatch.setenv("AIRFLOW__WORKERS__SECRETS_BACKEND_KWARGS_SECRET", "kwargs")
    text = (
        "[sentry]\nsentry_dsn_cmd = sh -c 'echo the-output; exit 3'\n"
        "[acme]\ncolour = green\nmalformed = 100 % sure\n"
        "[logging]\nremote_task_handler_kwargs_cmd = acme-not-installed\n"
    )
    settings = host_settings(parser(text))
    assert settings.plain["acme"] == {"colour": "green"}
    found = {f"[{it.section}] {it.option}": it for it in settings.unreadable}
    assert set(found) == {
        "[acme] malformed",
        "[logging] remote_task_handler_kwargs",
        "[sentry] sentry_dsn",
        "[workers] secrets_backend_kwargs",
    }
    sentry = str(found["[sentry] sentry_dsn"])
    assert "set by [sentry] sentry_dsn_cmd" in sentry
    assert "exit code 3" in sentry
    assert "the-output" not in sentry
    assert "restart the scheduler" in sentry
    assert isinstance(found["[acme] malformed"], UnreadableSetting)


@needs_airflow("3.1")
def test_the_values_of_a_team_replace_those_of_everyone(monkeypatch: pytest.MonkeyPatch) -> None:
    """An executor of a team takes the team's values, everyone's for the rest, and none of another team."""
    monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", "acme.Everyones")
    monkeypatch.setenv("AIRFLOW__TEAM1___CORE__XCOM_BACKEND", "acme.Team1s")
    monkeypatch.setenv("AIRFLOW__TEAM2___CORE__XCOM_BACKEND", "acme.Team2s")
    monkeypatch.setenv("AIRFLOW__TEAM2___ACME__COLOUR", "red")
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_OWNER", "everyone")
    found = host_settings(parser(), team="team1")
    assert values(found) == {"[core] xcom_backend": "acme.Team1s", "[operators] default_owner": "everyone"}
    assert values(host_settings(parser()))["[core] xcom_backend"] == "acme.Everyones"


@needs_airflow("3.2")
def test_the_sections_of_a_team_in_the_file_are_read() -> None:
    """The same in airflow.cfg."""
    conf = parser(
        "[core]\nxcom_backend = acme.Everyones\n[team1=core]\nxcom_backend = acme.Team1s\n[team2=acme]\na = b\n"
    )
    assert values(host_settings(conf, team="team1")) == {"[core] xcom_backend": "acme.Team1s"}
    assert values(host_settings(conf)) == {"[core] xcom_backend": "acme.Everyones"}


@needs_airflow("3.2")
def test_single_arguments_of_a_secrets_backend_become_one_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow reads single arguments from variables alone, so they travel as a part of all arguments."""
    monkeypatch.setenv("AIRFLOW__WORKERS__SECRETS_BACKEND_KWARGS", '{"url": "http://vault", "role_id": "a"}')
    monkeypatch.setenv("AIRFLOW__WORKERS__SECRETS_BACKEND_KWARG__ROLE_ID", "b")
    monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND_KWARG__TOKEN", "t")
    settings = host_settings(parser())
    assert settings.plain == {}
    assert json.loads(settings.secret["workers"]["secrets_backend_kwargs"]) == {"url": "http://vault", "role_id": "b"}
    assert json.loads(settings.secret["secrets"]["backend_kwargs"]) == {"token": "t"}


def test_the_logging_of_the_host_stays_if_it_is_modalflows_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers write to the logs Volume themselves; with the host's class, they would upload each log again."""
    conf = parser("[logging]\nlogging_config_class = modalflow.airflow_logging.LOGGING_CONFIG\n")
    monkeypatch.setattr(airflow_logging, "is_in_use", lambda: True)
    assert [it.rule.place for it in host_settings(conf).kept] == [Place.WORKER]
    monkeypatch.setattr(airflow_logging, "is_in_use", lambda: False)
    conf.set("logging", "logging_config_class", "acme_logging.CONFIG")
    assert values(host_settings(conf)) == {"[logging] logging_config_class": "acme_logging.CONFIG"}


def test_the_time_zone_of_the_system_travels_as_its_name() -> None:
    """In a container, the system's time zone is another one. A zone without a name is reported."""
    conf = parser("[core]\ndefault_timezone = system\n")
    with pendulum.test_local_timezone(pendulum.timezone("Asia/Tokyo")):
        assert values(host_settings(conf)) == {"[core] default_timezone": "Asia/Tokyo"}
    without_name: Any = pendulum.timezone(3600)
    with pendulum.test_local_timezone(without_name):
        settings = host_settings(conf)
    assert values(settings) == {}
    assert "the time zone of this host has no name" in str(settings.unreadable[0])


def test_a_command_without_an_end_holds_up_no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its setting is reported, with the reason and no value, and the others travel."""
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    conf = parser("[secrets]\nbackend_kwargs_cmd = sleep 1\n[email]\nfrom_email = me@example.com\n")
    settings = host_settings(conf)
    (unreadable,) = settings.unreadable
    assert "[secrets] backend_kwargs" in str(unreadable) and "no answer within 0.2 s" in str(unreadable)
    assert values(settings) == {"[email] from_email": "me@example.com"}
    left = {"sleep", "1"}
    wait_until(lambda: not any(left <= set(command.split()) for command in descendants(os.getpid()).values()))


def test_a_command_that_prints_garbage_costs_no_task() -> None:
    """A NUL would end every process that gets the setting as a variable."""
    settings = host_settings(parser("[secrets]\nbackend_kwargs_cmd = head -c 64 /dev/zero\n"))
    assert "[secrets] backend_kwargs" in str(settings.unreadable[0]) and not settings.travelling
