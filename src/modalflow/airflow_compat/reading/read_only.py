"""Sessions of Airflow's database in which the database itself refuses every write.

A command that must leave a run unchanged does not rely on the code that it calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

#: Dialect → the statements at the checkout of a connection, at each begin of a transaction, and at the return.
_STATEMENTS = {
    "sqlite": ("PRAGMA query_only = ON", "", "PRAGMA query_only = OFF"),
    "postgresql": ("", "SET TRANSACTION READ ONLY", ""),
    "mysql": ("SET SESSION TRANSACTION READ ONLY", "", "SET SESSION TRANSACTION READ WRITE"),
}


@contextmanager
def read_only() -> Iterator[None]:
    """Make Airflow's sessions of this process read-only. A write raises the database's own error."""
    from airflow import settings

    engines: list[Any] = [settings.engine]
    if (of_coroutines := getattr(settings, "async_engine", None)) is not None:
        engines.append(of_coroutines.sync_engine)
    with ExitStack() as stack:
        for engine in engines:
            if engine is not None:
                stack.enter_context(_read_only(engine))
        yield


@contextmanager
def _read_only(engine: Any) -> Iterator[None]:
    from sqlalchemy import event

    at_checkout, at_begin, at_return = _STATEMENTS.get(engine.dialect.name, ("", "", ""))

    def checkout(connection: Any, record: Any, proxy: Any) -> None:
        _execute(connection, at_checkout)

    def checkin(connection: Any, record: Any) -> None:
        # None after an error of the connection.
        if connection is not None:
            _execute(connection, at_return)

    def begin(connection: Any) -> None:
        if at_begin:
            connection.exec_driver_sql(at_begin)

    listeners = ((engine.pool, "checkout", checkout), (engine.pool, "checkin", checkin), (engine, "begin", begin))
    for target, name, listener in listeners:
        event.listen(target, name, listener)
    try:
        yield
    finally:
        for target, name, listener in listeners:
            event.remove(target, name, listener)


def _execute(connection: Any, statement: str) -> None:
    if statement:
        cursor = connection.cursor()
        cursor.execute(statement)
        cursor.close()
