"""What an API server with this modalflow answers to the doctor, through the framework that Airflow mounts it in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient

from modalflow import __version__
from modalflow.airflow_compat.versions import AIRFLOW_V_3_1_PLUS
from modalflow.airflow_plugin import ModalflowPlugin
from modalflow.names import VERSION_PATH
from modalflow.ui import bundle
from tests.wheels import install_other_modalflow


@pytest.fixture
def server() -> AsyncClient:
    """An application with the plugin's, mounted as airflow.api_fastapi.app does it."""
    application = FastAPI()
    for each in ModalflowPlugin.fastapi_apps:
        application.mount(each["url_prefix"], each["app"])
    return AsyncClient(transport=ASGITransport(application), base_url="http://api-server")


async def test_it_reports_its_version(server: AsyncClient) -> None:
    """And which package of the name is installed; no path."""
    answer = await server.get(VERSION_PATH)
    assert answer.json() == {"modalflow": __version__, "installed": {"version": __version__, "ours": True}}


async def test_it_reports_another_program(server: AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where this project is imported and the other one is installed."""
    monkeypatch.syspath_prepend(install_other_modalflow(tmp_path))
    assert (await server.get(VERSION_PATH)).json()["installed"] == {"version": "0.3.1", "ours": False}


def test_the_ui_is_absent_before_airflow_3_1() -> None:
    """Without a warning; later versions have it in three places."""
    apps = [each["url_prefix"] for each in ModalflowPlugin.fastapi_apps]
    if AIRFLOW_V_3_1_PLUS:
        assert apps == ["/modalflow/ui", "/modalflow"]
        assert len(ModalflowPlugin.react_apps) == len(bundle.PLACES)
    else:
        assert apps == ["/modalflow"]
        assert not ModalflowPlugin.react_apps
        assert not ModalflowPlugin.global_operator_extra_links


_PLACES = (
    "import airflow.plugins_manager; from modalflow.airflow_plugin import ModalflowPlugin as plugin; "
    "print(len(plugin.fastapi_apps), len(plugin.react_apps), len(plugin.global_operator_extra_links))"
)


@pytest.mark.parametrize(
    ("value", "places"), [("True", "2 3 1" if AIRFLOW_V_3_1_PLUS else "1 0 0"), ("False", "1 0 0"), ("no", "1 0 0")]
)
def test_the_ui_can_be_switched_off(value: str, places: str) -> None:
    """Then no navigation entry, tab, API or extra link is there; the doctor's address stays. A wrong value is off."""
    environment = os.environ | {"AIRFLOW__MODAL_EXECUTOR__UI": value}
    done = subprocess.run(
        [sys.executable, "-c", _PLACES], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == places
    error = "[modal_executor] ui is 'no'; expected True or False"
    assert (error in done.stdout + done.stderr) == (value == "no" and AIRFLOW_V_3_1_PLUS)


def test_a_process_of_airflow_imports_neither_a_framework_nor_modal() -> None:
    """Every process loads plugins: what only the API server needs is imported with the first request."""
    program = (
        "import sys, airflow.plugins_manager; known = set(sys.modules); import modalflow.airflow_plugin; "
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - known}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    imported = set(done.stdout.split())
    assert "modalflow" in imported
    assert not imported & {"fastapi", "modal", "pydantic", "starlette", "sqlalchemy"}, imported


async def test_it_has_nothing_else(server: AsyncClient) -> None:
    """Any other path is not found, and a HEAD has no body."""
    assert (await server.get("/modalflow/settings")).status_code == 404
    assert (await server.head(VERSION_PATH)).content == b""
