"""A task that tells what its process is like, and waits for SIGUSR1 while somebody looks at it from outside."""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import gc
import json
import locale
import logging
import os
import resource
import signal
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any

from airflow.sdk import dag, task

_PR_GET_PDEATHSIG, _PR_GET_DUMPABLE, _PR_GET_CHILD_SUBREAPER = 2, 3, 37

_SIGNALS = [number for number in signal.valid_signals() if isinstance(number, signal.Signals)]


def facts_of_python() -> dict[str, Any]:
    """What Python has in this process."""
    return {
        "argv": sys.argv,
        "path": sys.path,
        "flags": sys.flags,
        "main": str(sys.modules["__main__"].__spec__),
        "executable": sys.executable,
        "hooks": [sys.excepthook, sys.unraisablehook, threading.excepthook, sys.gettrace(), sys.getprofile()],
        "limits of Python": [sys.getrecursionlimit(), sys.getswitchinterval()],
        "handlers": {number.name: signal.getsignal(number) for number in _SIGNALS},
        "wakeup": signal.set_wakeup_fd(-1),
        "timers": [
            signal.getitimer(which) for which in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
        ],
        "warnings": warnings.filters,
        "threads": threading.enumerate(),
        "event loop": [asyncio.get_event_loop_policy(), asyncio._get_running_loop()],
        "garbage": [gc.isenabled(), gc.get_threshold(), gc.get_debug(), gc.callbacks],
        "frozen": gc.get_freeze_count(),
        "at exit": atexit._ncallbacks(),
        "modules": sorted(sys.modules),
        "random": "the same" if random_state_is_known() else "its own",
    }


def random_state_is_known() -> bool:
    """Whether the state is what ``seed(1)`` makes of it."""
    import random

    return random.getstate() == random.Random(1).getstate()


def facts_of_the_system() -> dict[str, Any]:
    """What the C library and the kernel have for this process, asked from within."""
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_char_p
    found = {}
    for name, option in (("subreaper", _PR_GET_CHILD_SUBREAPER), ("dies with", _PR_GET_PDEATHSIG)):
        value = ctypes.c_int()
        libc.prctl(option, ctypes.byref(value), 0, 0, 0)
        found[name] = value.value
    return {
        "environment": dict(os.environ),
        "environment of C": {name: libc.getenv(name.encode()) for name in os.environ},
        "limits": [resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT")],
        "locale": [locale.setlocale(getattr(locale, name)) for name in dir(locale) if name.startswith("LC_")],
        "encodings": [sys.getfilesystemencoding(), locale.getpreferredencoding(False), sys.stdout.encoding],
        "time zone": [time.tzname, time.timezone],
        "temporary files": tempfile.gettempdir(),
        "dumpable": libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0),
        "children": Path(f"/proc/self/task/{os.getpid()}/children").read_text(),
        **found,
    }


def facts_of_logging() -> dict[str, Any]:
    """Who logs what to whom in this process."""
    from airflow.sdk._shared.secrets_masker import _secrets_masker

    loggers = {
        name: [logger.level, logger.propagate, logger.disabled, logger.handlers, logger.filters]
        for name, logger in sorted(logging.root.manager.loggerDict.items())
        if isinstance(logger, logging.Logger)
    }
    root = logging.root
    return {
        "root logger": [root.level, root.handlers, root.filters, root.manager.disable],
        "loggers": {name: set_up for name, set_up in loggers.items() if set_up != [0, True, False, [], []]},
        "masked": len(_secrets_masker().patterns),
    }


@task
def facts() -> None:
    told = {**facts_of_python(), **facts_of_the_system(), **facts_of_logging()}
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    file = Path(os.environ["FACTS"])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(told, default=str))
    print("facts are told", flush=True)
    signal.sigtimedwait([signal.SIGUSR1], 60)


@dag(dag_id="d", schedule=None)
def d() -> None:
    facts()


d()
