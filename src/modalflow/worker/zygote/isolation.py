"""The isolation of function calls from each other: temporary folders, variables, signals and random numbers.

A process that was forked from a zygote must behave like a new one; ``tests/hostile/`` compares the two. Must not import
Airflow.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

log = logging.getLogger(__name__)

#: Programs read the folder for temporary files from it, Python's tempfile among them.
_TEMPORARY_FOLDER = "TMPDIR"

#: A new Python ignores these signals, because it raises exceptions for the same events.
_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)


@contextmanager
def temporary_folder(env: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """Add a temporary folder of its own to the variables of a function call, unless they name one.

    A thread removes it afterwards. If no folder can be made, the call runs without one.
    """
    if _TEMPORARY_FOLDER in env:
        yield env
        return
    try:
        folder = tempfile.mkdtemp(prefix="modalflow-scratch-")
    except OSError as error:
        log.warning("The folder for temporary files could not be made: %s", error)
        yield env
        return
    try:
        yield {**env, _TEMPORARY_FOLDER: folder}
    finally:
        # Nobody waits for it: a million files must not delay the outcome.
        asyncio.get_running_loop().run_in_executor(None, partial(shutil.rmtree, folder, ignore_errors=True))


def replace_environment(variables: Mapping[str, str]) -> None:
    """Replace all variables of this process, and discard what was derived from the earlier ones."""
    if (titles := sys.modules.get("setproctitle")) is not None:
        # At its first use it searches for the place of the title, and needs the original variables for that.
        titles.getproctitle()
    os.environ.clear()
    os.environ.update(variables)
    time.tzset()
    tempfile.tempdir = None
    random.seed()
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        numpy_random.seed()


def reset_signals() -> None:
    """Give each signal the handler that it has in a new Python."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        usual: Any = signal.SIG_IGN if number in _IGNORED else signal.SIG_DFL
        if number == signal.SIGINT:
            usual = signal.default_int_handler
        if signal.getsignal(number) is not usual:
            signal.signal(number, usual)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def close_in_children(file: int) -> None:
    """Close a file in every process that this one forks: a task must not write to the pipe for its outcome."""
    held = [file]

    def close() -> None:
        # Only once: a later child may have another file under the same number.
        while held:
            os.close(held.pop())

    os.register_at_fork(after_in_child=close)
