"""The messages of the relay: plain headers, requests and answers. No I/O, no encryption.

A message is one item of a transport, or several if its content is large. The header of each item is readable on the
way, because the transport needs it, and no one can change it: it is authenticated together with the content.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from modalflow.errors import MalformedMessageError
from modalflow.support.text import from_json, one_line

#: The version of the messages. A peer refuses another one.
VERSION = 1

#: Bytes of the content of one item. Modal Queues accept 1 MiB for each item, with its encoding.
PART_SIZE = 900 * 1024
#: The largest content of a message in bytes: one partition of a Modal Queue holds 64 MiB.
LARGEST = 40 * 1024 * 1024
TOO_LARGE = (
    f"more than {LARGEST >> 20} MiB, too much for modalflow's relay. Keep large XComs in an object store ([core] "
    "xcom_backend), or set [modal_executor] execution_api = direct."
)
_MOST_PARTS = LARGEST // PART_SIZE + 2

_LENGTH = struct.Struct(">I")


class Direction(StrEnum):
    """The direction of a message."""

    REQUEST = "request"
    """A container, to any relay."""
    ANSWER = "answer"
    """A relay, to one container."""


@dataclass(frozen=True)
class Header:
    """The readable part of an item."""

    direction: Direction
    key_id: str
    """The relay's key pair of the encryption."""
    session: str
    """The container's side of the conversation, and the name of its partition: derived from ``public``."""
    request_id: str
    """Unique in the session. An answer repeats it."""
    attempt: int
    """1 for the first message of a request, then counted up. An answer repeats it."""
    sent_at: float
    """Seconds since the epoch, by the sender's clock."""
    part: int = 0
    parts: int = 1
    public: str = ""
    """The session's public key in hexadecimal digits; in requests only."""
    container: str = ""
    """The container's id on Modal, in requests; for people."""
    relay: str = ""
    """The name of the relay, in answers."""

    def to_bytes(self) -> bytes:
        """Return the header as it is sent, and as it is authenticated."""
        return json.dumps(
            {"v": VERSION, **{name: getattr(self, name) for name in _TYPES}}, separators=(",", ":")
        ).encode()

    @classmethod
    def read(cls, data: bytes) -> Header:
        """Return the header of ``to_bytes``; raise MalformedMessageError for anything else."""
        try:
            wire = from_json(data.decode())
        except ValueError as error:
            raise MalformedMessageError("The header of a relay's message is not JSON") from error
        if not isinstance(wire, dict) or wire.get("v") != VERSION:
            theirs = one_line(repr(wire.get("v")), 20) if isinstance(wire, dict) else "?"
            raise MalformedMessageError(f"A relay's message has version {theirs}; expected {VERSION}")
        values: dict[str, Any] = {name: wire.get(name) for name in _TYPES}
        for name, kind in _TYPES.items():
            if not _is(kind, values[name]):
                raise MalformedMessageError(f"{name} in a relay's message is {one_line(repr(values[name]), 60)}")
        values["direction"] = Direction(values["direction"])
        header = cls(**values)
        if not 0 <= header.part < header.parts <= _MOST_PARTS or not header.request_id or not header.session:
            raise MalformedMessageError(f"A relay's message has part {header.part} of {header.parts}")
        return header


_TYPES: Mapping[str, type] = {
    "direction": Direction,
    "key_id": str,
    "session": str,
    "request_id": str,
    "attempt": int,
    "sent_at": float,
    "part": int,
    "parts": int,
    "public": str,
    "container": str,
    "relay": str,
}
_LONGEST_TEXT = 100


def _is(kind: type, value: Any) -> bool:
    if kind is Direction:
        return value in ("request", "answer")
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e11
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
    return isinstance(value, str) and len(value) <= _LONGEST_TEXT


def pack(header: bytes, sealed: bytes) -> bytes:
    """Return an item: a header, and the encrypted content."""
    return _LENGTH.pack(len(header)) + header + sealed


