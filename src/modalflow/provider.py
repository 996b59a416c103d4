"""What Airflow reads of modalflow as a provider package."""

from __future__ import annotations

from typing import Any

from modalflow.config import provider_config


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
