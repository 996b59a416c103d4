"""Another scheduler's work, taken over as it is; what becomes of it is decided like that of any other work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from modalflow.errors import MalformedMessageError
from modalflow.executor.budgets.running_costs import Grant, RunningCosts
from modalflow.executor.connection import Connection
from modalflow.executor.lifecycle.call import Call
from modalflow.executor.lifecycle.calls import Calls
from modalflow.executor.lifecycle.decision import Action, Decision
from modalflow.executor.lifecycle.outcomes import Outcomes
from modalflow.executor.lifecycle.sweeper import Sweeper
from modalflow.executor.lifecycle.tracker import Tracker
from modalflow.executor.loop_tasks import BoundedTasks
from modalflow.executor.mailbox import Adoption
from modalflow.executor.modal_api.modal_api import FAILURES
from modalflow.executor.reporting.log_dedup import DedupLogger
from modalflow.executor.reporting.loggers import logger
from modalflow.executor.reporting.metrics import Metrics
from modalflow.executor.submission.placement import Placement
from modalflow.protocol.messages import State
from modalflow.support.described import describe

log = logger(__name__)

#: Look-ups of adopted work under way at once.
CONCURRENCY = 32


class Adopter:
    """Takes over the work of schedulers that died."""

    def __init__(
        self,
        calls: Calls,
        connection: Connection,
        tracker: Tracker,
        sweeper: Sweeper,
        outcomes: Outcomes,
        metrics: Metrics,
        placement: Placement,
        costs: RunningCosts,
        tasks: BoundedTasks,
    ) -> None:
        self._calls = calls
        self._connection = connection
        self._tracker = tracker
        self._sweeper = sweeper
        self._outcomes = outcomes
        self._metrics = metrics
        self._placement = placement
        self._costs = costs
        self._tasks = tasks
        self._bound = asyncio.Semaphore(CONCURRENCY)
        self._failed = DedupLogger(log)

    def adopt(self, adoptions: Sequence[Adoption]) -> None:
        """Track the work, and look each of it up once, soon. If a look-up fails, the next sweep does it."""
        for adoption in adoptions:
            if self._calls.get(adoption.work_id) is not None:
                # Airflow took this very scheduler for dead.
                continue
            place = self._placement.place_of_adopted(adoption, self._connection.deployment)
            call = Call.adopted(adoption, time.time(), place.profile if place is not None else "")
            self._calls.add(call)
            if place is not None:
                self._costs.adopted(call.work_id, Grant(place.profile, place.granted))
            self._metrics.counts["adopted"] += 1
            if self._connection.api is not None:
                self._tasks.spawn(self._look_up(call))

    async def _look_up(self, call: Call) -> None:
        with self._outcomes.guarding(call.work_id, "taking it over"):
            async with self._bound:
                await self._read_ledger(call)

    async def _read_ledger(self, call: Call) -> None:
        """Read the ledger alone: most of what is adopted runs, and Modal need not be asked about it."""
        try:
            entry = await self._connection.get().entry(call.work_id)
        except MalformedMessageError:
            entry = None
        except FAILURES as error:
            self._failed.warn(
                type(error).__name__, "%s was adopted but not yet looked up: %s", call.label, describe(error)
            )
            return
        except Exception:
            log.exception("%s was adopted, and its look-up failed; the next sweep looks it up", call.label)
            return
        if call.settled:
            return
        if entry is None:
            await self._sweeper.check(call)
        else:
            self._tracker.found(call, Decision(Action.WAIT if entry.state is State.RUNNING else Action.DELIVER), entry)
