"""The calls in flight: the engine's whole memory of what it has submitted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from modalflow.executor.lifecycle.call import Call, Phase
from modalflow.executor.mailbox import WorkloadKey

#: The most sweep intervals that pass between two look-ups of a silent call.
LONGEST_PATIENCE = 8


@dataclass
class Calls:
    """The calls in flight, by work id; at most one of them is current for a workload key."""

    _by_work_id: dict[str, Call] = field(default_factory=dict)
    _current: dict[WorkloadKey, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._by_work_id)

    def __iter__(self) -> Iterator[Call]:
        return iter(list(self._by_work_id.values()))

    def add(self, call: Call) -> None:
        """Track a call. It becomes the current one of its key, so that an older one's outcome no longer counts."""
        self._by_work_id[call.work_id] = call
        self._current[call.key] = call.work_id

    def get(self, work_id: str) -> Call | None:
        """Return the call of a work id."""
        return self._by_work_id.get(work_id)

    def of_key(self, key: WorkloadKey) -> Call | None:
        """Return the current call of a workload key."""
        return self._by_work_id.get(self._current.get(key, ""))

    def is_current(self, call: Call) -> bool:
        """Return whether the outcome of this call still counts for its key: deferred tasks come back under theirs."""
        return self._current.get(call.key) == call.work_id

    def in_phase(self, *phases: Phase) -> list[Call]:
        """Return the calls that are in one of these phases."""
        return [call for call in self._by_work_id.values() if call.phase in phases]

    def describe(self, partition: str, now: float, wall_clock: float) -> list[str]:
        """Return what is in flight for an operator, one line a call; may be called from any thread."""
        return [
            f"{call.label}: {_where(call)}, accepted {wall_clock - call.accepted_at:.0f} s ago, function call "
            f"{call.function_call_id or 'none yet'}, work id {call.work_id}, {call.attempts} submissions, silent for "
            f"{now - call.updated_at:.0f} s, partition {call.partition or partition}"
            for call in self
        ]

    def discard(self, call: Call) -> None:
        """Stop tracking a call."""
        self._by_work_id.pop(call.work_id, None)
        if self.is_current(call):
            del self._current[call.key]

    def silent(self, now: float, interval: float) -> Iterable[Call]:
        """Return the calls to look up: those without news for ``interval`` seconds, and longer after each look-up.

        A long task is expected to be silent, and a look-up costs two RPCs.
        """
        return [
            call
            for call in self._by_work_id.values()
            # Modal knows nothing of what was never submitted.
            if (call.phase is not Phase.QUEUED or call.may_begin)
            and (now - call.updated_at >= interval * min(2**call.checks, LONGEST_PATIENCE) or now >= call.due_at)
        ]


def _where(call: Call) -> str:
    if call.phase is Phase.RUNNING:
        return f"running in container {call.container_id}"
    return "waiting for a container" if call.function_call_id else "waiting to be submitted"
