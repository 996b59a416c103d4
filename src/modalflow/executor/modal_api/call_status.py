"""Modal's own word on a function call, read out of how the SDK raises it. Pure.

The SDK has one exception for most ends (``RemoteError``); which of them it was stands in words that Modal may change.
So words only choose what advice a reader gets, and are always passed on: nothing is decided by them.
"""

from __future__ import annotations

import re

from modal import exception

from modalflow.executor.lifecycle.decision import PENDING, RETURNED, Verdict
from modalflow.reasons import Cause
from modalflow.support.described import describe
from modalflow.support.text import clean

#: The exceptions that are a word on a function call, and no failure to ask for it.
ENDINGS = (
    exception.OutputExpiredError,
    exception.FunctionTimeoutError,
    exception.NotFoundError,
    TimeoutError,
    exception.InternalFailure,
    exception.DeserializationError,
    exception.RemoteError,
    exception.ExecutionError,
)

#: In this order: a container that was killed for its memory crashed, too.
_WORDS: tuple[tuple[re.Pattern[str], Cause], ...] = (
    (re.compile(r"out of memory|\boom\b|memory limit|exceeded.{0,20}memory", re.I), Cause.OUT_OF_MEMORY),
    (re.compile(r"app\b.{0,60}\b(stopped|over)\b|stopped app", re.I), Cause.APP_STOPPED),
    (
        re.compile(
            r"before it took an input|cannot run here|startup|ImportError|ModuleNotFoundError|crash.?loop", re.I
        ),
        Cause.NOT_STARTABLE,
    ),
    (re.compile(r"cancell?ed|terminated", re.I), Cause.CANCELLED),
    (re.compile(r"preempt", re.I), Cause.CONTAINER_STOPPED),
    (re.compile(r"exited with (signal|code)|crashed|killed|container", re.I), Cause.CONTAINER_LOST),
)

#: A traceback is cut to its end, where the error is.
_LONGEST = 1500
#: Characters of an error that are searched, its last ones.
_READ = 1 << 16


def verdict_of(error: BaseException) -> Verdict:
    """The verdict that one of ENDINGS stands for."""
    if isinstance(error, exception.OutputExpiredError):
        return Verdict(True, "", Cause.OUTPUT_EXPIRED)
    if isinstance(error, exception.FunctionTimeoutError):
        started = "did not start" not in str(error)
        return Verdict(True, str(error), Cause.FUNCTION_TIMEOUT if started else Cause.NOT_STARTABLE)
    if isinstance(error, exception.NotFoundError):
        return Verdict(True, str(error), Cause.CALL_UNKNOWN)
    if isinstance(error, TimeoutError):
        return PENDING
    if isinstance(error, exception.InternalFailure):
        return Verdict(True, str(error), Cause.MODAL_FAILURE)
    if isinstance(error, exception.DeserializationError):
        # What it returned is nothing that a worker returns; that it returned is all that counts here.
        return RETURNED
    words = str(error)
    if not words and isinstance(error, exception.RemoteError):
        # So ends what a container reports as cancelled itself (GENERIC_STATUS_TERMINATED).
        return Verdict(True, "", Cause.CANCELLED)
    words = words[-_READ:] or describe(error)
    for pattern, cause in _WORDS:
        if pattern.search(words):
            return Verdict(True, _short(words), cause)
    return Verdict(True, _short(words), Cause.OTHER)


def _short(words: str) -> str:
    words = words.strip()
    return clean(words if len(words) <= _LONGEST else "…" + words[-_LONGEST:])
