"""Which submitted calls have a container, from one reading of the ledger for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from modalflow.executor.connection import Connection
from modalflow.executor.lifecycle.call import Phase
from modalflow.executor.lifecycle.calls import Calls
from modalflow.executor.lifecycle.decision import Action, Decision
from modalflow.executor.lifecycle.outcomes import Outcomes
from modalflow.executor.lifecycle.tracker import Tracker
from modalflow.protocol.messages import State


class Found(NamedTuple):
    """The submitted calls at the time of a reading."""

    not_begun: Sequence[str]
    """The work ids of calls without a container."""
    begun: int
    """The number of calls with a container that was not known before."""


class LedgerReading:
    """Reads the ledger, and notes the containers of calls."""

    def __init__(self, calls: Calls, connection: Connection, tracker: Tracker, outcomes: Outcomes) -> None:
        self._calls = calls
        self._connection = connection
        self._tracker = tracker
        self._outcomes = outcomes

    async def read(self) -> Found:
        """Return the submitted calls. Raises FAILURES."""
        entries = {entry.work_id: entry for entry in await self._connection.get().ledger()}
        not_begun, begun = [], 0
        for call in self._calls.in_phase(Phase.WAITING):
            entry = entries.get(call.work_id)
            if entry is None:
                not_begun.append(call.work_id)
            elif entry.state is State.RUNNING:
                begun += 1
                with self._outcomes.guarding(call.work_id, "noting its container"):
                    self._tracker.found(call, Decision(Action.WAIT), entry)
        return Found(not_begun, begun)
