"""Sessions in which Airflow's database itself refuses writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.models.variable import Variable
from airflow.utils.session import create_session
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from modalflow.airflow_compat.reading.read_only import read_only
from tests.unit.executor.airflow_tables import AirflowTables, airflow_tables


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[AirflowTables]:
    with airflow_tables(tmp_path) as tables:
        yield tables


made: Any = Variable  # Without annotations in Airflow.


def count() -> int:
    with create_session() as session:
        return session.scalar(select(func.count()).select_from(Variable)) or 0


def test_the_database_refuses_a_write(tables: AirflowTables) -> None:
    """Reads work, a write raises the database's error, and afterwards writes work again."""
    with read_only():
        assert count() == 0
        with pytest.raises(SQLAlchemyError, match="readonly"), create_session() as session:
            session.add(made(key="a", val="b"))
    assert count() == 0
    with create_session() as session:
        session.add(made(key="a", val="b"))
    assert count() == 1
