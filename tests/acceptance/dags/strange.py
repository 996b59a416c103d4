"""A DAG whose words no database takes: in the reasons of its deadlines' callbacks, and in what its tasks do."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, task
from airflow.sdk.definitions.callback import SyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference


def nul(**kwargs: str) -> None:
    """Fail with a character that PostgreSQL refuses."""
    raise RuntimeError("bad field: A\x00B")


def surrogate(**kwargs: str) -> None:
    """Fail with one that UTF-8 does not have."""
    raise RuntimeError("no such file: caf\udce9.csv")


def long(**kwargs: str) -> None:
    """Fail with more than MySQL would take, and with what would clear a terminal."""
    raise RuntimeError("it begins here \x1b[2J" + "é" * 1_000_000)


@task
def prints() -> None:
    logging.getLogger("mine").info("nul \x00 in log")
    logging.getLogger("mine").info("surrogate \udce9 in log")
    print("nul \x00 in print")


@task
def raises_nul() -> None:
    raise ValueError("bad \x00 value")


@task
def raises_surrogate() -> None:
    raise ValueError("bad caf\udce9 value")


@task
def returns_nul() -> str:
    return "a\x00b"


@task
def returns_surrogate() -> str:
    return "a\udce9b"


def alert(callback: SyncCallback) -> DeadlineAlert:
    """A deadline that has passed before any run begins."""
    past = DeadlineReference.FIXED_DATETIME(datetime(2020, 1, 1, tzinfo=UTC))
    return DeadlineAlert(reference=past, interval=timedelta(seconds=1), callback=callback)


with DAG(
    "strange",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    deadline=[alert(SyncCallback(callback, kwargs={})) for callback in (nul, surrogate, long)],
):
    prints(), raises_nul(), raises_surrogate(), returns_nul(), returns_surrogate()
