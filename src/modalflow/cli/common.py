"""What several commands share: their options, and errors as one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])

app_option = click.option("--app", default="", help="Name of the worker app. Default: `[modal_executor] app_name`.")
environment_option = click.option(
    "--environment",
    default="",
    help="Modal environment. Default: `[modal_executor] environment`, else that of the credentials.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@contextmanager
def errors_in_a_line() -> Iterator[None]:
    """End the command with what modalflow or Modal's SDK says, without a traceback."""
    from modal import exception

    from modalflow.errors import ModalflowError

    try:
        yield
    except ModalflowError as error:
        raise click.ClickException(str(error)) from error
    except TimeoutError as error:
        raise click.ClickException("Modal did not answer in time; try again, or see `modalflow doctor`") from error
    except exception.Error as error:
        raise click.ClickException(f"{error} (`modalflow doctor` may tell more)") from error


@contextmanager
def logs_on_stderr() -> Iterator[None]:
    """Send what is written to standard output to standard error meanwhile.

    Airflow and its hooks log to standard output, where an answer is expected, which may be JSON, and nothing else. They
    keep the file that they found when they were imported, so that only its descriptor can be replaced.
    """
    sys.stdout.flush()
    answers = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(answers, 1)
        os.close(answers)


def target_options(command: _F) -> _F:
    """The options that tell one try of a task instance from the others."""
    tries = click.option(
        "--try", "try_number", type=click.IntRange(min=1), help="Number of the try. Default: the newest, or any."
    )
    indexes = click.option("--map-index", type=click.IntRange(min=0), help="Which of a mapped task's instances.")
    return indexes(tries(command))
