"""What makes a process that was forked from a zygote like a new one: its variables, its signals, its chance.

``tests/hostile/`` compares the two. Must not import Airflow.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

#: What a new Python ignores, because its own exceptions tell the same.
_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)


def take_environment(variables: Mapping[str, str]) -> None:
    """Have these variables and no others, and forget what was made of the earlier ones."""
    if (titles := sys.modules.get("setproctitle")) is not None:
        # It finds the place of the title, for which it needs the first variables, when it is used first.
        titles.getproctitle()
    os.environ.clear()
    os.environ.update(variables)
    time.tzset()
    tempfile.tempdir = None
    random.seed()
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        numpy_random.seed()


def reset_signals() -> None:
    """Have each signal do what it does in a new Python."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        usual: Any = signal.SIG_IGN if number in _IGNORED else signal.SIG_DFL
        if number == signal.SIGINT:
            usual = signal.default_int_handler
        if signal.getsignal(number) is not usual:
            signal.signal(number, usual)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def keep_from_children(file: int) -> None:
    """Close a file in what this process forks: a task has no business in the pipe for its outcome."""
    held = [file]

    def let_go() -> None:
        # Once: a later child may have a file of its own under this number.
        while held:
            os.close(held.pop())

    os.register_at_fork(after_in_child=let_go)
