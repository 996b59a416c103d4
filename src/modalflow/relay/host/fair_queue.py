"""The order of requests in a relay: urgent ones first, large ones last, and containers in turn."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, TypeVar

from modalflow.relay.encryption import SessionKeys
from modalflow.relay.host.seen_requests import SeenRequest
from modalflow.relay.messages import Header, Request, is_urgent

_T = TypeVar("_T")

#: The size of a large request's body, in bytes.
LARGE = 256 * 1024


class Rank(IntEnum):
    """How soon a request is carried out."""

    URGENT = 0
    """Heartbeats, and changes of a task's state: Airflow ends a task without heartbeats."""
    USUAL = 1
    LARGE = 2


def rank(request: Request) -> Rank:
    """Return a request's rank."""
    if is_urgent(request):
        return Rank.URGENT
    return Rank.LARGE if len(request.body) >= LARGE else Rank.USUAL


@dataclass
class Work:
    """A waiting request."""

    header: Header
    keys: SessionKeys
    request: Request | None
    """None if it is in several parts."""
    seen: SeenRequest
    taken_at: float = 0.0
    """When the relay got it, by its standstill."""
    noted_at: float = field(default_factory=time.monotonic)
    """When the container got the newest sign of it."""


class UnderWay:
    """How much work of each container is under way."""

    def __init__(self, most_each: int) -> None:
        """``most_each``: how much is enough."""
        self._most_each = most_each
        self._of_each = Counter[str]()
        self.total = 0

    def begin(self, container: str) -> None:
        """Count work of a container."""
        self.total += 1
        self._of_each[container] += 1

    def end(self, container: str) -> None:
        """Count it no more."""
        self.total -= 1
        self._of_each[container] -= 1
        if not self._of_each[container]:
            del self._of_each[container]

    def is_busy(self, container: str) -> bool:
        """Return whether a container has enough."""
        return self._of_each[container] >= self._most_each


class FairQueue(Generic[_T]):
    """Work of many containers. Within a rank, each container has its turn with one piece of work."""

    def __init__(self, is_busy: Callable[[str], bool]) -> None:
        """``is_busy``: whether a container has enough work under way. Its turn comes later then, except if urgent."""
        self._is_busy = is_busy
        self._ranks: tuple[OrderedDict[str, deque[_T]], ...] = tuple(OrderedDict() for _ in Rank)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, container: str, rank: Rank, work: _T) -> None:
        """Add work of a container."""
        self._ranks[rank].setdefault(container, deque()).append(work)
        self._length += 1

    def pop(self, last: Rank = Rank.LARGE) -> _T | None:
        """Return the next piece of work with a rank up to ``last``; None if there is none."""
        for rank, containers in zip(Rank, self._ranks, strict=True):
            if rank > last:
                break
            container = next((each for each in containers if rank is Rank.URGENT or not self._is_busy(each)), None)
            if container is None:
                continue
            waiting = containers[container]
            work = waiting.popleft()
            if waiting:
                containers.move_to_end(container)
            else:
                del containers[container]
            self._length -= 1
            return work
        return None
