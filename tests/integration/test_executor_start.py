"""What is wrong with a deployment is said when the scheduler starts, with the way to mend it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import modal
import pytest

from modalflow import __version__, control_plane
from modalflow.airflow_compat.versions import AIRFLOW_VERSION
from modalflow.airflow_home.snapshot import HomeSnapshot
from modalflow.airflow_home.store import current, snapshot_of
from modalflow.bundles.files import VolumeFiles
from modalflow.control_plane import ControlPlane
from modalflow.emulator.local import LocalModal
from modalflow.errors import (
    ConfigError,
    CredentialsError,
    IncompatibleWorkerError,
    ModalflowError,
    NotDeployedError,
)
from modalflow.executor import connection
from modalflow.executor.modal_executor import ModalExecutor
from modalflow.logs.log_volume import LogVolume
from modalflow.names import Names
from modalflow.protocol.messages import PROTOCOL, Deployment
from modalflow.worker.deploy.deployment import deploy
from tests.support import wait_until
from tests.wheels import install_other_modalflow


@pytest.fixture(scope="module")
def local() -> Iterator[LocalModal]:
    """A control plane on which only the app `deployed` is deployed."""
    with LocalModal(as_default=False) as running, pytest.MonkeyPatch.context() as environment:
        for name, value in running.env.items():
            environment.setenv(name, value)
        deploy(Names("deployed"), bundles={})
        yield running


@pytest.fixture
def settings(local: LocalModal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A right configuration, for a test to spoil."""
    # Neither the connections of this machine's Airflow nor a user's own Modal profile.
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW_CONN_MODAL_DEFAULT", "modal://")
    monkeypatch.setenv("AIRFLOW__MODAL_EXECUTOR__APP_NAME", "deployed")
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "http://127.0.0.1:8080/execution/")
    monkeypatch.setenv("AIRFLOW__MODAL_EXECUTOR__EXECUTION_API", "direct")
    monkeypatch.setattr(control_plane, "_known", {})
    return monkeypatch


def start() -> None:
    executor = ModalExecutor(parallelism=1)
    try:
        executor.start()
    finally:
        executor.end()


def refusal(kind: type[ModalflowError]) -> str:
    """Start an executor that must not start; return what it says."""
    with pytest.raises(kind) as refused:
        start()
    return str(refused.value)


def test_right_configuration_starts(settings: pytest.MonkeyPatch) -> None:
    """The configuration that the other tests spoil is right."""
    start()


def test_another_program_of_the_same_name_is_reported(
    settings: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log of the scheduler names it, its folder, and how to install this project instead."""
    site = install_other_modalflow(tmp_path)
    settings.syspath_prepend(site)
    start()
    logged = capsys.readouterr().out
    assert f"Another program named modalflow, version 0.3.1, is installed in {site}" in logged
    assert "pip uninstall modalflow" in logged and f"modalflow-{__version__}-py3-none-any.whl" in logged


def test_a_right_installation_is_not_mentioned(
    settings: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """A scheduler with this project alone, beside a worker of the same version, logs nothing about either."""
    start()
    assert "named modalflow" not in capsys.readouterr().out and "The deployed worker is" not in caplog.text


def test_a_worker_of_another_version_is_reported(
    settings: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker of version 0.4.0 still works, and the log says that the two differ."""
    record = Deployment("0.4.0", PROTOCOL, AIRFLOW_VERSION, "3.11.7", ("default",), {}, 1.0)
    settings.setattr(LogVolume, "deployment", lambda _: record)
    start()
    assert f"The deployed worker is modalflow 0.4.0, this executor is modalflow {__version__}" in caplog.text


def test_no_credentials(settings: pytest.MonkeyPatch) -> None:
    """Neither connection nor variables: the message tells of both."""
    settings.delenv("MODAL_TOKEN_ID")
    settings.delenv("MODAL_TOKEN_SECRET")
    message = refusal(CredentialsError)
    assert "MODAL_TOKEN_ID" in message
    assert "connection" in message
    assert "modal token new" in message


def test_wrong_credentials(settings: pytest.MonkeyPatch) -> None:
    """The message names the connection, and not the secret."""
    settings.setenv("AIRFLOW_CONN_MODAL_DEFAULT", "modal://ak-wrong:as-very-secret@")
    message = refusal(CredentialsError)
    assert "'modal_default'" in message
    assert "as-very-secret" not in message


def test_half_filled_connection(settings: pytest.MonkeyPatch) -> None:
    """A token without its secret is no credential, whatever the environment has."""
    settings.setenv("AIRFLOW_CONN_MODAL_DEFAULT", "modal://ak-only@")
    assert "Token Secret" in refusal(CredentialsError)


def test_unknown_connection(settings: pytest.MonkeyPatch) -> None:
    """A connection that was named on purpose has to exist."""
    settings.setenv("AIRFLOW__MODAL_EXECUTOR__CONN_ID", "modal_team_a")
    assert "modal_team_a" in refusal(CredentialsError)


def test_app_not_deployed(settings: pytest.MonkeyPatch) -> None:
    """The message has the command that deploys it."""
    settings.setenv("AIRFLOW__MODAL_EXECUTOR__APP_NAME", "elsewhere")
    message = refusal(NotDeployedError)
    assert "'elsewhere'" in message
    assert "`modalflow deploy --app elsewhere`" in message


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"protocol": 999, "version": "9.9"}, ("modalflow 9.9", "protocol 999")),
        ({"airflow_version": "2.11.0"}, ("has Airflow 2.11.0", "expected the same minor version")),
    ],
)
def test_incompatible_worker(
    settings: pytest.MonkeyPatch, local: LocalModal, changed: dict[str, Any], told: tuple[str, ...]
) -> None:
    """A worker that speaks another protocol or carries another Airflow is found at start, not by the first task."""
    client: Any = modal.Client.from_credentials(local.env["MODAL_TOKEN_ID"], local.env["MODAL_TOKEN_SECRET"])
    names = Names("other")
    settings.setenv("AIRFLOW__MODAL_EXECUTOR__APP_NAME", names.app)
    record = dataclasses.replace(deploy(names, bundles={}), **changed)
    LogVolume(ControlPlane(client, None), names).record(record)
    message = refusal(IncompatibleWorkerError)
    for part in (*told, "`modalflow deploy --app other`"):
        assert part in message


