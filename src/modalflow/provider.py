"""Airflow's entry points into modalflow: the metadata of a provider package, and the cluster policy."""

from __future__ import annotations

from typing import Any

from modalflow.airflow_policy import task_policy
from modalflow.config.settings import provider_config

__all__ = ["get_provider_info", "task_policy"]


def get_provider_info() -> dict[str, Any]:
    """Provider metadata, in the form of Airflow's provider_info schema."""
    return {
        "package-name": "modalflow",
        "name": "modalflow",
        "description": "Run Airflow workloads on Modal.",
        "executors": ["modalflow.executor.modal_executor.ModalExecutor"],
        "cli": ["modalflow.cli.in_airflow.get_cli_commands"],
        "config": provider_config(),
    }
