"""The record of what the function calls of this container occupy, and the line about it in each call's log.

The records are files of this container's own on the logs Volume, published with the logs. Nothing here may fail the
work: if something cannot be recorded, the container's log has the error, and the work goes on.
"""

from __future__ import annotations

import logging
import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from modalflow.cost.footer import footer
from modalflow.cost.meter import Meter, Share
from modalflow.cost.rates import DATED
from modalflow.cost.samples import Samples
from modalflow.cost.timeline import Timeline
from modalflow.cost.usage import LOST, Record, Reserved
from modalflow.names import SAMPLES_FOLDER, USAGE_FOLDER, TaskTry, running_samples, usage_file
from modalflow.protocol.messages import Entry, Submission
from modalflow.support import linux
from modalflow.support.described import describe
from modalflow.worker.usage.call_sampler import CallSampler, FirstProcess
from modalflow.worker.zygote.protocol import NO_MOMENTS, ForkResult, Moments, Outcome, ProcessUsage

log = logging.getLogger(__name__)

#: Returns the resources that the container was asked for, by the names of Modal's options.
Granted: TypeAlias = Callable[[Submission], Mapping[str, Any]]

#: Bytes after which a new file is begun. A commit uploads the last block of a changed file again; with one file for a
#: busy day, that would be thousands of times.
FILE_SIZE = 64 * 1024

#: Seconds of sampling from which on a running call has its samples published; and seconds between two writes of them.
#: Each write adds a small file to a commit.
PUBLISHED_FROM, PUBLISHED_EVERY = 10.0, 15.0


