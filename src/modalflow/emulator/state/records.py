"""Encode objects as records of the journal, and decode them.

Owns the translation between a dataclass and CBOR: plain values, protocol messages, and lists, dicts and optionals of
them. References to other objects are stored by their services, as ids.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

T = TypeVar("T")

_Translation = tuple[Callable[[Any], Any], Callable[[Any], Any]]

_PLAIN = (str, bytes, int, float, bool)


class Record(Generic[T]):
    """The format of one dataclass's objects: every field except those in ``without`` and those with a leading ``_``.

    A field missing in a record gets its default, and an unknown one is ignored. Fields may thus be added or removed
    without a new format of the journal. A field of an unsupported kind is a TypeError at once.
    """

    def __init__(self, kind: type[T], *, without: tuple[str, ...] = ()) -> None:
        self._kind = kind
        hints = typing.get_type_hints(kind)
        fields: Any = dataclasses.fields(kind)  # type: ignore[arg-type]
        self._fields: dict[str, _Translation] = {
            f.name: _translation(hints[f.name], f"{kind.__name__}.{f.name}")
            for f in fields
            if f.name not in without and not f.name.startswith("_")
        }

    def encode(self, value: T) -> dict[str, Any]:
        """Return the record of an object."""
        return {name: encode(getattr(value, name)) for name, (encode, _) in self._fields.items()}

    def decode(self, record: dict[str, Any], **others: Any) -> T:
        """Return the object of a record; ``others`` are the fields missing in records."""
        found = {name: decode(record[name]) for name, (_, decode) in self._fields.items() if name in record}
        return self._kind(**found, **others)


def _translation(hint: Any, where: str) -> _Translation:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in _PLAIN:
        return _same, _same
    if isinstance(hint, type) and issubclass(hint, Message):
        return _serialized, hint.FromString
    if origin in (typing.Union, types.UnionType) and len(inner) == 2 and inner[1] is type(None):
        encode, decode = _translation(inner[0], where)
        return (lambda value: None if value is None else encode(value)), (
            lambda stored: None if stored is None else decode(stored)
        )
    if origin is list:
        encode, decode = _translation(inner[0], where)
        return (lambda values: [encode(v) for v in values]), (lambda stored: [decode(s) for s in stored])
    if origin is dict and inner[0] in (str, int):
        encode, decode = _translation(inner[1], where)
        return (lambda values: {k: encode(v) for k, v in values.items()}), (
            lambda stored: {k: decode(s) for k, s in stored.items()}
        )
    raise TypeError(
        f"{where} is a {hint} without a format of records: name it in `without`, or add the kind to records.py"
    )


def _same(value: Any) -> Any:
    return value


def _serialized(value: Message) -> bytes:
    return value.SerializeToString()
