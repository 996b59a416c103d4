"""Commands that print only their own output, and no output of libraries.

Airflow and its providers log to standard output from their import on, warn, and export metrics from threads. In a
command, standard output belongs to the command. Other output goes to standard error, and only errors of libraries
appear.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

import click

#: Airflow reads its logging level from this variable, once, at its import.
_LEVEL = "AIRFLOW__LOGGING__LOGGING_LEVEL"
#: They log from their own threads, and their errors do not concern a command.
_BACKGROUND = ("opentelemetry",)


class QuietCommand(click.Command):
    """A command with only its own output, and errors of libraries on standard error."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the arguments."""
        _replace_closed_outputs()
        return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run it."""
        # Otherwise a caller reads the output, and its process continues afterwards.
        if sys.stdout is sys.__stdout__:
            _hush()
        return super().invoke(ctx)


def _replace_closed_outputs() -> None:
    """Replace an output closed by the caller (``>&-``), so that it does not lead into the next opened file."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is not None:
            continue
        nowhere = os.open(os.devnull, os.O_WRONLY)
        if nowhere != number:
            os.dup2(nowhere, number)
            os.close(nowhere)
        setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace"))


def _hush() -> None:
    """Hide all output of libraries except errors, and keep it off standard output.

    This holds for the rest of the process, because libraries also log at its end.
    """
    found: Any = sys.stdout
    with _captured() as descriptor:
        _import_airflow()
        # This overrides the settings of Airflow's import.
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        for name in _BACKGROUND:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    own = os.fdopen(descriptor, "w", encoding=found.encoding, errors=found.errors)
    own.reconfigure(line_buffering=own.isatty())
    sys.stdout = own


def _import_airflow() -> None:
    """Import Airflow, if installed, with a logging of errors only.

    The variable is set only during the import: otherwise the child processes of a command would inherit it.
    """
    if "airflow.settings" in sys.modules:
        return
    given = os.environ.get(_LEVEL)
    os.environ[_LEVEL] = "ERROR"
    try:
        # The command that needs it reports a failed import.
        with contextlib.suppress(ImportError):
            importlib.import_module("airflow.settings")
    finally:
        if given is None:
            del os.environ[_LEVEL]
        else:
            os.environ[_LEVEL] = given


@contextlib.contextmanager
def _captured() -> Iterator[int]:
    """Reserve standard output for the command, as the yielded descriptor.

    Libraries keep the ``sys.stdout`` of their import, or descriptor 1. After the block, their output goes to standard
    error. In the block, both outputs are held back, and appear on standard error after an unexpected error.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    own, errors = (os.dup(number) for number in (1, 2))
    with tempfile.TemporaryFile() as captured:
        for number in (1, 2):
            os.dup2(captured.fileno(), number)
        failed = True
        try:
            yield own
            failed = False
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            # Never restore the descriptor of the command, not for a moment: a thread may write.
            for number in (1, 2):
                os.dup2(errors, number)
            os.close(errors)
            if failed:
                captured.seek(0)
                os.write(2, captured.read())