class UsageRecorder:
    """The usage records of one container."""

    def __init__(
        self,
        root: Path,
        container_id: str,
        *,
        age: float,
        variables: Mapping[str, str] = MappingProxyType({}),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``age`` is the container's age in seconds, and ``variables`` are its environment variables."""
        self.container_id = container_id
        self.container_started_at = time.time() - age
        self.image = variables.get("MODAL_IMAGE_ID", "")
        self.region = variables.get("MODAL_REGION", "")
        self.cloud = variables.get("MODAL_CLOUD_PROVIDER", "").removeprefix("CLOUD_PROVIDER_").lower()
        self.clock = clock
        self.meter = Meter(clock() - age)
        self._root = root
        self._folder = root / USAGE_FOLDER
        self._file: Path | None = None
        self._files = 0
        self._calls = 0
        self._reported_cpu = 0.0
        self._sampled: dict[int, CallUsage] = {}
        self._running_file = root / running_samples(container_id, self.container_started_at)
        self._running_written_at: float | None = None

    def begin_call(self, function_call_id: str) -> CallUsage:
        """Begin the usage of a function call, which has just arrived."""
        self._calls += 1
        return CallUsage(self, function_call_id, self._calls)

    def write(self, record: Record, timeline: Timeline, samples: Samples | None = None) -> None:
        """Add a record to the container's file, and samples to the file beside it."""
        now = datetime.now(UTC)
        day = now.strftime("%Y-%m-%d")
        # After a failure the file may end within a line, so another file is begun.
        file, self._file = self._file, None
        if file is None or file.parent.name != day or file.stat().st_size >= FILE_SIZE:
            self._files += 1
            file = self._folder / day / usage_file(self.container_id, self._files, now)
            file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as opened:
            opened.write(record.to_line(timeline))
        if samples is not None:
            beside = file.parent / SAMPLES_FOLDER / file.name
            beside.parent.mkdir(exist_ok=True)
            with beside.open("a") as opened:
                opened.write(samples.to_line())
        self._file = file

    def write_running(self) -> None:
        """Write the samples of running calls, if the last write is long enough ago: call it before a commit.

        No commit is made for them: they are published with the lines of a task's log.
        """
        now = self.clock()
        if self._running_written_at is not None and now - self._running_written_at < PUBLISHED_EVERY:
            return
        try:
            found = [samples for call in self._sampled.values() if (samples := call.samples()) is not None]
            long = [samples.to_line() for samples in found if samples.seconds >= PUBLISHED_FROM]
            if long:
                # First, so that what a failed write leaves is also removed.
                self._running_written_at = now
                self._running_file.parent.mkdir(parents=True, exist_ok=True)
                self._running_file.write_text("".join(long))
        except Exception:  # The usage must not fail the work: see the module's docstring.
            log.exception("The samples of running calls could not be written")

    @contextmanager
    def running(self, call: CallUsage) -> Iterator[None]:
        """Count a call as running within the context: ``write_running`` writes its samples."""
        self._sampled[id(call)] = call
        try:
            yield
        finally:
            del self._sampled[id(call)]
            if not self._sampled and self._running_written_at is not None:
                self._running_written_at = None
                self._remove_running(self.container_id, self.container_started_at)

    def remove_running_of_lost(self, found: Entry) -> None:
        """Remove the samples of a container that is gone, which could not do it itself."""
        if found.container_started_at:
            self._remove_running(found.container_id, found.container_started_at)

    def _remove_running(self, container_id: str, container_started_at: float) -> None:
        try:
            (self._root / running_samples(container_id, container_started_at)).unlink(missing_ok=True)
        except (OSError, ValueError) as error:
            log.warning("The samples of ended calls could not be removed: %s", describe(error))

    def cpu_since_last(self) -> float:
        """Return the CPU seconds that this process has used since the last call."""
        used = time.process_time() - self._reported_cpu
        self._reported_cpu += used
        return used


@dataclass
class CallUsage:
    """The usage of one function call, from its arrival to the end of its work."""

    recorder: UsageRecorder
    function_call_id: str
    number: int = 0
    """Which call of its container it is."""
    processes: ProcessUsage | None = None
    """What its processes used, once that is known."""
    moments: Moments = NO_MOMENTS
    """The moments of a supervised task, once they are known."""
    claimed_at: float = 0.0
    taken_at: float = field(default_factory=time.time)
    sampler: CallSampler = field(default_factory=CallSampler)
    _taken: float = 0.0
    _is_open: bool = True

    def __post_init__(self) -> None:
        self._taken = self.recorder.clock()
        self.recorder.meter.begin(id(self), self._taken)

    def claimed(self) -> None:
        """Note that the container has claimed the work."""
        self.claimed_at = time.time()

    @contextmanager
    def sampling(self, pid: FirstProcess) -> Iterator[None]:
        """Sample the use of the work's processes within the context."""
        self.sampler.begin(pid)
        try:
            with self.recorder.running(self):
                yield
        finally:
            self.sampler.end()

    def samples(self) -> Samples | None:
        """Return the samples so far; None without any."""
        return self.sampler.samples(self.function_call_id, self.recorder.container_id, time.time())

    def ended(self, result: ForkResult | None) -> None:
        """Note how the work's processes ended; None if that is unknown."""
        if result is not None:
            self.processes = result.usage
            self.moments = result.outcome.moments if result.outcome is not None else NO_MOMENTS

    def record(self, submission: Submission, outcome: Outcome | None, granted: Granted) -> str:
        """Record what the call occupied; return the log line about it, which is empty if that fails."""
        try:
            share, took = self._end()
            state = (outcome.final_state or outcome.state.value) if outcome is not None else "failed"
            record = _record(submission, granted, self, state, share, took)
            self.recorder.write(record, _timeline(submission, self, share, outcome), self.samples())
            return footer(record, DATED)
        except Exception:  # The usage must not fail the work: see the module's docstring.
            log.exception("The usage of %s could not be recorded", submission.label)
            return ""

    def record_lost(self, submission: Submission, found: Entry, granted: Granted, lost: Outcome) -> str:
        """Record what a container that is gone occupied for this work; return the log line about it.

        ``found`` is its claim, and ``lost`` the outcome that is reported.
        """
        try:
            self.drop()
            seconds = max(0.0, self.taken_at - found.started_at)
            record = Record(
                function_call_id=found.function_call_id,
                container_id=found.container_id,
                taken_at=found.started_at,
                outcome=LOST,
                queued=max(0.0, found.started_at - submission.submitted_at) if submission.submitted_at else 0.0,
                running=seconds,
                occupied=seconds,
                **_work_fields(submission, granted),
            )
            self.recorder.write(record, _timeline_of_lost(submission, found, lost))
            self.recorder.remove_running_of_lost(found)
            return footer(record, DATED)
        except Exception:  # The usage must not fail the work: see the module's docstring.
            log.exception("The usage of %s could not be recorded", submission.label)
            return ""

    def drop(self) -> None:
        """End the usage without a record, unless it has one: the call had nothing to do."""
        if self._is_open:
            self._is_open = False
            self.recorder.meter.drop(id(self), self.recorder.clock())

    def _end(self) -> tuple[Share, float]:
        self._is_open = False
        now = self.recorder.clock()
        return self.recorder.meter.end(id(self), now), now - self._taken


def _record(
    submission: Submission, granted: Granted, usage: CallUsage, outcome: str, share: Share, took: float
) -> Record:
    waited = max(0.0, usage.taken_at - submission.submitted_at) if submission.submitted_at else share.cold
    processes = usage.processes
    running = min(processes.seconds, took) if processes is not None else took
    # If the container is older than the work, it did not start for it: it was idle until then.
    cold = min(share.cold, waited)
    return Record(
        function_call_id=usage.function_call_id,
        container_id=usage.recorder.container_id,
        taken_at=usage.taken_at,
        outcome=outcome,
        queued=waited - cold,
        starting=cold + took - running,
        cold=cold,
        running=running,
        idle=share.idle + share.cold - cold,
        occupied=share.whole,
        cpu_seconds=(processes.cpu_seconds if processes is not None else 0.0) + usage.recorder.cpu_since_last(),
        peak_mib=processes.peak_mib if processes is not None else 0.0,
        worker_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        **_work_fields(submission, granted),
    )


def _timeline(submission: Submission, usage: CallUsage, share: Share, outcome: Outcome | None) -> Timeline:
    waited = max(0.0, usage.taken_at - submission.submitted_at) if submission.submitted_at else share.cold
    is_first = usage.number == 1
    return Timeline(
        submitted_at=submission.submitted_at,
        spawned_at=submission.spawned_at,
        container_started_at=usage.recorder.container_started_at,
        claimed_at=usage.claimed_at,
        started_at=usage.moments.started_at,
        first_line_at=usage.moments.first_line_at,
        task_ended_at=usage.moments.task_ended_at,
        reported_at=usage.moments.reported_at,
        is_cold_start=is_first and share.cold <= waited,
        number=usage.number,
        image=usage.recorder.image,
        region=usage.recorder.region,
        cloud=usage.recorder.cloud,
        asked=submission.asked,
        sized=submission.sized,
        cause=outcome.cause if outcome is not None else "",
        reason=(outcome.reason or "") if outcome is not None else "",
    )


def _timeline_of_lost(submission: Submission, found: Entry, lost: Outcome) -> Timeline:
    return Timeline(
        submitted_at=submission.submitted_at,
        spawned_at=submission.spawned_at,
        container_started_at=found.container_started_at,
        claimed_at=found.started_at,
        asked=submission.asked,
        sized=submission.sized,
        cause=lost.cause,
        reason=lost.reason or "",
    )


def _work_fields(submission: Submission, granted: Granted) -> dict[str, Any]:
    return {
        "label": submission.label,
        "work_id": submission.work_id,
        "profile": submission.profile,
        "team": submission.team,
        "reserved": Reserved.read(granted(submission)),
        **_task_fields(submission),
    }


def _task_fields(submission: Submission) -> dict[str, Any]:
    """Return the fields of the try to which a submission belongs; none if it belongs to no try."""
    task = submission.task_try
    if task is None and submission.workload is None:
        # An executor of 0.4 names the task of a command only in the path of its log.
        task = TaskTry.of_log(submission.log_path)
    return task._asdict() if task is not None else {}


def age_of_this_process() -> float:
    """Return the seconds since this process, the container's main one, started; 0 if that is unknown."""
    process = linux.read("self")
    if process is None or not process.started:
        return 0.0
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - process.started / os.sysconf("SC_CLK_TCK"))
