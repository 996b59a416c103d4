"""Airflow's configuration with the content that a test gives, and every option that it can have."""

from __future__ import annotations

from typing import Any

from airflow.configuration import AirflowConfigParser

from modalflow.airflow_compat.configuration import own_conf
from modalflow.airflow_compat.host_options import declared_options
from modalflow.airflow_home.rules.table import RULES

#: The options of the installed Airflow and its providers, and whether each is a secret.
DECLARED = {key: bool(described.get("sensitive")) for key, described in declared_options().items()}
#: These, and all options of the table. Not the old names of others, whose values would replace each other.
EVERY_OPTION = sorted(
    ({(rule.section, rule.option) for rule in RULES if "*" not in rule.option} | set(DECLARED))
    - set(own_conf().inversed_deprecated_options)
)


def parser(text: str = "") -> Any:
    """Airflow's configuration with the content of an airflow.cfg."""
    conf = AirflowConfigParser()
    conf.read_string(text)
    return conf


def planted(section: str, option: str) -> str:
    """A value that no other option has."""
    return f"planted-in-{section}-{option}-end"
