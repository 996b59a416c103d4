"""Variables of the Airflow host that are no options of Airflow's: which of them tasks get, and which are encrypted."""

from __future__ import annotations

import pytest

from modalflow.airflow_home.host_home import HostHome, collect
from modalflow.airflow_home.host_variables import host_variables
from modalflow.airflow_home.sealing import KeyPair, unseal
from modalflow.names import HOME_VARIABLES
from modalflow.worker.airflow_home.config_file import config_file

TRACES = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"


def test_only_those_of_the_table_travel() -> None:
    """A host has many other variables, with secrets among them."""
    found = host_variables({TRACES: "http://otel:4318/v1/traces", "PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "aws"})
    assert dict(found.plain) == {TRACES: "http://otel:4318/v1/traces"} and not found.secret


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (HEADERS, "x-api-key=word"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-api-key=word"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://user:word@otel.example.com"),
        ("OPENLINEAGE_API_KEY", "word"),
        ("OPENLINEAGE__TRANSPORT", '{"type": "http", "auth": {"api_key": "word"}}'),
        ("OPENLINEAGE__TRANSPORT__AUTH", '{"apiKey": "word"}'),
    ],
)
def test_what_can_be_a_secret_is_encrypted(name: str, value: str) -> None:
    """By the name, or by a password in a URL. No repr shows it."""
    found = host_variables({name: value})
    assert dict(found.secret) == {name: value} and not found.plain
    assert "word" not in repr(found)


def test_a_container_has_them_as_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not written into its airflow.cfg."""
    monkeypatch.setenv(TRACES, "http://otel:4318/v1/traces")
    monkeypatch.setenv(HEADERS, "x-api-key=word")
    home, keys = collect(None, None), KeyPair.new()
    snapshot = home.snapshot(keys.public)
    assert snapshot.sealed is not None and b"word" not in snapshot.to_json()
    config = config_file(snapshot.settings, unseal(snapshot.sealed, keys.private))
    assert config.variables[TRACES] == "http://otel:4318/v1/traces"
    assert config.variables[HEADERS] == "x-api-key=word"
    assert HOME_VARIABLES not in config.text


def test_those_that_a_deployment_cannot_encrypt_are_named() -> None:
    """As variables, not as options."""
    assert HostHome({}, {HOME_VARIABLES: {HEADERS: "x"}}).left_out("") == [f"the variable {HEADERS}"]
