"""What `modalflow deploy` makes of Airflow's configuration."""

from __future__ import annotations

from importlib import metadata

from modalflow.worker.deploy.mirror import mirror_environment


def test_the_image_gets_this_airflow_and_its_providers() -> None:
    """Every Airflow distribution of this mirror_environment is in the list, with the version installed here."""
    packages = mirror_environment().airflow
    assert packages["apache-airflow-core"] == metadata.version("apache-airflow-core")
    assert packages["apache-airflow-providers-standard"] == metadata.version("apache-airflow-providers-standard")
    assert all(name.startswith("apache-airflow") for name in packages)
