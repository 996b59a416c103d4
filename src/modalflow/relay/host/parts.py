"""The further items of a large request, which arrive beside the one that announces them."""

from __future__ import annotations

import time

from modalflow.errors import MalformedMessageError
from modalflow.relay.encryption import SessionKeys
from modalflow.relay.host.warnings import Warnings
from modalflow.relay.messages import Direction, Header, place_of, unpack
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
