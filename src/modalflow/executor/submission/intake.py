"""From a request to a call in the submission queue, as soon as it is known which Function runs it.

Owns the question of the current deployment: it reads the record again now and then during requests, and at once for an
unknown profile.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from modalflow.errors import WorkloadRejectedError
from modalflow.executor.connection import Connection
from modalflow.executor.home_publisher import HomePublisher
from modalflow.executor.lifecycle.call import Call, Phase
from modalflow.executor.lifecycle.calls import Calls
from modalflow.executor.lifecycle.outcomes import Outcomes
from modalflow.executor.loop_tasks import BoundedTasks
from modalflow.executor.losses.infrastructure_retries import InfrastructureRetries
from modalflow.executor.mailbox import SubmitRequest
from modalflow.executor.reporting.metrics import Metrics
from modalflow.executor.reporting.task_log_notes import TaskLogNotes
from modalflow.executor.submission.placement import NOT_GRANTED, Place, Placement, UnknownProfileError
from modalflow.executor.submission.size_lookups import SizeLookups
from modalflow.executor.submission.sizing import NOTHING_KNOWN
from modalflow.executor.submission.submitter import Submitter
from modalflow.protocol.messages import Kind, Submission
from modalflow.reasons import Cause, explain

#: Seconds between two reads of what is deployed while requests come in.
INTERVAL = 30.0
#: Seconds between two attempts to read it while Modal does not answer.
PAUSE = 5.0
#: Seconds between two reads for unknown profiles, however many tasks ask for such.
GATHER = 0.5


class Intake:
    """Accepts requests, and places them on what is deployed."""

    def __init__(
        self,
        partition: str,
        team: str,
        calls: Calls,
        connection: Connection,
        homes: HomePublisher,
        placement: Placement,
        limits: InfrastructureRetries,
        submitter: Submitter,
        outcomes: Outcomes,
        notes: TaskLogNotes,
        metrics: Metrics,
        tasks: BoundedTasks,
        sizes: SizeLookups,
    ) -> None:
        self._partition = partition
        self._team = team
        self._calls = calls
        self._connection = connection
        self._homes = homes
        self._placement = placement
        self._limits = limits
        self._submitter = submitter
        self._outcomes = outcomes
        self._notes = notes
        self._metrics = metrics
        self._tasks = tasks
        self._sizes = sizes
        self._refreshing = False
        self._accepted_before = 0

    def accept(self, requests: Sequence[SubmitRequest]) -> None:
        """Make a call of each request, and submit it."""
        for request in requests:
            self._metrics.counts["taken"] += 1
            call = Call.accepted(request, time.monotonic())
            self._calls.add(call)
            self._submit(call)

    def request_again(self, call: Call, request: SubmitRequest) -> None:
        """Submit a call again with a new request, under the same work id: an earlier spawn may still begin it."""
        call.requested(request, time.monotonic())
        self._submit(call)

    def place_all(self) -> None:
        """Place all waiting calls; reject those for an undeployed profile."""
        # The thread that looked something up for them may have ended.
        self._sizes.restart()
        self._place_or_reject(self._unplaced())

    async def run(self) -> None:
        """Keep up with what is deployed until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            accepted = self._metrics.counts["taken"]
            if accepted != self._accepted_before:
                self._accepted_before = accepted
                await self._connection.refresh_deployment()
            await self._homes.keep_up(self._connection.get(), self._connection.deployment)

    def _submit(self, call: Call) -> None:
        if self._connection.api is None:
            # What is deployed is not known yet: ``place_all`` follows the first connection.
            return
        with self._outcomes.guarding(call.work_id, "preparing its submission"):
            try:
                self._place(call)
            except UnknownProfileError:
                self._refresh_for_unknown_profiles()

    def _place_or_reject(self, calls: Sequence[Call]) -> None:
        for call in calls:
            if call.phase is Phase.UNPLACED:
                with self._outcomes.guarding(call.work_id, "preparing its submission"):
                    try:
                        self._place(call)
                    except UnknownProfileError as error:
                        self._reject(call, error)

    def _place(self, call: Call) -> None:
        request = call.request
        assert request is not None, "what is UNPLACED has a request"
        deployment = self._connection.deployment
        try:
            terms = self._placement.terms(request, deployment)
            known = NOTHING_KNOWN
            if terms is not None:
                found = self._sizes.known(call, terms, lambda: self._submit(call))
                if found is None:
                    # It is placed once that is known.
                    return
                known = found
            place = self._placement.place(request, deployment, terms, known)
        except UnknownProfileError:
            raise
        except WorkloadRejectedError as error:
            self._reject(call, error)
            return
        if place.warning:
            self._notes.add(call.log_path, place.warning, "warning")
        call.placed(self._submission(request, place), place.options)
        self._submitter.put(call)

    def _submission(self, request: SubmitRequest, place: Place) -> Submission:
        """Return the complete submission. It is made at once: each copy is a tenth of the cost of a submission here."""
        draft = request.draft
        changes: dict[str, Any] = {
            "profile": place.profile,
            "partition": self._partition,
            "resources": place.granted,
            "asked": _asked(request),
            "team": self._team,
            "sized": place.sized,
        }
        if place.note:
            changes["note"] = " ".join(filter(None, (draft.note, place.note)))
        # A raw command has nothing to do with Airflow.
        if draft.kind is Kind.WORKLOAD:
            limit = self._limits.of(request.infrastructure_retries, request.profile, request.airflow_queue)
            changes["home"], changes["env"] = self._homes.id, self._homes.without_stored(draft)
            changes["executor_reports_stop"] = limit.times > 0
        return dataclasses.replace(draft, **changes)

    def _reject(self, call: Call, error: WorkloadRejectedError) -> None:
        self._outcomes.fail(call, explain(Cause.REJECTED, detail=str(error)), Cause.REJECTED)

    def _unplaced(self) -> list[Call]:
        return [call for call in self._calls.in_phase(Phase.UNPLACED) if not self._sizes.is_looking_up(call)]

    def _refresh_for_unknown_profiles(self) -> None:
        if not self._refreshing:
            self._refreshing = True
            self._tasks.spawn(self._refresh())

    async def _refresh(self) -> None:
        """Read the record of the deployment, then place waiting calls, until none waits."""
        try:
            while waiting := self._unplaced():
                while not await self._connection.refresh_deployment():
                    # Nothing is rejected because Modal does not answer.
                    await asyncio.sleep(PAUSE)
                # What came meanwhile may need what was deployed meanwhile, so it waits for the next read.
                self._place_or_reject(waiting)
                await asyncio.sleep(GATHER)
        finally:
            self._refreshing = False


def _asked(request: SubmitRequest) -> dict[str, Any]:
    """Return the resources that the task itself set, and how they may grow."""
    asked = {**request.resources.plain(), **request.terms.plain()}
    return {name: value for name, value in asked.items() if name not in NOT_GRANTED}
