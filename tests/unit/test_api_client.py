"""The client with which a worker talks to Airflow's Execution API: what the host sets of it, and that it obeys."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.api.client import Client

from modalflow.airflow_compat import configuration, supervisor
from modalflow.executor.worker_env import api_client_env
from modalflow.names import API_CLIENT_OPTIONS, airflow_variable
from modalflow.worker import environment

TIMEOUT = "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT"
RETRIES = "AIRFLOW__WORKERS__EXECUTION_API_RETRIES"
SHORTEST, LONGEST = ("AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MIN", "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX")
SET = {TIMEOUT: "12.5", RETRIES: "3", SHORTEST: "0.5", LONGEST: "2.5"}


@pytest.fixture
def conf() -> Any:
    return configuration.own_conf()


def test_what_the_host_sets_travels(monkeypatch: pytest.MonkeyPatch, conf: Any) -> None:
    """Every option of the client, and nothing where the host sets nothing: the worker's defaults count then."""
    assert api_client_env(conf) == {}
    for name, value in SET.items():
        monkeypatch.setenv(name, value)
    assert api_client_env(conf) == SET
    assert set(SET) == {airflow_variable(section, option) for section, option in API_CLIENT_OPTIONS}


def test_airflows_default_counts_where_a_variable_says_so(monkeypatch: pytest.MonkeyPatch, conf: Any) -> None:
    """Airflow writes all of its defaults into the file: there they are nobody's decision."""
    conf.set("workers", "execution_api_retries", "5")
    try:
        assert api_client_env(conf) == {}
        conf.set("workers", "execution_api_retries", "6")
        assert api_client_env(conf) == {RETRIES: "6"}
    finally:
        conf.remove_option("workers", "execution_api_retries", remove_default=False)
    monkeypatch.setenv(RETRIES, "5")
    assert api_client_env(conf) == {RETRIES: "5"}


def test_none_of_them_costs_a_new_process() -> None:
    """A process that has imported Airflow runs workloads of any of these settings: it reads them again for each."""
    assert environment.read_at_import(SET) == ()


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Airflow's client as it is after the test, as it was before."""
    made = Client.__init__
    yield
    monkeypatch.undo()
    monkeypatch.setenv(TIMEOUT, "5.0")
    supervisor.configure_api_client()
    Client.__init__ = made  # type: ignore[method-assign]


@pytest.mark.parametrize("settings", [SET, environment.API_CLIENT_DEFAULTS])
def test_airflows_client_obeys_settings_made_after_its_import(
    monkeypatch: pytest.MonkeyPatch, restored: None, settings: dict[str, str]
) -> None:
    """Timeout, attempts and pauses, in every supported version of Airflow; the oldest has no setting of a timeout."""
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    supervisor.configure_api_client()
    with Client(base_url="http://localhost/", token="") as client:
        assert client.timeout.read == client.timeout.connect == float(settings[TIMEOUT])
    request: Any = getattr(Client, "_request_with_retry", Client.request)
    retrying = request.retry
    state = SimpleNamespace(attempt_number=int(settings[RETRIES]), outcome=None)
    assert retrying.stop(state)
    state.attempt_number -= 1
    assert not retrying.stop(state)
    wait = getattr(Client, "_default_wait", retrying.wait)
    state.attempt_number = 30
    waits = [wait(state) for _ in range(50)]
    assert float(settings.get(SHORTEST, 1.0)) <= min(waits) and max(waits) <= float(settings[LONGEST])
    assert max(waits) > float(settings[LONGEST]) / 2
