"""Commands that print their own output and nothing of the libraries that they use.

Airflow and its providers log to standard output as soon as they are imported, warn, and export metrics from threads. In
a command, standard output belongs to the command: what others write there goes to standard error, and of their log
lines only errors are shown.
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

#: What Airflow sets its own logging up by, once, at its import.
_LEVEL = "AIRFLOW__LOGGING__LOGGING_LEVEL"
#: They log from threads of their own, and an error of theirs does not concern a command.
_BACKGROUND = ("opentelemetry",)


class QuietCommand(click.Command):
    """A command in whose output there is nothing but its own, and errors of others on standard error."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the arguments."""
        _replace_closed_outputs()
        return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run it."""
        # Otherwise a caller reads the output, and its process goes on afterwards.
        if sys.stdout is sys.__stdout__:
            _hush()
        return super().invoke(ctx)


def _replace_closed_outputs() -> None:
    """Have an output that the caller closed (``>&-``) lead nowhere, rather than into the next file that is opened."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is not None:
            continue
        nowhere = os.open(os.devnull, os.O_WRONLY)
        if nowhere != number:
            os.dup2(nowhere, number)
            os.close(nowhere)
        setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace"))


def _hush() -> None:
    """Keep everything but errors of libraries out of sight, and all of it off standard output.

    For the rest of the process: libraries log while it ends, too.
    """
    found: Any = sys.stdout
    with _captured() as descriptor:
        _import_airflow()
        # Above what Airflow has set while it was imported.
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        for name in _BACKGROUND:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    own = os.fdopen(descriptor, "w", encoding=found.encoding, errors=found.errors)
    own.reconfigure(line_buffering=own.isatty())
    sys.stdout = own


def _import_airflow() -> None:
    """Import Airflow, if it is installed, with a logging that shows errors alone.

    The variable is set for this moment only: it would reach the processes that a command starts.
    """
    if "airflow.settings" in sys.modules:
        return
    given = os.environ.get(_LEVEL)
    os.environ[_LEVEL] = "ERROR"
    try:
        # What cannot be imported is the business of the command that needs it.
        with contextlib.suppress(ImportError):
            importlib.import_module("airflow.settings")
    finally:
        if given is None:
            del os.environ[_LEVEL]
        else:
            os.environ[_LEVEL] = given


@contextlib.contextmanager
def _captured() -> Iterator[int]:
    """Give standard output, as the descriptor that is yielded, to the command alone.

    Others keep ``sys.stdout`` as they found it at their import, or descriptor 1: what they write there goes to standard
    error from the end of the block on. Within it, what is written to either output is kept, and shown on standard error
    if something unforeseen happens.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    own, errors = (os.dup(number) for number in (1, 2))
    with tempfile.TemporaryFile() as said:
        for number in (1, 2):
            os.dup2(said.fileno(), number)
        failed = True
        try:
            yield own
            failed = False
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            # Never back to what the command prints to, not for a moment: a thread may write.
            for number in (1, 2):
                os.dup2(errors, number)
            os.close(errors)
            if failed:
                said.seek(0)
                os.write(2, said.read())
