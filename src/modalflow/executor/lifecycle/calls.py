"""The calls in flight: the engine's whole memory of what it has submitted."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field

from modalflow.executor.lifecycle.call import Call

#: The most sweep intervals that pass between two look-ups of a silent call.
LONGEST_PATIENCE = 8


@dataclass
class Calls:
    """The calls in flight, by work id; at most one of them is current for a workload key."""

    _by_work_id: dict[str, Call] = field(default_factory=dict)
    _current: dict[Hashable, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._by_work_id)

    def __iter__(self) -> Iterator[Call]:
        return iter(list(self._by_work_id.values()))

    def add(self, call: Call) -> None:
        """Track a call; it becomes the current one for its key, and an older one's outcome no longer counts."""
        self._by_work_id[call.work_id] = call
        self._current[call.key] = call.work_id

    def get(self, work_id: str) -> Call | None:
        return self._by_work_id.get(work_id)

    def of_key(self, key: Hashable) -> Call | None:
        """The current call of a workload key."""
        return self._by_work_id.get(self._current.get(key, ""))

    def is_current(self, call: Call) -> bool:
        """Whether an outcome of this call still stands for its key: deferral and reschedule reuse keys."""
        return self._current.get(call.key) == call.work_id

    def discard(self, call: Call) -> None:
        self._by_work_id.pop(call.work_id, None)
        if self.is_current(call):
            del self._current[call.key]

    def silent(self, now: float, interval: float) -> Iterable[Call]:
        """Calls to look up: of which nothing was heard for ``interval`` seconds, for longer after each look in vain.

        A long task is expected to be silent, and looking costs two RPCs.
        """
        return [
            call
            for call in self._by_work_id.values()
            if now - call.updated_at >= interval * min(2**call.checks, LONGEST_PATIENCE) or now >= call.due_at
        ]
