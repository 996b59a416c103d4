"""What several commands share: their options, and errors as one line."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
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
    help="Modal environment. Default: `[modal_executor] environment`, else that of the credentials.",
)


_answers: list[TextIO] = []


def _json_alone(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
    """Keep standard output for ``answer`` alone. What others write there from now on goes to standard error: Airflow's
    metrics exporter, for one, logs from a thread of its own, whenever it likes."""
    if value and sys.stdout is sys.__stdout__ and not _answers:
        _answers.append(os.fdopen(os.dup(1), "w", encoding="utf-8"))
        os.dup2(2, 1)
    return value


def show(text: object, *, err: bool = False) -> None:
    """Print text that may hold what Modal, a container or a task reported: the terminal only shows it."""
    click.echo(for_terminal(text), err=err)


def answer(text: str) -> None:
    """Print what was asked for with `--json`."""
    click.echo(text, file=_answers[0] if _answers else None)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.", callback=_json_alone)


@contextmanager
def errors_in_a_line() -> Iterator[None]:
    """End the command with what modalflow or Modal's SDK says, without a traceback."""
    from modal import exception

    try:
        yield
    except KeyboardInterrupt:
        # A second Ctrl-C must not end in a traceback, nor what libraries log of the work that the first one cut off.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        logging.disable(logging.CRITICAL)
        sys.exit(130)
    except ModalflowError as error:
        raise click.ClickException(clean(error, STORED)) from error
    except TimeoutError as error:
        raise click.ClickException("Modal did not answer in time; try again, or see `modalflow doctor`") from error
    except exception.Error as error:
        raise click.ClickException(f"{clean(words_of(error), STORED)} (`modalflow doctor` can show more)") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what is written to standard output meanwhile, and show it on standard error if something unforeseen happens.

    Airflow and its hooks log to standard output, where an answer is expected, which may be JSON, and nothing else. They
    keep the file that they found when they were imported, so that only its descriptor can be replaced.
    """
    sys.stdout.flush()
    answers = os.dup(1)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 1)
        try:
            yield
        except ModalflowError:
            raise
        except BaseException:
            sys.stdout.flush()
            said.seek(0)
            show(said.read().decode(errors="replace").removesuffix("\n"), err=True)
            raise
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
