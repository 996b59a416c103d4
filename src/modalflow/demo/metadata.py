"""Facts outside of Airflow's REST API, from its metadata database.

Only reads, and only the columns for work on Modal.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import create_engine, text
from sqlalchemy.engine import Connection
from sqlalchemy.pool import NullPool


class Metadata:
    """The metadata database at ``url``, an address as SQLAlchemy takes it."""

    def __init__(self, url: str) -> None:
        self._engine = create_engine(url, poolclass=NullPool)

    def function_call_ids(self, dag_id: str, run_id: str) -> dict[str, str]:
        """Return task-instance id → its last function call: the part before the slash of Airflow's stored id.

        Any other content of the column is returned unchanged.
        """
        query = text(
            "SELECT id, external_executor_id FROM task_instance"
            " WHERE dag_id = :dag_id AND run_id = :run_id AND external_executor_id IS NOT NULL"
        )
        with self._connected() as connection:
            rows = connection.execute(query, {"dag_id": dag_id, "run_id": run_id})
            return {str(row[0]): str(row[1]).partition("/")[0] for row in rows}

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        finally:
            self._engine.dispose()
