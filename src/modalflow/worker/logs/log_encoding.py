"""Log lines that hold characters that UTF-8 cannot encode: they are written with these characters escaped.

Airflow's log lines are JSON. A lone surrogate in one makes the log call raise; it may come from a file name that is not
UTF-8, in an exception. In a callback or a task, that log call is the one that reports why it failed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final

from modalflow.airflow_compat import replaced as rows
from modalflow.support.replaced import replace
from modalflow.support.text import clean

#: Limits for a line that is escaped: the characters of one text in it, and the levels of nested values.
_LONGEST: Final = 1 << 16
_DEEPEST: Final = 30


def escape_surrogates_in_logs() -> None:
    """Make this process, and those forked from it, write every JSON log line, whatever its texts hold."""
    original: Callable[..., str | bytes] = rows.JSON_RENDERER.original()

    def __call__(self: Any, logger: Any, name: str, event_dict: MutableMapping[str, Any]) -> str | bytes:
        # Airflow 3.2 and newer would write question marks for these.
        if any(type(value) is str and not is_encodable(value) for value in event_dict.values()):
            event_dict = escaped(event_dict)
        # Airflow's serializer removes items from the dict, also if it fails then.
        kept = dict(event_dict)
        try:
            return original(self, logger, name, event_dict)
        except UnicodeEncodeError:
            return original(self, logger, name, escaped(kept))

    replace(rows.JSON_RENDERER, __call__)


def is_encodable(text: str) -> bool:
    """Return whether a text has no lone surrogates."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def escaped(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event whose texts are all encodable, including keys and the texts in nested values."""
    return {_escaped_text(key): _escaped(value, _DEEPEST) for key, value in event.items()}


def _escaped(value: object, deepest: int) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _escaped_text(value)
    if deepest and isinstance(value, Mapping):
        return {_escaped_text(key): _escaped(each, deepest - 1) for key, each in value.items()}
    if deepest and isinstance(value, list | tuple | set | frozenset):
        return [_escaped(each, deepest - 1) for each in value]
    return clean(value, _LONGEST)


def _escaped_text(value: object) -> str:
    return value if isinstance(value, str) and is_encodable(value) else clean(value, _LONGEST)
