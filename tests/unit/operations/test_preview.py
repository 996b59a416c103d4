"""The comparison of a deployment without a container."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from modalflow.airflow_compat.configuration import own_conf
from modalflow.operations.host.preview import Preview, lacking, preview

FILES = ["plugins/acme.py", "plugins/own/xcom.py", "config/airflow_local_settings.py"]
PACKAGES = {"apache-airflow-providers-amazon", "httpx"}


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("acme.FileXCom", ""),
        ("own.xcom.FileXCom", ""),
        ("json.loads", ""),
        ("modalflow.airflow_logging.LOGGING_CONFIG", ""),
        ("airflow.sdk.execution_time.xcom.BaseXCom", ""),
        ("airflow.providers.amazon.aws.secrets.ssm.SSM", ""),
        ("airflow.providers.google.cloud.secrets.Backend", "the provider apache-airflow-providers-google"),
        ("httpx.Client", ""),
        ("click.Command", "the image lacks the package click"),
        ("nothing.Backend", "in no package of this environment and in no file that travels"),
    ],
)
def test_whether_containers_can_import_a_class(path: str, problem: str) -> None:
    """It is in the image, in a file that travels, or neither."""
    found = lacking(path, PACKAGES, FILES)
    assert problem in found and bool(found) == bool(problem)


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Mapping[str, str]:
    """Settings of a host."""
    found = {
        "AIRFLOW__CORE__XCOM_BACKEND": "nothing.Backend",
        "AIRFLOW__CORE__PARALLELISM": "7",
        "AIRFLOW__SMTP__SMTP_PASSWORD": "planted",
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
        "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": "gs://bucket/logs",
        "AIRFLOW__SDK__COORDINATORS": '{"jdk": {"classpath": "airflow.sdk.X"}}',
    }
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.mark.usefixtures("variables")
def test_what_is_known_before_a_deployment() -> None:
    """Missing packages and a missing key are warnings; what stays is named; no secret is shown."""
    found = preview(own_conf(), PACKAGES, knows_image=True, has_key=False)
    warnings, lines = "\n".join(found.warnings), "\n".join(found.lines())
    assert "[core] xcom_backend is nothing.Backend, and containers cannot import it" in warnings
    assert "lacks the provider apache-airflow-providers-google" in warnings
    assert "[sdk] coordinators has jdk" in warnings
    assert "1 secret setting travels encrypted, with a key that this deployment makes" in warnings
    assert "[core] parallelism" in lines
    assert "They hold in containers: " in lines and "[core] xcom_backend" in lines.partition("stay here on purpose")[0]
    rows = {(row["section"], row["option"]): row for row in found.to_wire()["options"]}
    assert rows["core", "parallelism"]["reason"] and rows["core", "parallelism"]["host"] is None
    assert rows["smtp", "smtp_password"]["host"] == "***"
    assert "planted" not in warnings + lines + str(found.to_wire())


@pytest.mark.usefixtures("variables")
def test_images_of_your_own_are_unknown() -> None:
    """Then nothing is claimed about packages."""
    found = preview(own_conf(), PACKAGES, knows_image=False, has_key=True)
    assert "xcom_backend" not in "\n".join(found.warnings)


def test_without_airflow_there_is_nothing_to_preview() -> None:
    """No line is empty talk."""
    assert list(Preview().lines()) == []
