"""The memory of a relay: it carries out no request twice, and refuses replays."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from modalflow.relay.messages import Answer

#: Bytes of kept answers. Older ones are forgotten first; their requests stay known.
MOST_KEPT = 64 * 1024 * 1024


class Sight(Enum):
    """A relay's knowledge of an arriving request."""

    NEW = auto()
    REPLAYED = auto()
    """The same message again: doubled on the way, or recorded and sent by an attacker."""
    IN_PROGRESS = auto()
    ANSWERED = auto()


@dataclass(slots=True)
class SeenRequest:
    """A request, since it was first seen."""

    at: float
    attempts: set[int] = field(default_factory=set)
    key: tuple[str, str] = ("", "")
    """Its session and its id."""
    answer: Answer | None = None
    forgotten: bool = False
    """The answer was dropped, for want of room."""
    sending: bool = False
    """The answer is on its way to the container, or waits for that."""


class SeenRequests:
    """Remembers requests for as long as their messages are accepted."""

    def __init__(self, window: float, clock: Callable[[], float] = time.monotonic) -> None:
        """``window``: the largest age of an accepted message, in seconds."""
        self._window = window
        self._clock = clock
        self._seen: OrderedDict[tuple[str, str], SeenRequest] = OrderedDict()
        self._with_body: OrderedDict[tuple[str, str], int] = OrderedDict()
        """Of the requests with an answer that takes memory: its size. The oldest answer is first."""
        self._size = 0

    def see(self, session: str, request_id: str, attempt: int) -> tuple[Sight, SeenRequest]:
        """Record a message, and return the knowledge of its request."""
        self._drop_old()
        key = (session, request_id)
        seen = self._seen.get(key)
        if seen is None:
            seen = self._seen[key] = SeenRequest(self._clock(), {attempt}, key)
            return Sight.NEW, seen
        if attempt in seen.attempts:
            return Sight.REPLAYED, seen
        seen.attempts.add(attempt)
        seen.at = self._clock()
        self._seen.move_to_end(key)
        if seen.forgotten:
            seen.forgotten = False
            return Sight.NEW, seen
        return (Sight.IN_PROGRESS if seen.answer is None else Sight.ANSWERED), seen

    def answered(self, seen: SeenRequest, answer: Answer) -> None:
        """Keep an answer for repeats of its request."""
        seen.answer = answer
        # A request can be older than its messages may be when its answer comes.
        if not answer.body or self._seen.get(seen.key) is not seen:
            return
        self._with_body[seen.key] = len(answer.body)
        self._size += len(answer.body)
        while self._size > MOST_KEPT and len(self._with_body) > 1:
            key, size = self._with_body.popitem(last=False)
            self._size -= size
            self._seen[key].answer, self._seen[key].forgotten = None, True

    def _drop_old(self) -> None:
        # Twice the window, because clocks differ.
        while self._seen and self._clock() - next(iter(self._seen.values())).at > 2 * self._window:
            key, _ = self._seen.popitem(last=False)
            self._size -= self._with_body.pop(key, 0)