def test_execution_api_url_without_host(settings: pytest.MonkeyPatch) -> None:
    """The message names the setting that holds the URL."""
    settings.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "http:///execution/")
    assert refusal(ConfigError).startswith("[core] execution_api_server_url is 'http:///execution/'; expected a URL")


def test_loopback_url_for_containers_elsewhere(settings: pytest.MonkeyPatch) -> None:
    """On Modal, a loopback address is the container's own: without the relay, no task could ever report."""
    settings.setenv("MODAL_SERVER_URL", "https://api.modal.com")
    settings.setenv("AIRFLOW__MODAL_EXECUTOR__EXECUTION_API", "direct")
    assert "loopback address is the container itself" in refusal(ConfigError)


def test_bad_number_and_unknown_option(settings: pytest.MonkeyPatch) -> None:
    """What the settings refuse stops the start, before anything is asked of Modal."""
    settings.setenv("MODAL_SERVER_URL", "http://127.0.0.1:1")
    settings.setenv("AIRFLOW__MODAL_EXECUTOR__TASK_TIMEOUT", "1h")
    assert refusal(ConfigError).startswith("[modal_executor] task_timeout is '1h'; expected seconds")
    settings.delenv("AIRFLOW__MODAL_EXECUTOR__TASK_TIMEOUT")
    settings.setenv("AIRFLOW__MODAL_EXECUTOR__PARALELISM", "4")
    assert refusal(ConfigError).startswith("[modal_executor] paralelism is 4; expected a known name")


def test_modal_out_of_reach_is_no_reason_to_stop_a_scheduler(
    settings: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An outage at the wrong moment is logged, and the engine goes on trying."""
    settings.setenv("MODAL_SERVER_URL", "http://127.0.0.1:1")
    settings.setenv("AIRFLOW__MODAL_EXECUTOR__CONNECT_TIMEOUT", "1")
    start()
    assert "Modal did not answer within 1.0 s" in caplog.text


def test_unstarted_executor_has_no_side_effects(settings: pytest.MonkeyPatch) -> None:
    """API servers make executors and never start them."""
    settings.setenv("AIRFLOW__MODAL_EXECUTOR__TASK_TIMEOUT", "1h")
    executor = ModalExecutor(parallelism=1)
    assert executor._engine is None
    executor.sync()
    executor.end()


def published(executor: ModalExecutor) -> HomeSnapshot:
    """Return the home snapshot on the Volume that the executor's submissions name."""
    engine = executor._engine
    assert engine is not None
    volume = VolumeFiles(LogVolume(executor._control_plane(), executor.settings.names).volume)
    pointer = current(volume)
    assert pointer is not None and pointer.id == engine.wiring.homes.id
    return snapshot_of(volume, pointer.id)


def started_home() -> HomeSnapshot:
    """Start an executor, and return what it has published."""
    executor = ModalExecutor(parallelism=1)
    try:
        executor.start()
        return published(executor)
    finally:
        executor.end()


def test_settings_of_the_host_are_published_at_each_start(settings: pytest.MonkeyPatch) -> None:
    """A second scheduler with equal settings publishes the same, and one with others something else: no deployment is
    necessary. Secret settings are encrypted, those of the host alone stay there."""
    settings.setenv("AIRFLOW__ACME__GREETING", "hello")
    settings.setenv("AIRFLOW__SMTP__SMTP_PASSWORD", "hunter2")
    settings.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_POOL_SIZE", "7")
    first, second = started_home(), started_home()
    assert first.id == second.id and first.settings["acme"] == {"greeting": "hello"}
    assert first.sealed is not None and "database" not in first.settings
    assert b"hunter2" not in first.to_json() and "smtp_password" not in first.settings.get("smtp", {})
    settings.setenv("AIRFLOW__ACME__GREETING", "goodbye")
    assert started_home().id != first.id


def test_a_full_volume_stops_no_scheduler(
    settings: pytest.MonkeyPatch, local: LocalModal, caplog: pytest.LogCaptureFixture
) -> None:
    """It starts without a place for its settings. The log has the reason, and it goes on once there is room."""
    settings.setattr(connection, "RECONNECT", 0.1)
    settings.setenv("AIRFLOW__ACME__GREETING", "on a full Volume")
    fault = local.faults.add("VolumePutFiles2:resource-exhausted")
    executor = ModalExecutor(parallelism=1)
    try:
        try:
            executor.start()
        finally:
            local.faults.clear([fault.id])
        assert "could not be written to Volume deployed-logs" in caplog.text
        engine = executor._engine
        assert engine is not None
        wait_until(lambda: engine.wiring.homes.id, 30.0, "the publication")
        wait_until(lambda: not engine.wiring.connection.obstacle, 5.0, "the connection")
        assert published(executor).settings["acme"] == {"greeting": "on a full Volume"}
    finally:
        executor.end()
