"""Which submission is next, and when: one lane for each Function, each with its own pace. Pure: no I/O, clock given.

A lane goes at full width until something is refused. Then it narrows to half, and widens again by one with each
success; a rate limit also stops it for a while, as long as Modal says or else ever longer. So an exhausted Function, or
a Modal that is down, is not hammered by everything that waits, and other Functions are not held up by it.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from modalflow.executor.lifecycle.call import Call
from modalflow.support.backoff import Backoff

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0

#: What is waited on top of a pause, at random, so that several executors do not come back together.
JITTER = 0.25


@dataclass
class Lane:
    """The submissions of one Function."""

    most: int
    clock: Callable[[], float]
    jitter: Callable[[], float] = random.random
    width: int = 0
    """How many may be under way at once now."""
    under_way: int = 0
    resumes_at: float = 0.0
    _narrowed_at: float = -1.0
    _waiting: list[tuple[int, Call]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.width = self.most
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE, jitter=JITTER, rng=self.jitter)

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Call]:
        return (call for _, call in self._waiting)

    @property
    def first(self) -> int:
        """The place in line of the one that waits at the front."""
        return self._waiting[0][0]

    def put(self, place: int, call: Call) -> None:
        heapq.heappush(self._waiting, (place, call))

    def take(self) -> Call:
        """The one at the front, under way from now on."""
        self.under_way += 1
        return heapq.heappop(self._waiting)[1]

    def ready(self) -> bool:
        """Whether one more may go now."""
        return bool(self._waiting) and self.under_way < self.width and self.clock() >= self.resumes_at

    def succeeded(self) -> None:
        """One that was under way was taken."""
        self.under_way -= 1
        self.width = min(self.most, self.width + 1)
        self._backoff.reset()

    def failed(self, begun_at: float, *, stop: bool = False, seconds: float = 0.0) -> None:
        """One that was under way since ``begun_at`` was not taken; with ``stop`` nothing goes for a while, for at least
        so many seconds.

        Of those that were under way together one counts: the others tell nothing new.
        """
        self.under_way -= 1
        counts = begun_at > self._narrowed_at
        if counts:
            self._narrowed_at = self.clock()
            self.width = max(1, self.width // 2)
        if stop:
            pause = self._backoff.next(seconds) if counts else self._backoff.pause(seconds)
            self.resumes_at = max(self.resumes_at, self._narrowed_at + pause)

    def dropped(self) -> None:
        """One that was under way had an end that says nothing about the lane."""
        self.under_way -= 1

    def resume(self) -> None:
        """Whatever stopped it is mended."""
        self.resumes_at = 0.0
        self._backoff.reset()


class Lanes:
    """All lanes of one executor, with a bound on what is under way in all of them together."""

    def __init__(self, most: int, clock: Callable[[], float], jitter: Callable[[], float] = random.random) -> None:
        self._most, self._clock, self._jitter = most, clock, jitter
        self._lanes: dict[str, Lane] = {}

    def __len__(self) -> int:
        return sum(len(lane) for lane in self._lanes.values())

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def of(self, profile: str) -> Lane:
        """The lane of a profile's Function."""
        lane = self._lanes.get(profile)
        if lane is None:
            lane = self._lanes[profile] = Lane(self._most, self._clock, self._jitter)
        return lane

    @property
    def under_way(self) -> int:
        return sum(lane.under_way for lane in self._lanes.values())

    def next(self) -> Lane | None:
        """The lane that may go now whose first has waited longest; None if none may."""
        if self.under_way >= self._most:
            return None
        ready = [lane for lane in self._lanes.values() if lane.ready()]
        return min(ready, key=lambda lane: lane.first, default=None)

    def pause(self) -> float | None:
        """Seconds until a lane that stands still may go again; None if nothing waits for that."""
        waits = [lane.resumes_at - self._clock() for lane in self._lanes.values() if len(lane)]
        return min((wait for wait in waits if wait > 0), default=None)
