"""Airflow's database for a command that only reads it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from modalflow.errors import AirflowSettingError
from modalflow.operations.site import airflow_conf
from modalflow.support.described import describe


@contextmanager
def airflow_database() -> Iterator[Any]:
    """Yield this machine's Airflow configuration, with sessions in which the database refuses writes.

    Raises AirflowSettingError without Airflow, or if its database cannot be read.
    """
    conf = airflow_conf()
    if conf is None:
        raise AirflowSettingError(
            "Airflow is not installed here. Run the command on an Airflow host, as the scheduler's user: it reads "
            "Airflow's database."
        )
    from sqlalchemy.exc import SQLAlchemyError

    from modalflow.airflow_compat.reading.read_only import read_only

    try:
        with read_only():
            yield conf
    except SQLAlchemyError as error:
        raise AirflowSettingError(
            f"Airflow's database could not be read: {describe(error)}. Run the command with the scheduler's variables "
            "and AIRFLOW_HOME, or check `airflow db check`."
        ) from error