def unpack(item: object) -> tuple[bytes, bytes]:
    """Return the header and the encrypted content of an item; raise MalformedMessageError for anything else."""
    if not isinstance(item, bytes) or len(item) < _LENGTH.size:
        raise MalformedMessageError("An item of the relay's Modal Queue is no message")
    (length,) = _LENGTH.unpack_from(item)
    if length > 4096 or len(item) < _LENGTH.size + length:
        raise MalformedMessageError("An item of the relay's Modal Queue is no message")
    return item[_LENGTH.size : _LENGTH.size + length], item[_LENGTH.size + length :]


def pieces(content: bytes) -> Sequence[memoryview]:
    """Cut a content into the contents of items, without a copy; at least one."""
    view = memoryview(content)
    return [view[at : at + PART_SIZE] for at in range(0, len(content), PART_SIZE)] or [view]


def place_of(header: Header) -> str:
    """Return where the further items of a request are."""
    return f"parts-{header.session[:16]}-{header.request_id[:12]}-{header.attempt}"


@dataclass(frozen=True)
class Request:
    """A request to the Execution API. It holds a token."""

    method: str
    target: str
    """The path below the Execution API's URL, and the query, as the client encoded them."""
    headers: Sequence[tuple[str, str]] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)

    def to_bytes(self) -> bytes:
        return _joined({"method": self.method, "target": self.target, "headers": list(self.headers)}, self.body)

    @classmethod
    def read(cls, data: bytes) -> Request:
        """Return the request of ``to_bytes``; raise MalformedMessageError for anything else."""
        head, body = _parted(data)
        method, target = head.get("method"), head.get("target")
        if not isinstance(method, str) or not isinstance(target, str):
            raise MalformedMessageError("A request to the relay has no method or no path")
        return cls(method, target, tuple(_headers(head)), body)


@dataclass(frozen=True)
class Answer:
    """The answer of the Execution API, or a notice about it."""

    status: int
    """The status of HTTP, or WORKING for a notice."""
    headers: Sequence[tuple[str, str]] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)

    def to_bytes(self) -> bytes:
        return _joined({"status": self.status, "headers": list(self.headers)}, self.body)

    @classmethod
    def read(cls, data: bytes) -> Answer:
        """Return the answer of ``to_bytes``; raise MalformedMessageError for anything else."""
        head, body = _parted(data)
        status = head.get("status")
        if not isinstance(status, int) or isinstance(status, bool) or not 100 <= status < 600:
            raise MalformedMessageError("An answer of the relay has no status")
        return cls(status, tuple(_headers(head)), body)


#: The status of a notice: the relay has the request, and waits for the API server.
WORKING = 102
#: A header of a notice: the relay has dropped the request for its age by the two clocks. `sent_at` of the notice is the
#: time by the relay's clock.
CLOCK = "modalflow-clock"

_URGENT = re.compile(r"task-instances/[^/?]+/(heartbeat|state|run)")


def is_urgent(request: Request) -> bool:
    """Return whether it is a heartbeat, or changes a task's state: Airflow ends a task without heartbeats."""
    return _URGENT.fullmatch(request.target) is not None


def _joined(head: Mapping[str, Any], body: bytes) -> bytes:
    text = json.dumps(head, separators=(",", ":")).encode()
    return _LENGTH.pack(len(text)) + text + body


def _parted(data: bytes) -> tuple[dict[str, Any], bytes]:
    try:
        (length,) = _LENGTH.unpack_from(data)
        head = from_json(data[_LENGTH.size : _LENGTH.size + length].decode())
    except (ValueError, struct.error) as error:
        raise MalformedMessageError("The content of a relay's message is malformed") from error
    if not isinstance(head, dict):
        raise MalformedMessageError("The content of a relay's message is malformed")
    return head, data[_LENGTH.size + length :]


def _headers(head: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    found = head.get("headers")
    for pair in found if isinstance(found, list) else ():
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise MalformedMessageError("A relay's message has malformed headers")
        yield pair[0], pair[1]
