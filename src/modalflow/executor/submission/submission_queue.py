"""Which call is submitted next, and when: one queue for each Function, each with its own pace.

No I/O, and the clock is given. A Function's queue is submitted at full concurrency until Modal refuses something. Then
the limit is halved, and each success raises it by one. A rate limit also stops the queue for as long as Modal says, or
for a growing pause. So an exhausted Function, or a Modal that is down, is not hammered, and delays no other Function.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from modalflow.executor.lifecycle.call import Call
from modalflow.support.backoff import Backoff

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0

#: Seconds for which submissions wait for a Function that was deployed and is away now: an app that is stopped to be
#: deployed again is away for as long as an image's build or a little more. No one waits for one that never was.
DEPLOYMENT = 120.0

#: The random share of a pause, so that several executors do not come back together.
JITTER = 0.25


class Place(NamedTuple):
    """The place of a call among all others."""

    accepted_at: float
    number: int
    """Decides between calls that were accepted at the same time."""


@dataclass
class FunctionQueue:
    """The calls that wait to be submitted to one Function."""

    max_concurrency: int
    clock: Callable[[], float]
    jitter: Callable[[], float] = random.random
    limit: int = 0
    """How many may be under way at once now."""
    under_way: int = 0
    resumes_at: float = 0.0
    missing_since: float | None = None
    """When it was first found not to be deployed; None if it is deployed, as far as is known."""
    _reduced_at: float = -1.0
    _waiting: list[tuple[Place, Call]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.limit = self.max_concurrency
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE, jitter=JITTER, rng=self.jitter)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def first(self) -> Place:
        """The place of the call at the front."""
        return self._waiting[0][0]

    def push(self, place: Place, call: Call) -> None:
        """Add a call at its place."""
        heapq.heappush(self._waiting, (place, call))

    def pop(self) -> Call:
        """Remove the call at the front, which is under way from now on."""
        self.under_way += 1
        return heapq.heappop(self._waiting)[1]

    def ready(self) -> bool:
        """Return whether one more may be submitted now."""
        return bool(self._waiting) and self.under_way < self.limit and self.clock() >= self.resumes_at

    def accepted(self) -> None:
        """Note that Modal accepted a call."""
        self.under_way -= 1
        self.missing_since = None
        self.limit = min(self.max_concurrency, self.limit + 1)
        self._backoff.reset()

    def refused(self, began_at: float, *, stop: bool = False, seconds: float = 0.0) -> None:
        """Note that Modal did not accept a call since ``began_at``.

        With ``stop``, nothing is submitted for a while, at least for ``seconds``. Of several refusals at the same time
        only the first one counts: the others say nothing new.
        """
        self.under_way -= 1
        counts = began_at > self._reduced_at
        if counts:
            self._reduced_at = self.clock()
            self.limit = max(1, self.limit // 2)
        if stop:
            pause = self._backoff.next(seconds) if counts else self._backoff.pause(seconds)
            self.resumes_at = max(self.resumes_at, self._reduced_at + pause)

    def not_found(self) -> float:
        """Note that it is not deployed; return since when."""
        if self.missing_since is None:
            self.missing_since = self.clock()
        return self.missing_since

    def missing(self, began_at: float) -> bool:
        """Return whether one that was deployed may be again soon: then nothing is submitted for a while."""
        if self.clock() - self.not_found() >= DEPLOYMENT:
            return False
        self.refused(began_at, stop=True)
        return True

    def released(self) -> None:
        """Note the end of a running call without information about the Function."""
        self.under_way -= 1

    def resume(self) -> None:
        """End a pause: its cause is fixed."""
        self.resumes_at = 0.0
        self._backoff.reset()


class SubmissionQueue:
    """The queues of all Functions, with one limit on what is under way in all of them together.

    The oldest calls go first, also those that were submitted and come back.
    """

    def __init__(
        self, max_concurrency: int, clock: Callable[[], float], jitter: Callable[[], float] = random.random
    ) -> None:
        self._max_concurrency, self._clock, self._jitter = max_concurrency, clock, jitter
        self._functions: dict[str, FunctionQueue] = {}
        self._places: dict[str, Place] = {}
        self._queued: set[str] = set()
        self._next_number = 0

    def __len__(self) -> int:
        """Return how many calls have a place in the queue, those under way included."""
        return len(self._places)

    def __iter__(self) -> Iterator[FunctionQueue]:
        return iter(self._functions.values())

    def add(self, call: Call) -> None:
        """Add a call that has been placed, unless it is queued already."""
        if call.work_id in self._queued:
            return
        assert call.submission is not None, "only what is placed is queued"
        place = self._places.get(call.work_id)
        if place is None:
            place = self._places[call.work_id] = Place(call.accepted_at, self._next_number)
            self._next_number += 1
        self._queued.add(call.work_id)
        self.function(call.submission.profile).push(place, call)

    def function(self, profile: str) -> FunctionQueue:
        """Return the queue of a profile's Function."""
        function = self._functions.get(profile)
        if function is None:
            function = FunctionQueue(self._max_concurrency, self._clock, self._jitter)
            self._functions[profile] = function
        return function

    @property
    def under_way(self) -> int:
        """How many calls are being submitted."""
        return sum(function.under_way for function in self._functions.values())

    def pop(self) -> tuple[FunctionQueue, Call] | None:
        """Remove the longest waiting call ready for submission; return None if there is none."""
        if self.under_way >= self._max_concurrency:
            return None
        ready = [function for function in self._functions.values() if function.ready()]
        if not ready:
            return None
        function = min(ready, key=lambda function: function.first)
        call = function.pop()
        self._queued.discard(call.work_id)
        return function, call

    def remove(self, call: Call) -> None:
        """Forget the place of a call that is not queued any more."""
        if call.work_id not in self._queued:
            self._places.pop(call.work_id, None)

    def seconds_to_wait(self) -> float | None:
        """Return the seconds until a queue that is stopped may go on; None if none is."""
        waits = [function.resumes_at - self._clock() for function in self._functions.values() if len(function)]
        return min((wait for wait in waits if wait > 0), default=None)

    def clear(self) -> None:
        """Forget all pauses and what is queued; the calls keep their places."""
        self._functions.clear()
        self._queued.clear()
