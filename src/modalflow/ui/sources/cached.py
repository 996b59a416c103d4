"""One value for all viewers: read in a thread, by one at a time, and only while someone asks.

An answer never waits for a read: it has the newest value, with its age.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from modalflow.support.described import describe

log = logging.getLogger(__name__)

#: Seconds after a failed read until the next one, at least.
_AFTER_FAILURE = 15.0

#: A read that took long is not repeated before this multiple of its duration: it also costs this process.
_PAUSE = 4.0

#: Seconds of a read after which an answer reports that Modal is slow.
_SLOW = 10.0

_T = TypeVar("_T")
_K = TypeVar("_K", bound=Hashable)


@dataclass(frozen=True)
class Seen(Generic[_T]):
    """The newest value, for one answer."""

    value: _T | None
    """None before the first successful read."""
    read_at: float = 0.0
    """When its read ended: seconds since the epoch."""
    reading: bool = False
    """Whether a read is under way."""
    problem: str = ""
    """Why the newest read failed, or that it takes long."""


class Cached(Generic[_T]):
    """A value that becomes old after ``interval`` seconds."""

    def __init__(
        self,
        name: str,
        read: Callable[[], _T],
        interval: float,
        *,
        clock: Callable[[], float] = time.time,
        limit: threading.Semaphore | None = None,
    ) -> None:
        """``name`` is for threads and logs. ``limit`` bounds the reads of several caches at a time: without a turn, no
        thread begins, and the next question tries again."""
        self._name = name
        self._read = read
        self._interval = interval
        self._clock = clock
        self._limit = limit
        self._lock = threading.Lock()
        self._value: _T | None = None
        self._read_at = 0.0
        self._problem = ""
        self._began_at: float | None = None
        self._due_at = 0.0
        self._changed = False
        """Whether something has changed since the read under way began."""

    def seen(self) -> Seen[_T]:
        """Return the newest value. If it is old, a read begins in the background."""
        with self._lock:
            now = self._clock()
            is_due = self._began_at is None and now >= self._due_at
            if is_due and (self._limit is None or self._limit.acquire(blocking=False)):
                self._begin(now)
            problem = self._problem
            if self._began_at is not None and now - self._began_at > _SLOW:
                problem = problem or f"Modal has not answered for {now - self._began_at:.0f} s"
            return Seen(self._value, self._read_at, is_due or self._began_at is not None, problem)

    def _begin(self, now: float) -> None:
        self._began_at, self._changed = now, False
        try:
            threading.Thread(target=self._run, name=f"modalflow-ui-{self._name}", daemon=True).start()
        except RuntimeError as error:
            # The machine has no thread left: a later question tries again.
            self._began_at, self._problem, self._due_at = None, describe(error), now + _AFTER_FAILURE
            self._release()

    def expire(self, read: Callable[[], _T] | None = None) -> None:
        """Make the next answer begin a read, because something has changed; from now on by ``read``, if given."""
        with self._lock:
            self._due_at, self._changed = 0.0, True
            self._read = read or self._read

    def _run(self) -> None:
        try:
            value = self._read()
        except Exception as error:
            log.debug("%s cannot be read", self._name, exc_info=True)
            self._end(None, describe(error))
        else:
            self._end(value, "")
        finally:
            self._release()

    def _release(self) -> None:
        if self._limit is not None:
            self._limit.release()

    def _end(self, value: _T | None, problem: str) -> None:
        with self._lock:
            now = self._clock()
            assert self._began_at is not None, "a read has ended"
            pause = max(self._interval, _PAUSE * (now - self._began_at))
            self._began_at, self._problem = None, problem
            if problem:
                self._due_at = now + max(pause, _AFTER_FAILURE)
                return
            self._value, self._read_at = value, now
            self._due_at = 0.0 if self._changed else now + pause


class CachedByKey(Generic[_K, _T]):
    """Values by key, of which the most recently used ones are kept."""

    def __init__(self, name: str, interval: float, *, most: int, at_once: int) -> None:
        """``most`` is how many values are kept, ``at_once`` how many are read at a time."""
        self._name = name
        self._interval = interval
        self._most = most
        self._limit = threading.Semaphore(at_once)
        self._lock = threading.Lock()
        self._known: OrderedDict[_K, tuple[Hashable, Cached[_T]]] = OrderedDict()

    def seen(self, key: _K, version: Hashable, read: Callable[[], _T]) -> Seen[_T]:
        """Return the newest value of a key, as ``Cached.seen`` does. With another version, it is old."""
        with self._lock:
            known, cached = self._known.get(key, (version, None))
            if cached is None:
                cached = Cached(self._name, read, self._interval, limit=self._limit)
            elif known != version:
                cached.expire(read)
            self._known[key] = version, cached
            self._known.move_to_end(key)
            while len(self._known) > self._most:
                self._known.popitem(last=False)
        return cached.seen()
