"""The items of large messages: those of a request arrive beside the one that announces them, an answer is cut."""

from __future__ import annotations

import time
from collections.abc import Iterator

from modalflow.errors import MalformedMessageError
from modalflow.relay.encryption import SessionKeys
from modalflow.relay.host.warnings import Warnings
from modalflow.relay.messages import Answer, Direction, Header, pieces, place_of, unpack
from modalflow.relay.transport import RelayTransport

#: Seconds for all of them.
TIMEOUT = 20.0


async def collected(transport: RelayTransport, first: Header, keys: SessionKeys, warnings: Warnings) -> bytes | None:
    """Return the content of a large request; None if items are missing. ``first`` announces it."""
    found = dict[int, bytes]()
    deadline = time.monotonic() + TIMEOUT
    while len(found) < first.parts - 1:
        left = deadline - time.monotonic()
        if left <= 0:
            warnings.warn("parts", "Only %s of %s parts of a request have arrived", len(found), first.parts - 1)
            return None
        for item in await transport.parts(place_of(first), first.parts, left):
            try:
                raw, sealed = unpack(item)
                part = Header.read(raw)
                content = keys.open(Direction.REQUEST, raw, sealed)
            except MalformedMessageError as error:
                # Of someone else, who can write there as well.
                warnings.warn(type(error).__name__, "A part of a request was dropped: %s", error)
                continue
            if (part.request_id, part.attempt) == (first.request_id, first.attempt) and part.part:
                found[part.part] = content
    return b"".join(found[number] for number in sorted(found))


def items_of(answer: Answer, request: Header, keys: SessionKeys, relay: str) -> Iterator[bytes]:
    """Yield the items of an answer, each encrypted at its turn: a large answer takes little more memory then."""
    contents = pieces(answer.to_bytes())
    for number, content in enumerate(contents):
        header = Header(
            direction=Direction.ANSWER,
            key_id=request.key_id,
            session=request.session,
            request_id=request.request_id,
            attempt=request.attempt,
            sent_at=time.time(),
            part=number,
            parts=len(contents),
            relay=relay,
        )
        yield keys.seal(header, content)


class KeptParts:
    """Parts that arrive before the items that announce them, with a limit for those of all containers."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._parts: dict[str, list[bytes]] = {}
        self._size = 0

    def add(self, place: str, part: bytes) -> None:
        """Keep a part. Raises MalformedMessageError if there is no room."""
        if self._size + len(part) > self._most:
            raise MalformedMessageError(f"The parts of large requests have more than {self._most >> 20} MiB here")
        self._parts.setdefault(place, []).append(part)
        self._size += len(part)

    def pop(self, place: str) -> list[bytes] | None:
        """Return the parts of a place, and forget them; None if there are none."""
        found = self._parts.pop(place, None)
        self._size -= sum(map(len, found or ()))
        return found

    def size_of(self, place: str) -> int:
        """Return the bytes of a place; 0 without any."""
        return sum(map(len, self._parts.get(place, ())))
