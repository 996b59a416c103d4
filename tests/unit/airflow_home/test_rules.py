"""The table of Airflow's options, beside the options that the installed Airflow and its providers have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from airflow.configuration import retrieve_configuration_description
from airflow.providers_manager import ProvidersManager

from modalflow.airflow_home.rules.airflow_rules import AIRFLOW_RULES
from modalflow.airflow_home.rules.component_rules import COMPONENT_RULES
from modalflow.airflow_home.rules.provider_rules import PROVIDER_RULES
from modalflow.airflow_home.rules.rule import Group, Place, Rule, section
from modalflow.airflow_home.rules.table import RULES, place_of, rule_of
from tests.airflows import AIRFLOW, needs_airflow

#: Options that later patch releases of an older Airflow have as well.
PATCHED = {("core", "mp_start_method")}


def options(description: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, Any]]:
    """The options of a description: (section, option) → its description."""
    return {
        (name.lower(), option.lower()): described or {}
        for name, content in description.items()
        for option, described in (content.get("options") or {}).items()
    }


manager: Any = ProvidersManager
AIRFLOWS = options(retrieve_configuration_description(include_providers=False))
PROVIDERS = {key: it for _, config in manager().provider_configs for key, it in options(config).items()}


def minor(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


def is_here(rule: Rule) -> bool:
    """Whether the installed Airflow has an option, by its row."""
    return minor(rule.since or "3.0") <= AIRFLOW <= minor(rule.until or "9.9")


def test_every_option_of_airflow_has_a_row_of_its_own() -> None:
    """A new Airflow adds no silent difference: its options must be judged first, also in a section with a common
    row."""
    lacking = [key for key in AIRFLOWS if getattr(rule_of(*key), "option", None) != key[1]]
    assert lacking == []


def test_every_option_of_an_installed_provider_has_a_row() -> None:
    """The same for providers. Here one row for a section is enough."""
    assert [key for key in PROVIDERS if rule_of(*key) is None] == []


def test_no_row_is_left_over() -> None:
    """A row that no Airflow has would be a statement that no one can check."""
    rows = [rule for rule in (*AIRFLOW_RULES, *COMPONENT_RULES) if "*" not in rule.option]
    wrong = [
        rule.name
        for rule in rows
        if is_here(rule) != ((rule.section, rule.option) in AIRFLOWS)
        if (rule.section, rule.option) not in PATCHED
    ]
    assert wrong == []


@needs_airflow("3.3")
def test_no_row_of_an_installed_provider_is_left_over() -> None:
    """The same for the providers that are installed. The newest Airflow has the newest ones."""
    installed = {name for name, _ in PROVIDERS}
    rows = [rule for rule in PROVIDER_RULES if rule.section in installed and rule.option != "*"]
    assert [rule.name for rule in rows if (rule.section, rule.option) not in PROVIDERS] == []


def test_every_declared_secret_is_sealed_or_stays() -> None:
    """No option that Airflow or a provider calls sensitive travels readably."""
    secret = [key for key, described in {**AIRFLOWS, **PROVIDERS}.items() if described.get("sensitive")]
    assert len(secret) > 5
    assert [key for key in secret if place_of(*key, "x").place is Place.TRAVELS] == []


def test_rows_are_unique_and_have_a_reason() -> None:
    """Each option has one row, in lower case, with a sentence for an operator."""
    names = [(rule.section, rule.option) for rule in RULES]
    assert len(names) == len(set(names))
    assert all(rule.name == rule.name.lower() for rule in RULES)
    assert all(rule.reason.endswith(".") and len(rule.reason) > 15 for rule in RULES)
    with pytest.raises(ValueError, match="two rows for host"):
        section("smtp", Group(Place.HOST, "a", "host port"), Group(Place.TRAVELS, "b", "host"))


def test_the_most_specific_row_wins() -> None:
    """An exact row is stronger than the section's; a command and a secrets key have the option's row."""
    assert (rule_of("celery", "broker_url") or RULES[0]).place is Place.NEVER
    assert (rule_of("Celery", "POOL") or RULES[0]).place is Place.HOST
    assert (rule_of("core", "internal_api_secret_key_cmd") or RULES[0]).place is Place.NEVER
    assert (rule_of("database", "sql_alchemy_conn_secret") or RULES[0]).place is Place.NEVER
    assert (rule_of("workers", "secrets_backend_kwarg__role_id") or RULES[0]).place is Place.SEALED
    assert rule_of("acme", "colour") is None


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("api_token", "x"),
        ("smtp_password", "x"),
        ("aws_access_key_id", "x"),
        ("warehouse", "postgresql://etl:hunter2@db/etl"),
        ("certificate", "-----BEGIN RSA PRIVATE KEY-----\nMII"),
        ("header", "Authorization: bearer abc"),
    ],
)
def test_a_secret_of_the_user_is_sealed(option: str, value: str) -> None:
    """An option of the user's own is sealed if its name or its value is that of a secret."""
    assert place_of("acme", option, value).place is Place.SEALED


@pytest.mark.parametrize(
    ("option", "value"), [("colour", "green"), ("monkey", "x"), ("url", "https://acme.example:8080/a"), ("mode", "")]
)
def test_other_options_of_the_user_travel_readably(option: str, value: str) -> None:
    """Nothing else is sealed."""
    assert place_of("acme", option, value).place is Place.TRAVELS


def test_a_url_with_a_password_is_sealed_under_any_name() -> None:
    """An option that travels is sealed for a value that must not be readable."""
    assert place_of("elasticsearch", "host", "https://es.example:9200").place is Place.TRAVELS
    assert place_of("elasticsearch", "host", "https://elastic:pw@es.example:9200").place is Place.SEALED
    assert place_of("database", "sql_alchemy_schema", "x://a:b@c").place is Place.HOST
