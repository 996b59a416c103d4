"""A line of a usage file as pages for users read it: the record, and the timeline of the same call. No I/O."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from modalflow.cost.samples import Samples
from modalflow.cost.timeline import NO_TIMELINE, Timeline
from modalflow.cost.usage import Record, parsed
from modalflow.errors import MalformedMessageError


@dataclass(frozen=True)
class RecordedCall:
    """One function call that has ended. A deferred or rescheduled try has several."""

    record: Record
    timeline: Timeline = NO_TIMELINE
    """Empty if an older worker wrote the record."""
    samples: Samples | None = None
    """None for a short call, and if they were not asked for."""

    @classmethod
    def from_line(cls, line: str) -> RecordedCall:
        """Read a line of a usage file, without samples. Raises MalformedMessageError if it has no record.

        A malformed timeline counts as none: the record is valid all the same.
        """
        wire = parsed(line)
        record, timeline = Record.from_wire(wire), NO_TIMELINE
        with contextlib.suppress(MalformedMessageError):
            timeline = Timeline.from_wire(wire.get("timeline", {}), record.taken_at)
        return cls(record, timeline)
