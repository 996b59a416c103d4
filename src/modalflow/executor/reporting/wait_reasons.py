"""Why work waits: reported in the task's log and in Airflow's event log, which a user reads who sees a task `queued`.

Checks what no container has begun, less and less often. It also ends what Airflow no longer waits for: Airflow does not
notify an executor of that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

from modalflow.control_plane import server_url
from modalflow.executor.connection import Connection
from modalflow.executor.holds.admission import Admission
from modalflow.executor.lifecycle.airflow_state import AirflowState, StateAnswer, StateQueries, StateQuery
from modalflow.executor.lifecycle.call import Call, Phase
from modalflow.executor.lifecycle.calls import Calls
from modalflow.executor.lifecycle.outcomes import Outcomes
from modalflow.executor.lifecycle.sweeper import Sweeper
from modalflow.executor.modal_api.modal_api import FAILURES, Backlog
from modalflow.executor.reporting.loggers import logger
from modalflow.executor.submission.resources import Resources
from modalflow.names import Names
from modalflow.protocol.messages import Kind
from modalflow.support.described import describe

log = logger(__name__)

#: The first report comes after this many sweep intervals of waiting, each further one after four times as long.
FIRST = 1.5
RARER = 4
#: Calls that are looked up in one round, and about which Airflow is asked: those that have waited longest.
BATCH = 200
QUERIES = 1_000


class WaitReasons:
    """Reports why calls wait."""

    def __init__(
        self,
        calls: Calls,
        connection: Connection,
        queries: StateQueries,
        outcomes: Outcomes,
        sweeper: Sweeper,
        admission: Admission,
        interval: float,
    ) -> None:
        self._calls = calls
        self._connection = connection
        self._queries = queries
        self._outcomes = outcomes
        self._sweeper = sweeper
        self._admission = admission
        self._first = FIRST * interval
        self._asked: set[str] = set()
        """Work ids about which Airflow's database has not answered yet."""

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            await asyncio.sleep(self._first)
            try:
                await self.round()
            except Exception:
                log.exception("Checking why work waits failed; the next check goes on")

    async def round(self) -> None:
        """Check once what waits."""
        now = time.time()
        waiting = sorted(
            (call for call in self._calls if self._waits(call) and now - call.accepted_at >= self._first),
            key=lambda call: call.accepted_at,
        )
        self._ask_airflow(waiting)
        due = [call for call in waiting if now - call.accepted_at >= self._first * RARER**call.wait_reports][:BATCH]
        await asyncio.gather(*(self._sweeper.check(call) for call in due if call.function_call_id))
        backlogs: dict[tuple[str, Resources], Backlog | None] = {}
        reported: dict[str, list[str]] = {}
        for call in due:
            if self._waits(call):
                text = self._reason(call, await self._backlog(call, backlogs))
                self._outcomes.waits(call, text)
                reported.setdefault(self._waits_for(call), []).append(f"{call.label}: {text}")
        for what, (first, *others) in reported.items():
            # Each task's own log has all of it; ten thousand that wait must not be ten thousand lines here.
            log.info("%s", f"{first} {len(others)} more wait {what}, see their own logs." if others else first)

    @staticmethod
    def _waits(call: Call) -> bool:
        return call.phase not in (Phase.RUNNING, Phase.EXPLAINING, Phase.SETTLED)

    def _ask_airflow(self, calls: Sequence[Call]) -> None:
        """End calls whose task was marked or cleared while it was queued."""
        if self._connection.api is None or not self._queries.possible:
            return
        # Thousands may be held for days, and must not crowd out the others.
        held = [call for call in calls if self._admission.holds(call)]
        for call in [*(call for call in calls if call.function_call_id), *held][:QUERIES]:
            if call.kind is Kind.WORKLOAD and call.work_id not in self._asked:
                self._asked.add(call.work_id)
                self._queries.ask(StateQuery(call.key, call.origin), partial(self._answered, call))

    def _answered(self, call: Call, answer: StateAnswer) -> None:
        self._asked.discard(call.work_id)
        if answer.state is AirflowState.GONE and self._waits(call):
            self._outcomes.over(call)

    async def _backlog(self, call: Call, known: dict[tuple[str, Resources], Backlog | None]) -> Backlog | None:
        """Return the backlog of a call's Function, asking once for all its calls."""
        submission = call.submission
        if submission is None or not call.function_call_id:
            return None
        key = (submission.profile, call.resources)
        if key not in known:
            try:
                known[key] = await self._connection.get().backlog(*key)
            except FAILURES as error:
                log.info("Modal did not report the backlog of %s (%s)", key, describe(error))
                known[key] = None
        return known[key]

    @staticmethod
    def _waits_for(call: Call) -> str:
        if call.function_call_id is None or call.submission is None:
            return "to be submitted"
        return f"for {Names.function(call.submission.profile)}"

    def _reason(self, call: Call, backlog: Backlog | None) -> str:
        waited = f"{time.time() - call.accepted_at:.0f} s"
        if call.function_call_id is None:
            return (
                f"Not submitted to Modal yet, after {waited}: {self._obstacle(call)}. It will be submitted "
                "automatically."
            )
        accepted = datetime.fromtimestamp(call.accepted_at, UTC)
        sentences = [
            f"Waiting for a container on Modal for {waited}: accepted at {accepted:%H:%M:%S} UTC, submitted as "
            f"function call {call.function_call_id}."
        ]
        if backlog is not None and call.submission is not None:
            options = f", {call.resources}" if call.resources.options else ""
            sentences.append(
                f"Modal has {backlog.inputs} inputs waiting and {backlog.containers} containers for Function "
                f"{Names.function(call.submission.profile)}{options}."
            )
        if call.wait_reports:
            sentences.append(
                "Airflow revokes a task that is queued for longer than [scheduler] task_queued_timeout. Raise it if "
                "resources are scarce."
            )
        return " ".join(sentences)

    def _obstacle(self, call: Call) -> str:
        """Return why a call is not submitted yet."""
        if self._connection.obstacle:
            return self._connection.obstacle
        if reason := self._admission.reason(call):
            return reason
        if self._connection.api is None:
            return f"{server_url()} has not answered yet"
        if call.attempts:
            times = "1 submission" if call.attempts == 1 else f"{call.attempts} submissions"
            return f"no container has begun it in {times}, and the next one follows after a pause"
        return "earlier workloads are ahead of it"
