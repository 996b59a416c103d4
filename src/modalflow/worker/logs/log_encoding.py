"""Log lines that hold what UTF-8 cannot: written all the same, with the characters spelled out.

Airflow's log lines are JSON. A lone surrogate in one (a file name that is no UTF-8, in an exception, say) raises out of
the log call, and in a callback or a task that log call is the one that reports why it failed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final

from modalflow.support.text import clean

#: Characters of one text in a line that needed this, and levels of what is nested in it.
_LONGEST: Final = 1 << 16
_DEEPEST: Final = 30


def spell_out_surrogates() -> None:
    """Have every JSON log line of this process, and of those forked from it, written whatever its texts hold."""
    from structlog.processors import JSONRenderer

    original: Callable[..., str | bytes] = JSONRenderer.__call__

    def __call__(self: JSONRenderer, logger: Any, name: str, event_dict: MutableMapping[str, Any]) -> str | bytes:
        # Airflow 3.2 and newer would write question marks for these.
        if any(type(value) is str and not is_encodable(value) for value in event_dict.values()):
            event_dict = spelled_out(event_dict)
        # Airflow's serializer takes the dict apart, also where it then fails.
        kept = dict(event_dict)
        try:
            return original(self, logger, name, event_dict)
        except UnicodeEncodeError:
            return original(self, logger, name, spelled_out(kept))

    JSONRenderer.__call__ = __call__  # type: ignore[method-assign]


def is_encodable(text: str) -> bool:
    """Whether a text has no lone surrogates."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def spelled_out(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event whose texts are all encodable, those in nested values and in keys included."""
    return {_text(key): _spelled_out(value, _DEEPEST) for key, value in event.items()}


def _spelled_out(value: object, deepest: int) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _text(value)
    if deepest and isinstance(value, Mapping):
        return {_text(key): _spelled_out(each, deepest - 1) for key, each in value.items()}
    if deepest and isinstance(value, list | tuple | set | frozenset):
        return [_spelled_out(each, deepest - 1) for each in value]
    return clean(value, _LONGEST)


def _text(value: object) -> str:
    return value if isinstance(value, str) and is_encodable(value) else clean(value, _LONGEST)
