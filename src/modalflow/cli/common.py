"""What several commands share: their options, and errors as one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

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
