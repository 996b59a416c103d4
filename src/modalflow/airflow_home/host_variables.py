"""The variables of this Airflow host beside Airflow's own options: of OpenTelemetry and OpenLineage.

Airflow reads traces, for example, only from OpenTelemetry's variables. A task of LocalExecutor inherits them, so they
are a part of the Airflow home. Owns the table of their names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from modalflow.airflow_home.rules.rule import Place
from modalflow.airflow_home.rules.table import place_of
from modalflow.names import HOME_VARIABLES


@dataclass(frozen=True)
class VariableRule:
    """A row: variables with this beginning of their name hold in containers."""

    beginning: str
    reason: str


VARIABLE_RULES: Final = (
    VariableRule(
        "OTEL_",
        "OpenTelemetry's exporters of traces and metrics read them: the endpoint, the protocol, the headers, the name"
        " of the service.",
    ),
    VariableRule("OPENLINEAGE_", "OpenLineage's client and Airflow's provider of OpenLineage read them."),
)

#: Names of variables with a possible secret, beside the names of secret options.
_SECRET_NAME: Final = re.compile(r"HEADERS|^OPENLINEAGE__TRANSPORT")


@dataclass(frozen=True)
class HostVariables:
    """Variable → value."""

    plain: Mapping[str, str] = field(default_factory=dict)
    """Readable for anyone with access to the Volume."""
    secret: Mapping[str, str] = field(default_factory=dict, repr=False)
    """For containers alone: they travel encrypted."""


def host_variables(environ: Mapping[str, str]) -> HostVariables:
    """Return the variables for containers, from those of a process of the Airflow host."""
    beginnings = tuple(rule.beginning for rule in VARIABLE_RULES)
    found = {name: value for name, value in environ.items() if name.startswith(beginnings)}
    secret = {name: value for name, value in found.items() if _is_secret(name, value)}
    return HostVariables({name: value for name, value in found.items() if name not in secret}, secret)


def _is_secret(name: str, value: str) -> bool:
    if _SECRET_NAME.search(name):
        return True
    return place_of(HOME_VARIABLES, name, value).place is Place.SEALED
