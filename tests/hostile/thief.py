"""A program of a hostile container: it takes messages of another one from the relay's Modal Queue, and answers them.

It knows whatever a container can know: the worker's objects on Modal, and the relay's public key. It prints what it
got, for the test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import modal

from modalflow.errors import MalformedMessageError
from modalflow.relay.encryption import PublicKey, Session, SessionKeys, public_of
from modalflow.relay.messages import Answer, Direction, Header, unpack
from modalflow.relay.queue_transport import REQUESTS

PATIENCE = 60.0
#: Where the victim waits for answers.
ANSWERS = "session-{}"


class Bomb:
    """An item that runs a command in whoever reads it carelessly."""

    def __init__(self, file: str) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return subprocess.run, (["touch", self.file],)


def forged(header: Header, key: PublicKey) -> Iterator[bytes]:
    """Answers to a stolen request, as well as they can be made without the relay's private key."""
    answer = Answer(200, [("content-type", "application/json")], b'{"key": "pin", "value": "forged"}').to_bytes()
    head = Header(Direction.ANSWER, header.key_id, header.session, header.request_id, header.attempt, time.time())
    victim, private = bytes.fromhex(header.public), os.urandom(32)
    own = Session(key).keys
    mine = SessionKeys.derive(private, victim, key_id=key.id, session=victim, relay=public_of(private))
    named = SessionKeys.derive(private, victim, key_id=key.id, session=victim, relay=key.raw)
    yield b"nonsense"
    for keys in (own, mine, named):
        yield keys.seal(head, answer)


def is_opened(item: bytes, direction: Direction, key: PublicKey) -> bool:
    """Whether a key of this container opens it."""
    try:
        Session(key).keys.open(direction, *unpack(item))
    except MalformedMessageError:
        return False
    return True


def main(queue_name: str, relay_key: str, bomb: str, secrets: list[str]) -> None:
    """Steal a request, answer it, send it again and again; then steal an answer, and lay bombs."""
    queue: Any = modal.Queue.from_name(queue_name)
    key = PublicKey.read(relay_key)
    request: bytes = queue.get(timeout=PATIENCE, partition=REQUESTS)
    header = Header.read(unpack(request)[0])
    place = ANSWERS.format(header.session)
    queue.put_many([*forged(header, key), request], partition=place)
    queue.put_many([request] * 3, partition=REQUESTS)
    print("stolen", flush=True)
    answer: bytes = queue.get(timeout=PATIENCE, partition=place)
    for partition in (place, REQUESTS):
        queue.put(Bomb(bomb), partition=partition)
    items = {Direction.REQUEST: request, Direction.ANSWER: answer}
    got = {
        "directions": [str(Header.read(unpack(item)[0]).direction) for item in items.values()],
        "opened": [str(direction) for direction, item in items.items() if is_opened(item, direction, key)],
        "readable": [secret for secret in secrets for item in items.values() if secret.encode() in item],
    }
    print(json.dumps(got), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
