"""`modalflow doctor` compares this machine's Airflow with the Airflow in a container."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import modal
import pytest

from modalflow import __version__
from modalflow.bundles.files import VolumeFiles
from modalflow.names import HOMES_FOLDER, Names
from modalflow.protocol.snapshot import Snapshot
from tests.integration.clinic import TOKEN, Clinic, open_clinic
from tests.sdk import client_of

GOOD = {
    "AIRFLOW__CORE__DEFAULT_TIMEZONE": "Europe/Berlin",
    "AIRFLOW__CORE__XCOM_BACKEND": "acme_xcom.FileXCom",
    "AIRFLOW__CORE__PARALLELISM": "7",
    "AIRFLOW__SMTP__SMTP_PASSWORD": TOKEN,
    "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": "True",
    "AIRFLOW__MODAL_EXECUTOR__WORKER_ENV": json.dumps({"AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": "False"}),
}
BAD = GOOD | {
    "AIRFLOW__CORE__DEFAULT_TIMEZONE": "Europe/Paris",
    "AIRFLOW__CORE__KILLED_TASK_CLEANUP_TIME": "soon",
    "AIRFLOW__SENTRY__BEFORE_SEND": "nowhere.send",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This machine's Airflow home."""
    folder = tmp_path_factory.mktemp("airflow")
    for part in ("plugins", "config"):
        Path(folder, part).mkdir()
    backend = "from airflow.sdk.bases.xcom import BaseXCom\n\n\nclass FileXCom(BaseXCom):\n    pass\n"
    Path(folder, "plugins/acme_xcom.py").write_text(backend)
    Path(folder, "config/airflow_local_settings.py").write_text("ANYTHING = 1\n")
    return folder


@pytest.fixture(scope="module")
def clinic(home: Path) -> Iterator[Clinic]:
    with open_clinic(home) as clinic:
        yield clinic


def verdicts(finding: dict[str, Any]) -> dict[str, str]:
    """The verdict of each option in the table of a finding."""
    return {f"[{row['section']}] {row['option']}": row["verdict"] for row in finding["rows"]}


@pytest.fixture(scope="module")
def healthy(clinic: Clinic) -> dict[str, dict[str, Any]]:
    """The findings for settings that hold. They store an Airflow home."""
    return clinic.examine(**GOOD)


@pytest.fixture
def client(clinic: Clinic) -> Iterator[modal.Client]:
    with client_of(clinic.local.url, clinic.local.env) as client:
        yield client


def stored(client: modal.Client) -> list[str]:
    """The files of Airflow homes on the logs Volume."""
    files = VolumeFiles(modal.Volume.from_name(Names("patient").logs, client=client))
    return [entry.path.removeprefix(f"{HOMES_FOLDER}/v1/") for entry in files.list(HOMES_FOLDER)]


def test_a_machine_whose_settings_hold(healthy: dict[str, dict[str, Any]], client: modal.Client) -> None:
    """Each option is the same there, overridden as documented, or stays on purpose; what the doctor stored for that is
    no executor's."""
    assert {name for name, finding in healthy.items() if finding["status"] != "ok"} == {"executors"}
    found = verdicts(healthy["settings"])
    expected = {
        "[core] default_timezone": "same",
        "[core] xcom_backend": "same",
        "[smtp] smtp_password": "same",
        "[operators] default_deferrable": "overridden",
        "[core] parallelism": "kept on the host",
        "[api_auth] jwt_secret": "kept on the host",
    }
    assert {name: found[name] for name in expected} == expected
    seen = {f"[{row['section']}] {row['option']}": row["container"] for row in healthy["settings"]["rows"]}
    # Airflow's default, and nothing of a secret.
    assert (seen["[core] parallelism"], seen["[smtp] smtp_password"], seen["[api_auth] jwt_secret"]) == (
        "32",
        "***",
        None,
    )
    assert all(row["reason"] for row in healthy["settings"]["rows"] if row["verdict"] != "same")
    assert healthy["classes"]["detail"].startswith("1 named by settings")
    assert healthy["plugins"]["detail"].endswith("local settings from config/airflow_local_settings.py")
    assert {path.partition("/")[0] for path in stored(client)} == {"snapshots", "files"}


@pytest.mark.usefixtures("healthy")
def test_a_machine_whose_settings_do_not_hold(clinic: Clinic, client: modal.Client, home: Path) -> None:
    """Each problem has its line: a value that is refused, a class that the image lacks, a plugin that fails, and an
    executor that was started with other settings."""
    (started_with,) = (path.rpartition("/")[2] for path in stored(client) if path.startswith("snapshots/"))
    reports = modal.Dict.from_name(Names("patient").executors, create_if_missing=True, client=client)
    report = Snapshot("p", "host", 7, version=__version__, published_at=time.time(), home=started_with)
    reports.put("p", report.to_json())
    Path(home, "plugins/bad.py").write_text("raise RuntimeError('a bad plugin')\n")
    try:
        findings = clinic.examine(**BAD)
    finally:
        Path(home, "plugins/bad.py").unlink()
        reports.clear()
    failed = {name: finding for name, finding in findings.items() if finding["status"] == "fail"}
    assert set(failed) == {"[core] killed_task_cleanup_time", "[sentry] before_send"}
    assert all(finding["advice"] == finding["mend"] != "" for finding in failed.values())
    assert "Failed to convert value to int" in failed["[core] killed_task_cleanup_time"]["detail"]
    assert "No module named 'nowhere'" in failed["[sentry] before_send"]["detail"]
    # Tasks run without it, as under LocalExecutor, and their logs name it.
    assert findings["plugins"]["status"] == "warn"
    detail = findings["plugins"]["detail"]
    assert detail.startswith("plugins/bad.py failed in the container: RuntimeError: a bad plugin (bad.py:1); ")
    assert findings["settings"]["status"] == "warn" and "1 refused there" in findings["settings"]["detail"]
    other = findings["executor's options"]
    assert other["status"] == "warn" and "restart the scheduler" in other["advice"]
    assert {"[core] default_timezone", "plugins/bad.py"} <= {row["different"] for row in other["rows"]}
