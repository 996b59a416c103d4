"""What differs for tests between the versions of Airflow that they run on."""

from __future__ import annotations

from copy import copy

import pytest

from modalflow.airflow_compat.versions import AIRFLOW_VERSION

AIRFLOW = tuple(int(number) for number in AIRFLOW_VERSION.split(".")[:2])


def needs_airflow(version: str) -> pytest.MarkDecorator:
    """Skip a test of what Airflow has only since a version, e.g. ``@needs_airflow("3.2")``."""
    wanted = tuple(int(number) for number in version.split("."))
    return pytest.mark.skipif(wanted > AIRFLOW, reason=f"Airflow has it since {version}; this is {AIRFLOW_VERSION}")


def use_executors(patch: pytest.MonkeyPatch, names: str) -> None:
    """Set `[core] executor`, and have Airflow read it anew."""
    from airflow.executors import executor_loader

    patch.setenv("AIRFLOW__CORE__EXECUTOR", names)
    for name, value in vars(executor_loader).items():
        if name.startswith(("_alias_to_", "_module_to_", "_classname_to_", "_team_", "_executor_names")):
            fresh = copy(value)
            fresh.clear()
            patch.setattr(executor_loader, name, fresh)
