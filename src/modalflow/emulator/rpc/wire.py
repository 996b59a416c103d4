"""Protocol messages, built and read across SDK versions although their fields differ.

Owns the tolerance: a field that the schema of the installed SDK lacks is left out of an answer, and is absent from a
request. A misspelt field would vanish as silently: use only names that a supported SDK has.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

from google.protobuf.message import Message

M = TypeVar("M", bound=Message)

_FIELD_NAMES: dict[type[Message], frozenset[str]] = {}


def message(kind: type[M], **fields: Any) -> M:
    """Return a message of that type, with the fields that the installed schema has."""
    known = _FIELD_NAMES.get(kind)
    if known is None:
        # Each use of the descriptor makes a Python object for each field.
        known = _FIELD_NAMES[kind] = frozenset(kind.DESCRIPTOR.fields_by_name)
    if fields.keys() <= known:
        return kind(**fields)
    return kind(**{name: value for name, value in fields.items() if name in known})


def sendable(text: str) -> str:
    """Return the text with surrogates escaped: names of files may have them, and messages cannot hold them."""
    return text.encode(errors="backslashreplace").decode()


def seconds(value: float) -> float:
    """Return a wait that a request asks for; 0 if it is not a number, which would stop all timers of an event loop."""
    return 0.0 if math.isnan(value) else value


def optional(request: Message, name: str) -> Any:
    """Return the value of a field, None if the schema lacks it or it has presence and was not set."""
    field = request.DESCRIPTOR.fields_by_name.get(name)
    if field is None or (field.has_presence and not request.HasField(name)):
        return None
    return getattr(request, name)
