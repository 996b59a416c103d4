"""Shared options of commands, and errors as one line."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click

from modalflow.errors import ModalflowError
from modalflow.support.described import words_of
from modalflow.support.text import STORED, clean, for_terminal


class BundleType(click.ParamType):  # type: ignore[type-arg]  # Generic since click 8.2 only.
    """A DAG bundle and its folder, on the command line."""

    name = "NAME=FOLDER"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Path]:
        name, equals, folder = str(value).partition("=")
        if not (name and equals and folder) or "/" in name:
            self.fail(f"{value!r} is not NAME=FOLDER, e.g. dags-folder=/opt/airflow/dags", param, ctx)
        return name, Path(folder).expanduser()


_F = TypeVar("_F", bound=Callable[..., Any])

app_option = click.option("--app", default="", help="Name of the worker app. Default: `[modal_executor] app_name`.")
environment_option = click.option(
    "--environment",
    default="",
    help="Modal environment. Default: `[modal_executor] environment`, otherwise the one of the credentials.",
)


_answers: list[TextIO] = []


def _json_alone(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
    """Reserve standard output for ``answer``. Other output goes to standard error from now on.

    For example, Airflow's metrics exporter logs from its own thread at any time.
    """
    if value and sys.stdout is sys.__stdout__ and not _answers:
        _answers.append(os.fdopen(os.dup(1), "w", encoding="utf-8"))
        os.dup2(2, 1)
    return value


def show(text: object, *, err: bool = False) -> None:
    """Print text that may come from Modal, a container or a task. It cannot control the terminal."""
    click.echo(for_terminal(text), err=err)


def answer(text: str) -> None:
    """Print the output of `--json`."""
    click.echo(text, file=_answers[0] if _answers else None)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.", callback=_json_alone)


@contextmanager
def errors_in_a_line() -> Iterator[None]:
    """End the command with the error of modalflow or Modal's SDK in one line, without a traceback."""
    from modal import exception

    try:
        yield
    except KeyboardInterrupt:
        # Neither a second Ctrl-C nor the logs of libraries about interrupted work may end in a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        logging.disable(logging.CRITICAL)
        sys.exit(130)
    except ModalflowError as error:
        raise click.ClickException(clean(error, STORED)) from error
    except TimeoutError as error:
        raise click.ClickException("Modal did not answer in time; try again, or run `modalflow doctor`") from error
    except exception.Error as error:
        raise click.ClickException(f"{clean(words_of(error), STORED)} (run `modalflow doctor` for details)") from error


def target_options(command: _F) -> _F:
    """Add the options for one try of a task instance."""
    tries = click.option(
        "--try", "try_number", type=click.IntRange(min=1), help="Number of the try. Default: the newest, or any."
    )
    indexes = click.option("--map-index", type=click.IntRange(min=0), help="Index of an instance of a mapped task.")
    return indexes(tries(command))
