"""Settings: what is wrong is refused at start, and the message says what, where and how to mend it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from modalflow.config.settings import OPTIONS, SECTION, Settings
from modalflow.config.urls import execution_api_url
from modalflow.errors import ConfigError
from modalflow.provider import get_provider_info, provider_config


class Source:
    """A configuration as Airflow would hold it."""

    def __init__(self, **values: str) -> None:
        self.values: dict[str, str] = values

    def get(self, section: str, key: str, *, fallback: str | None = None) -> str | None:
        assert section == SECTION
        return self.values.get(key, fallback)

    def getsection(self, section: str) -> Mapping[str, Any] | None:
        return self.values


def test_defaults_are_valid() -> None:
    """A deployment that sets nothing has settings."""
    settings = Settings.read(Source())
    assert settings == Settings.defaults()
    assert settings.names.ledger == "modalflow-ledger"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("task_timeout", "1h", "seconds from 1 to 86400, e.g. 3600"),
        ("task_timeout", "0", "seconds from 1"),
        ("submit_concurrency", "many", "a whole number from 1 to 1000"),
        ("submit_attempts", "2.5", "a whole number"),
        ("infrastructure_retries", "-1", "a whole number from 0 to 100, e.g. 3"),
        ("lost_command_policy", "ignore", "one of fail, retry"),
        ("app_name", "my app", "letters, digits"),
        ("execution_api_url", "https:///execution/", "a URL with scheme and host"),
        ("execution_api_url", "airflow.example.com", "a URL with scheme and host"),
    ],
)
def test_wrong_value_is_named(name: str, value: str, expected: str) -> None:
    """The error names the setting, its value, and what was expected."""
    with pytest.raises(ConfigError) as refused:
        Settings.read(Source(**{name: value}))
    assert str(refused.value).startswith(f"[modal_executor] {name} is {value!r}; expected ")
    assert expected in str(refused.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("A=hidden", "worker_env is not JSON; expected a JSON object"),
        ('["hidden"]', "worker_env is of type list; expected a dict of texts"),
        ('{"A": "hidden", "B": 1}', "worker_env['B'] is of type int"),
        ('{"": "hidden"}', "a name in [modal_executor] worker_env is ''"),
        ('{"A=B": "hidden"}', "a name in [modal_executor] worker_env is 'A=B'"),
        ('{"A": "hidden\\u0000"}', "worker_env['A'] is a text with null characters"),
        ('{"A": "hidden\\ud800"}', "worker_env['A'] is a text outside UTF-8"),
        (json.dumps({"A": "hidden" * 30_000}), "worker_env['A'] is 180,002 bytes long, with its name"),
        (json.dumps({f"A{n}": "hidden" * 10_000 for n in range(20)}), "worker_env is 1,200,"),
    ],
)
def test_wrong_variables_are_named_without_their_values(value: str, said: str) -> None:
    """A value may be a secret, or of megabytes: the error has the variable's name and what is wrong with it."""
    with pytest.raises(ConfigError) as refused:
        Settings.read(Source(worker_env=value))
    assert said in str(refused.value) and "hidden" not in str(refused.value) and len(str(refused.value)) < 500


def test_unknown_option_is_named_with_the_nearest_known() -> None:
    """A misspelt option is an error at start, not a silent default at 3 a.m."""
    with pytest.raises(
        ConfigError, match=r"\[modal_executor\] task_timeot is '60'; expected .*did you mean 'task_timeout'\?"
    ):
        Settings.read(Source(task_timeot="60"))


def test_execution_api_url_ends_in_a_slash() -> None:
    """Airflow's client joins paths to it."""
    assert execution_api_url("x", "https://host/execution") == "https://host/execution/"


def test_option_table_is_the_provider_metadata() -> None:
    """What `airflow config list` shows is the table, with a default and an example that the table itself accepts."""
    shown = get_provider_info()["config"][SECTION]["options"]
    assert set(shown) == {option.name for option in OPTIONS}
    assert provider_config()[SECTION]["options"] == shown
    for option in OPTIONS:
        option.parse(option.name, option.default)
        option.parse(option.name, option.example)
