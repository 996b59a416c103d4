"""One line for an exception, also if the exception has no text of its own.

For half of a network's exceptions, the class and ``str(e)`` are just "TimeoutError: ". Only ``describe`` turns an
exception into text. It does not clean the text: external text may have any characters and any length.
"""

from __future__ import annotations

import asyncio
import os

#: The meaning of exceptions without a message. The first matching class counts, so subclasses come first.
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

#: Number of described exceptions of a group; the others are counted.
_MOST_OF_A_GROUP = 3
#: Longest chain of causes; a chain can be a circle.
_DEEPEST = 3


def describe(error: BaseException, *, with_context: bool = False) -> str:
    """Return the class of an exception and its message; never a text without the reason.

    Adds the exceptions of a group, and a cause with more information. ``with_context`` also counts an exception as the
    cause if it was merely handled at that time. Never raises.
    """
    return _describe(error, _DEEPEST, with_context)


def chain(error: BaseException) -> list[BaseException]:
    """Return an exception, its cause or the exception handled at that time, the cause of that one, and so on."""
    found: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and not any(following is each for each in found):
        found.append(following)
        following = _cause_of(following, with_context=True)
    return found


def words_of(error: BaseException) -> str:
    """Return an exception's message without its class, or its description without a message. Never raises."""
    return _text_of(error) or describe(error)


def _describe(error: BaseException, deep: int, with_context: bool) -> str:
    name = type(error).__name__
    text = _text_of(error)
    if isinstance(error, BaseExceptionGroup) and deep:
        members = _members(error, deep, with_context)
        text = f"{error.message}: {members}" if error.message else members
    described = f"{name}: {text}" if text else name
    cause = _cause_of(error, with_context=with_context or not text) if deep else None
    if cause is None:
        return described if text else f"{name}: {_meaning_of(error)}"
    because = _describe(cause, deep - 1, with_context)
    cause_text = _text_of(cause)
    if cause_text and text and cause_text in text:
        return described
    return f"{described} (caused by {because})" if text else f"{name}: caused by {because}"


def _text_of(error: BaseException) -> str:
    try:
        if isinstance(error, KeyError) and len(error.args) == 1:
            return f"there is no key {error.args[0]!r}"
        text = str(error).strip()
    except Exception as failure:  # noqa: BLE001  Any class can have a __str__ or __repr__ that raises anything.
        return f"its text cannot be read, because this raises {type(failure).__name__}"
    if isinstance(error, OSError) and text.isdecimal() and len(text) < len("9999"):
        return f"{os.strerror(int(text))} ({text})"
    return "" if text in ("()", "None") else text


def _meaning_of(error: BaseException) -> str:
    return next((meaning for kind, meaning in _MEANINGS if isinstance(error, kind)), "it gives no reason")


def _cause_of(error: BaseException, *, with_context: bool) -> BaseException | None:
    """Return the exception's cause. ``with_context`` also accepts the exception handled at that time."""
    handled = error.__context__ if with_context and not error.__suppress_context__ else None
    cause = error.__cause__ or handled
    # asyncio.timeout() turns its own cancellation into a TimeoutError. It has no information.
    return None if isinstance(cause, asyncio.CancelledError) else cause


def _members(group: BaseExceptionGroup[BaseException], deep: int, with_context: bool) -> str:
    members = "; ".join(_describe(each, deep - 1, with_context) for each in group.exceptions[:_MOST_OF_A_GROUP])
    more = len(group.exceptions) - _MOST_OF_A_GROUP
    return f"{members}; and {more} more" if more > 0 else members
