"""Requests that no SDK would send, for any message of Modal's protocol."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

#: Deeper messages are left empty: a Function has all of the protocol below it.
DEPTH = 4

TEXTS = (
    "",
    "main",
    "another name",
    "../../../etc/passwd",
    "/etc/passwd",
    "..",
    ".",
    "a/../../b",
    "nul\0inside",
    "line\nbreak",
    "\udfff".encode("utf-16", "surrogatepass").decode("utf-16", "replace"),
    "ä" * 40,
    "x" * 5_000,
    "0-0",
    "-1",
    "9" * 30,
    "²",
    "ENV A='b",
    "RUN python -m pip install 'x",
    "COPY . ../..",
    "WORKDIR ../../etc",
    "FROM base",
)

_SIGNED = (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64)
_BITS = {
    FieldDescriptor.CPPTYPE_INT32: 31,
    FieldDescriptor.CPPTYPE_INT64: 63,
    FieldDescriptor.CPPTYPE_UINT32: 32,
    FieldDescriptor.CPPTYPE_UINT64: 64,
}


class Hostile:
    """Strategies for requests; ``known`` are ids and names of what is there, so that requests get past the lookup."""

    def __init__(self, known: Mapping[str, list[str]]) -> None:
        self._known = known
        self._strategies: dict[tuple[str, int], st.SearchStrategy[Message]] = {}

    def requests(self, descriptor: Descriptor, depth: int = DEPTH) -> st.SearchStrategy[Message]:
        key = (descriptor.full_name, depth)
        if key not in self._strategies:
            self._strategies[key] = _built(descriptor, {f.name: self._field(f, depth) for f in descriptor.fields})
        return self._strategies[key]

    def _field(self, field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
        if field.message_type is not None and depth == 0:
            return st.none()
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            parts = field.message_type.fields_by_name
            if parts["value"].message_type is not None:
                return st.none()
            values = st.dictionaries(self._one(parts["key"], 0), self._one(parts["value"], 0), max_size=2)
            return st.none() | values
        one = self._one(field, depth)
        many = one if not field.is_repeated else st.lists(one, max_size=2)
        # Half of the ids and names are set: most requests would end at the first lookup else.
        return many if field.name.endswith(("_id", "_ids")) else st.none() | many

    def _one(self, field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
        kind = field.cpp_type
        if field.message_type is not None:
            return self.requests(field.message_type, depth - 1)
        if kind == FieldDescriptor.CPPTYPE_STRING:
            known = self._known.get(field.name, ["", "a stranger"])
            if field.type == FieldDescriptor.TYPE_BYTES:
                return st.binary(max_size=40) | st.just(b"b" * 32)
            # Mostly what is known: a request ends at the first lookup that finds nothing.
            return st.sampled_from([*(known * 60), *TEXTS])
        if field.enum_type is not None:
            # Proto3 enums are open: an unknown number arrives as it is.
            return st.sampled_from([*(v.number for v in field.enum_type.values), 1_000_000, -1])
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
        if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
            return st.sampled_from([0.0, -1.0, 0.5, 1e300, float("inf"), float("-inf"), float("nan")]) | st.floats(
                width=32 if kind == FieldDescriptor.CPPTYPE_FLOAT else 64
            )
        least = -(2 ** _BITS[kind]) if kind in _SIGNED else 0
        most = 2 ** _BITS[kind] - 1
        return st.sampled_from([0, 1, 2, most, least]) | st.integers(least, most)


def _built(descriptor: Descriptor, fields: Mapping[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Message]:
    return st.fixed_dictionaries(dict(fields)).map(functools.partial(_message, descriptor))


def _message(descriptor: Descriptor, values: Mapping[str, Any]) -> Message:
    made: Message = GetMessageClass(descriptor)()
    for name, value in values.items():
        if value is None:
            continue
        field = descriptor.fields_by_name[name]
        if field.is_repeated and isinstance(value, dict):
            getattr(made, name).update(value)
        elif field.is_repeated:
            getattr(made, name).extend(value)
        elif field.message_type is not None:
            getattr(made, name).CopyFrom(value)
        else:
            setattr(made, name, value)
    return made
