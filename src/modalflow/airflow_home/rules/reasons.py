"""Reasons that several rows share."""

from __future__ import annotations

from typing import Final

DATABASE: Final = "Only processes with a database connection read it, and containers have none."
SCHEDULER: Final = "Only the scheduler reads it."
DAG_PROCESSOR: Final = "Only the DAG processor reads it."
API_SERVER: Final = "Only the API server reads it."
TRIGGERER: Final = "Only the triggerer reads it."
OTHER_EXECUTOR: Final = "Another executor and its workers read it."

DAG_DEFAULTS: Final = "DAGs and operators take their defaults from it when a container parses the DAG file."
PARSING: Final = "A container parses the DAG file of its task, with these rules."
HOOKS: Final = "Hooks and operators of the provider read it in tasks."
LISTENER: Final = "The provider's listener sends the events of a task from its container."
REMOTE_LOGS: Final = "With this remote logging, containers write their logs with it."
OWN_REMOTE_LOGS: Final = "With a remote logging of your own, containers upload their logs with it."
EMAILS: Final = "Tasks and callbacks send e-mails with it."

WITH_WORKLOAD: Final = "Every workload carries the value for its container."
SIGNING_KEY: Final = "With this secret, a task could sign tokens or cookies for any user of Airflow."
DATABASE_ACCESS: Final = "It gives access to the metadata database."
API_CLIENT: Final = "It is made for workers. If you do not set it, a worker is more patient than Airflow."
