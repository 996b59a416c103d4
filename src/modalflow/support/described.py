"""One line for an exception, also if the exception has no text of its own.

The class and ``str(e)`` end in "TimeoutError: " for half of the exceptions that a network raises. ``describe``
is the only place that turns an exception into words. It does not clean the text: what came from outside may hold any
character and any length.
"""

from __future__ import annotations

import asyncio
import os

#: What an exception without a text means. The first class that fits counts, so subclasses come first.
_MEANINGS: tuple[tuple[type[BaseException], str], ...] = (
    (TimeoutError, "no answer in time"),
    (asyncio.CancelledError, "it was cancelled"),
    (ConnectionRefusedError, "nothing listens at the address"),
    (ConnectionResetError, "the other side ended the connection"),
    (ConnectionAbortedError, "the connection was aborted"),
    (BrokenPipeError, "the other side no longer reads"),
    (ConnectionError, "the connection failed"),
    (EOFError, "the data ended too early"),
    (FileNotFoundError, "a file or folder does not exist"),
    (PermissionError, "access was denied"),
    (MemoryError, "there is not enough memory"),
    (RecursionError, "the recursion is too deep"),
    (KeyboardInterrupt, "it was interrupted"),
    (NotImplementedError, "this is not implemented"),
    (AssertionError, "an assertion does not hold"),
)

#: Exceptions of a group that are described; the others are counted.
_MOST_OF_A_GROUP = 3
#: Causes of causes that are followed; a chain can be a circle.
_DEEPEST = 3


def describe(error: BaseException) -> str:
    """Return the class of an exception and what it says; never a text that ends where the reason should be.

    Adds the exceptions of a group, and the cause if it says something that the exception does not. Never raises.
    """
    return _describe(error, _DEEPEST)


def words_of(error: BaseException) -> str:
    """Return what an exception says, without its class; its description if it says nothing. Never raises."""
    return _text_of(error) or describe(error)


def _describe(error: BaseException, deep: int) -> str:
    name = type(error).__name__
    text = _text_of(error)
    if isinstance(error, BaseExceptionGroup) and deep:
        text = f"{error.message}: {_members(error, deep)}" if error.message else _members(error, deep)
    described = f"{name}: {text}" if text else name
    cause = _cause_of(error, bool(text)) if deep else None
    if cause is None:
        return described if text else f"{name}: {_meaning_of(error)}"
    because = _describe(cause, deep - 1)
    said = _text_of(cause)
    if said and text and said in text:
        return described
    return f"{described} (caused by {because})" if text else f"{name}: caused by {because}"


def _text_of(error: BaseException) -> str:
    try:
        if isinstance(error, KeyError) and len(error.args) == 1:
            return f"there is no key {error.args[0]!r}"
        text = str(error).strip()
    except Exception as failure:  # noqa: BLE001  Any class can have a __str__ or __repr__ that raises anything.
        return f"its text cannot be read, because that raises {type(failure).__name__}"
    if isinstance(error, OSError) and text.isdecimal() and len(text) < len("9999"):
        return f"{os.strerror(int(text))} ({text})"
    return "" if text in ("()", "None") else text


def _meaning_of(error: BaseException) -> str:
    return next((meaning for kind, meaning in _MEANINGS if isinstance(error, kind)), "it gives no reason")


def _cause_of(error: BaseException, has_text: bool) -> BaseException | None:
    """The exception that this one was raised from; without a text of its own also the one that was handled then."""
    without_text = not has_text and not error.__suppress_context__
    cause = error.__cause__ or (error.__context__ if without_text else None)
    # asyncio.timeout() turns its own cancellation into a TimeoutError: that says nothing.
    return None if isinstance(cause, asyncio.CancelledError) else cause


def _members(group: BaseExceptionGroup[BaseException], deep: int) -> str:
    told = "; ".join(_describe(each, deep - 1) for each in group.exceptions[:_MOST_OF_A_GROUP])
    more = len(group.exceptions) - _MOST_OF_A_GROUP
    return f"{told}; and {more} more" if more > 0 else told
