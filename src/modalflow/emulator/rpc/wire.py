"""Building and reading protocol messages although their fields come and go between SDK versions.

Owns the tolerance and nothing else: a field that this SDK's schema lacks is left out of an answer and read as absent
from a request. A misspelt field would vanish as silently, so every name used here is one that some supported SDK has.
"""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf.message import Message

M = TypeVar("M", bound=Message)

_FIELD_NAMES: dict[type[Message], frozenset[str]] = {}


def message(kind: type[M], **fields: Any) -> M:
    """Return a ``kind`` with those of the fields that the installed schema has."""
    known = _FIELD_NAMES.get(kind)
    if known is None:
        # Asking the descriptor each time makes a Python object for each field.
        known = _FIELD_NAMES[kind] = frozenset(kind.DESCRIPTOR.fields_by_name)
    if fields.keys() <= known:
        return kind(**fields)
    return kind(**{name: value for name, value in fields.items() if name in known})


def sendable(text: str) -> str:
    """Return the text with characters escaped that no message can hold: surrogates, which names of files may have."""
    return text.encode(errors="backslashreplace").decode()


def optional(request: Message, name: str) -> Any:
    """Return a field's value, None where the schema lacks it or where it has presence and was not set."""
    field = request.DESCRIPTOR.fields_by_name.get(name)
    if field is None or (field.has_presence and not request.HasField(name)):
        return None
    return getattr(request, name)
