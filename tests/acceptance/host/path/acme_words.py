"""A module that only the Airflow host has, beside its local settings."""

from __future__ import annotations

POLICED = "the policy holds"
