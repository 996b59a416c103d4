"""What differs for tests between the versions of Airflow that they run on."""

from __future__ import annotations

import pytest

from modalflow.airflow_compat.versions import AIRFLOW_VERSION

AIRFLOW = tuple(int(number) for number in AIRFLOW_VERSION.split(".")[:2])


def needs_airflow(version: str) -> pytest.MarkDecorator:
    """Skip a test of what Airflow has only since a version, e.g. ``@needs_airflow("3.2")``."""
    wanted = tuple(int(number) for number in version.split("."))
    return pytest.mark.skipif(wanted > AIRFLOW, reason=f"Airflow has it since {version}; this is {AIRFLOW_VERSION}")
