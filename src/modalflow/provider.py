"""Airflow's entry points into modalflow: the metadata of a provider package, and the cluster policy."""

from __future__ import annotations

from typing import Any

from modalflow.airflow_policy import task_policy
from modalflow.config.settings import OPTIONS, SECTION

__all__ = ["get_provider_info", "task_policy"]


def get_provider_info() -> dict[str, Any]:
    """Provider metadata, in the form of Airflow's provider_info schema."""
    return {
        "package-name": "modalflow",
        "name": "modalflow",
        "description": "Run Airflow workloads on Modal.",
        "executors": ["modalflow.executor.modal_executor.ModalExecutor"],
        "task-decorators": [{"name": "modal_function", "class-name": "modalflow.operators.modal_function_task"}],
        "cli": ["modalflow.cli.in_airflow.get_cli_commands"],
        "config": provider_config(),
    }


def provider_config() -> dict[str, Any]:
    """Return the option table in the form of Airflow's provider metadata."""
    return {
        SECTION: {
            "description": "Options of `modalflow.executor.modal_executor.ModalExecutor`.",
            "options": {
                option.name: {
                    "description": option.help_text,
                    "version_added": option.version_added,
                    "type": option.type,
                    "example": option.example,
                    # Airflow formats every default of a provider: braces of its own must be doubled.
                    "default": option.default.replace("{", "{{").replace("}", "}}"),
                }
                for option in OPTIONS
            },
        }
    }
