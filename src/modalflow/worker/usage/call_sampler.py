"""The samples of the processes of one function call, taken by a timer of the container's event loop.

A call costs no process and no thread. A call that ends before the first sample costs one timer, which never fires.
Nothing here may fail the work: if the kernel does not report the use, there are no samples.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TypeAlias

from modalflow.cost.samples import Samples, Series
from modalflow.support import linux

log = logging.getLogger(__name__)

#: Seconds from the start of the work to the first sample, which is only the beginning of a series; and between the
#: first points.
FIRST, INTERVAL = 1.0, 1.0

#: The most of a core's time that sampling may take, by the time of the first sample: a family of very many processes is
#: sampled less often. And the longest such interval.
SHARE, LONGEST_INTERVAL = 1 / 200, 32.0

#: Returns the PID of the work's first process; None before it has one.
FirstProcess: TypeAlias = Callable[[], int | None]


class CallSampler:
    """Samples one function call. Lives on the event loop of the container's main process."""

    def __init__(
        self,
        use: Callable[[int], linux.Use | None] = linux.use_of_family,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._use = use
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._pid: FirstProcess | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._interval = INTERVAL
        self._series: Series | None = None

    def begin(self, pid: FirstProcess) -> None:
        """Begin to sample the process and its descendants."""
        self._pid = pid
        self._timer = asyncio.get_running_loop().call_later(FIRST, self._sample)

    def end(self) -> None:
        """Take no further sample."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def samples(self, function_call_id: str, container_id: str, now: float) -> Samples | None:
        """Return the samples, if there are any. ``now`` is the present in seconds since the epoch."""
        series = self._series
        if series is None or not series.cpu:
            return None
        began_at = now - (self._clock() - series.began_at)
        return Samples(function_call_id, container_id, began_at, series.interval, tuple(series.cpu), tuple(series.mib))

    def _sample(self) -> None:
        try:
            self._take()
        except Exception:  # The samples must not fail the work: see the module's docstring.
            log.exception("The use of a function call could not be sampled")
            self._timer = None
        else:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self._sample)

    def _take(self) -> None:
        pid = self._pid() if self._pid is not None else None
        if pid is None:
            return
        use, took = self._measured(pid)
        if use is None:
            return
        if self._series is None:
            self._series = Series.begin(self._clock(), use.cpu_seconds)
            if took > self._interval * SHARE:
                # In a sandbox, this clock has coarse ticks, and goes on while other programs have the processor.
                took = min(took, self._measured(pid)[1])
            while took > self._interval * SHARE and self._interval < LONGEST_INTERVAL:
                self._interval *= 2
        elif self._series.add(self._clock(), use.cpu_seconds, use.peak_mib):
            self._series.halve()
            self._interval *= 2

    def _measured(self, pid: int) -> tuple[linux.Use | None, float]:
        """Return the use, and the seconds of a core that it took to find out."""
        began = self._cpu_clock()
        use = self._use(pid)
        return use, self._cpu_clock() - began
