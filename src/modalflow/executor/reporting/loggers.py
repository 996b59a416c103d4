"""The executor's loggers: text from Modal, a container or a task cannot forge a line of the scheduler's log.

Such text arrives as an argument of a log call, often as an exception. Each argument becomes one line of limited length.
"""

from __future__ import annotations

import logging
import traceback
from typing import Final

from modalflow.support.described import describe
from modalflow.support.text import STORED, clean, one_line

#: Types that are formatted as numbers, and can hold no text.
_NUMBERS: Final = (bool, int, float)


class _SafeArguments(logging.Filter):
    """Cleans the arguments of each record, and its traceback if necessary."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(_safe(argument) for argument in record.args)
        if record.exc_info and record.exc_info[1] is not None:
            _clean_traceback(record, record.exc_info[1])
        return True


_SAFE_ARGUMENTS: Final = _SafeArguments()


def logger(name: str) -> logging.Logger:
    """Return the logger of that name, whose records are safe to write to a log or a terminal."""
    found = logging.getLogger(name)
    # Adding it again changes nothing.
    found.addFilter(_SAFE_ARGUMENTS)
    return found


def _safe(argument: object) -> object:
    return argument if type(argument) in _NUMBERS else one_line(argument)


def _clean_traceback(record: logging.LogRecord, error: BaseException) -> None:
    """Put the cleaned traceback into the message if it is unsafe: a handler prints tracebacks unchanged."""
    text = _traceback_of(error)
    safe = clean(text or f"{describe(error)} (its traceback cannot be formatted)", STORED)
    if safe != text:
        record.msg, record.args = "%s\n%s", (record.getMessage(), safe)
        record.exc_info = record.exc_text = None


def _traceback_of(error: BaseException) -> str:
    """Return the traceback of an exception as a handler prints it; empty if that raises."""
    try:
        return "".join(traceback.format_exception(error)).rstrip("\n")
    except Exception:  # noqa: BLE001  The module trusts a SyntaxError's attributes, and what raised it may set them.
        return ""
