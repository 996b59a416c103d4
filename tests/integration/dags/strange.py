"""Tasks and callbacks with texts that not everything can hold: NUL, lone surrogates, escape sequences, megabytes."""

from __future__ import annotations

import logging
import sys
from datetime import datetime
from typing import Any

from airflow.sdk import Connection, Variable, dag, task

UNENCODABLE = "no such file: caf\udce9.csv"


def fails_with_nul(**kwargs: Any) -> None:
    raise RuntimeError("bad field: A\x00B")


def fails_with_surrogate(**kwargs: Any) -> None:
    raise RuntimeError(UNENCODABLE)


def fails_with_separators(**kwargs: Any) -> None:
    raise RuntimeError("one\u2028two\x85three\x0bfour\x1b[2J")


def fails_at_length(**kwargs: Any) -> None:
    raise RuntimeError("it begins here " + "é" * 1_000_000)


def fails_without_words(**kwargs: Any) -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise ValueError("even this fails")

    raise Silent


@task
def prints() -> None:
    logging.getLogger("mine").info("nul \x00 in log")
    logging.getLogger("mine").info("surrogate \udce9 in log")
    logging.getLogger("mine").info("nested %s", {"surrogate \udce9": ["in a list \udce9"]})
    print("nul \x00 in print")
    sys.stdout.buffer.write(b"no utf-8: \xe9\xff\n")
    sys.stdout.flush()
    print("the end of it")


@task
def raises_nul() -> None:
    raise ValueError("bad \x00 value")


@task
def raises_surrogate() -> None:
    raise ValueError(UNENCODABLE)


@task
def raises_from_surrogate() -> None:
    try:
        raise FileNotFoundError(UNENCODABLE)
    except FileNotFoundError as error:
        raise ValueError("the cause knows more") from error


@task
def shows_what_is_sensitive() -> None:
    extra = Connection.get("gate").extra_dejson
    pin = Variable.get("door_pin")
    print("pin", pin)
    print("extra", extra["kennwort"])
    logging.getLogger("mine").warning("pin %s, extra %s", pin, extra)
    raise ValueError(f"no door opens to {pin}")


@dag(schedule=None, start_date=datetime(2026, 1, 1))
def d() -> None:
    prints(), raises_nul(), raises_surrogate(), raises_from_surrogate(), shows_what_is_sensitive()


d()
