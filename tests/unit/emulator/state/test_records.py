"""Dataclasses as records of the journal."""

from __future__ import annotations

from dataclasses import dataclass, field

import cbor2
import pytest
from modal_proto import api_pb2

from modalflow.emulator.state.records import Record


@dataclass
class Thing:
    name: str
    owner: object
    sizes: list[int] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    chunk: api_pb2.DataChunk | None = None
    chunks: list[api_pb2.DataChunk] = field(default_factory=list)
    _cached: int = 0


THING = Record(Thing, without=("owner",))


def test_there_and_back() -> None:
    """Every field but those left out comes back as it was, over what is on disk."""
    thing = Thing("a", None, [1, 2], {"k": "v"}, api_pb2.DataChunk(index=1), [api_pb2.DataChunk(data=b"x")])
    assert THING.decode(cbor2.loads(cbor2.dumps(THING.encode(thing))), owner=None) == thing
    bare = Thing("b", None)
    assert THING.decode(cbor2.loads(cbor2.dumps(THING.encode(bare))), owner=None) == bare
    assert THING.encode(bare).keys().isdisjoint({"owner", "_cached"})


def test_fields_come_and_go() -> None:
    """A record of another version of the class is read: what it lacks has its default, what is unknown is ignored."""
    assert THING.decode({"name": "a", "colour": "red"}, owner=None) == Thing("a", None)


def test_what_cannot_be_stored_is_refused_at_once() -> None:
    """A field that no record can hold is an error where the record is declared, and its text names it."""
    with pytest.raises(TypeError, match=r"Thing\.owner"):
        Record(Thing)
