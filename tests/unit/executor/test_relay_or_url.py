"""How containers reach the Execution API, from the options of the executor and Airflow's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from modalflow.airflow_compat import configuration
from modalflow.config.settings import Settings
from modalflow.errors import ConfigError, NotDeployedError
from modalflow.executor.worker_env import resolved, workload_env
from modalflow.names import API_URL_VARIABLE
from modalflow.operations.doctor import airflow_side
from modalflow.operations.relay import checks
from modalflow.relay import keys

LOOPBACK, PUBLIC, OPEN = "http://localhost:8080/execution/", "https://airflow.example.com/execution/", "https://open/"
LOCAL, REMOTE = "http://127.0.0.1:40123", "https://api.modal.com"


@pytest.fixture
def conf(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MODAL_SERVER_URL", REMOTE)
    monkeypatch.setenv(API_URL_VARIABLE, PUBLIC)
    return configuration.own_conf()


@pytest.mark.parametrize("server", [LOCAL, REMOTE])
@pytest.mark.parametrize("core", [LOOPBACK, PUBLIC])
@pytest.mark.parametrize(
    ("options", "way"),
    [
        ({}, "relay"),
        ({"execution_api_url": OPEN}, "direct"),
        ({"execution_api": "relay"}, "relay"),
        ({"execution_api": "relay", "execution_api_url": OPEN}, "relay"),
        ({"execution_api": "direct", "execution_api_url": OPEN}, "direct"),
    ],
)
def test_the_relay_is_the_default(
    conf: Any, monkeypatch: pytest.MonkeyPatch, server: str, core: str, options: dict[str, str], way: str
) -> None:
    """Only a URL of `[modal_executor]` selects the direct way; a relay's server is the one in `[core]`."""
    monkeypatch.setenv("MODAL_SERVER_URL", server)
    monkeypatch.setenv(API_URL_VARIABLE, core)
    settings = resolved(Settings.defaults(**options), conf)
    url = core if way == "relay" else OPEN
    assert (settings.execution_api, settings.execution_api_url) == (way, url)
    assert workload_env(settings, conf)[API_URL_VARIABLE] == url


@pytest.mark.parametrize(
    ("server", "core", "options", "works"),
    [
        (REMOTE, PUBLIC, {}, True),
        (LOCAL, LOOPBACK, {}, True),
        (REMOTE, LOOPBACK, {}, False),
        (REMOTE, PUBLIC, {"execution_api": "relay"}, False),
    ],
)
def test_an_older_worker_without_a_relay_key(
    conf: Any, monkeypatch: pytest.MonkeyPatch, server: str, core: str, options: dict[str, str], works: bool
) -> None:
    """Its tasks go on as before an upgrade, if containers can reach the URL and you have not chosen the relay."""
    monkeypatch.setenv("MODAL_SERVER_URL", server)
    monkeypatch.setenv(API_URL_VARIABLE, core)
    assert resolved(Settings.defaults(**options), conf).works_without_relay is works


def test_direct_without_a_reachable_url(conf: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal and the doctor name both ways out."""
    monkeypatch.setenv(API_URL_VARIABLE, LOOPBACK)
    settings = Settings.defaults(execution_api="direct")
    with pytest.raises(ConfigError, match="execution_api = auto"):
        workload_env(settings, conf)
    finding, _ = airflow_side.execution_api(settings, conf)
    assert finding.status == "fail" and "execution_api = auto" in finding.advice


def test_the_doctor_explains_the_relay_after_an_upgrade(conf: Any) -> None:
    """Who had opened a URL for containers reads that they no longer need it, and how to keep it."""
    finding, _ = airflow_side.execution_api(Settings.defaults(), conf)
    assert finding.status == "ok"
    for part in (PUBLIC, "containers use the relay", "need no access", "[modal_executor] execution_api_url"):
        assert part in finding.detail


@pytest.mark.parametrize(("core", "status"), [(PUBLIC, "warn"), (LOOPBACK, "fail")])
def test_the_doctor_names_the_command_for_an_older_worker(
    conf: Any, monkeypatch: pytest.MonkeyPatch, core: str, status: str
) -> None:
    """It is a failure only if tasks cannot go directly meanwhile."""

    async def fetch(*_: Any, **__: Any) -> Any:
        raise NotDeployedError("The worker app has no relay key.")

    monkeypatch.setenv(API_URL_VARIABLE, core)
    monkeypatch.setattr(keys, "fetch_public_key", fetch)
    site: Any = SimpleNamespace(settings=Settings.defaults(), names=None, scope={}, deploy_command="modalflow deploy")
    finding, key = checks.key(site, conf)
    assert (finding.status, key) == (status, "") and "`modalflow deploy`" in finding.advice
