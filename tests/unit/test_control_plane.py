"""What is said of a Modal environment: one, and the one that the server means."""

from __future__ import annotations

import pytest
from modal import exception

from modalflow.control_plane import connect, in_environment, is_emulated, is_local
from modalflow.errors import AirflowSettingError, CredentialsError


@pytest.mark.parametrize(
    ("environment", "error", "phrase"),
    [
        ("staging", "Volume 'x' not found in environment 'staging'", ""),
        (None, "Volume 'x' not found in environment 'main'", ""),
        ("", "Volume 'x' not found in Environment 'main'.", ""),
        ("staging", "No such Volume", " in Modal environment 'staging'"),
        (None, "No such Volume", " in the workspace's default environment"),
        ("", "", " in the workspace's default environment"),
    ],
)
def test_a_sentence_names_one_environment(environment: str | None, error: str, phrase: str) -> None:
    """Modal's own words name the environment that it resolved; ours is said only if they do not."""
    assert in_environment(environment, exception.NotFoundError(error)) == phrase


def test_a_setting_that_airflow_refuses_here_is_no_matter_of_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands end with one line: the setting, the hidden error of its class, and the fix."""
    from airflow.configuration import conf

    monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", "acme_missing.X")
    with pytest.raises(AirflowSettingError) as failed:
        connect(conn_id="no_such", hook=lambda conn_id: conf.getimport("core", "xcom_backend"))
    text = str(failed.value)
    assert text.startswith("[core] xcom_backend does not work in Airflow on this machine: AirflowConfigException: ")
    assert "No module named 'acme_missing'" in text and text.endswith("or correct the setting.")
    assert "PYTHONPATH" in text and "modal token new" not in text


@pytest.mark.parametrize(
    ("url", "local", "emulated"),
    [
        ("https://api.modal.com", False, False),
        ("http://127.0.0.1:9900", True, True),
        ("http://172.17.0.1:9900", False, True),
        ("unix:///tmp/socket", True, True),
    ],
)
def test_a_control_plane_in_a_private_network_is_not_modal(
    monkeypatch: pytest.MonkeyPatch, url: str, local: bool, emulated: bool
) -> None:
    """Its calls have no page on modal.com; but its containers are not of this machine, from this machine's view."""
    monkeypatch.setattr("modalflow.control_plane.server_url", lambda: url)
    assert (is_local(), is_emulated()) == (local, emulated)


def test_refused_credentials_name_the_connection_to_fill(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new user has no connection yet, and must not guess its name."""
    for name in ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("modalflow.control_plane._ambient_credentials", _no_credentials)
    with pytest.raises(CredentialsError, match="of the Airflow connection 'modal_default', or MODAL_TOKEN_ID"):
        connect(conn_id="modal_default", environment="none-has-it")
    with pytest.raises(CredentialsError, match="of an Airflow connection, or MODAL_TOKEN_ID"):
        connect(conn_id="", environment="none-has-it")


def _no_credentials() -> tuple[str, str]:
    raise exception.AuthError("no token")
