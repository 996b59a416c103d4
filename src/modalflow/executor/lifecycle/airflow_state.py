"""What Airflow's database has for a work id: the engine's queries, collected and asked together.

Runs on the engine's loop; the database is asked in a daemon thread. Imports nothing of Airflow: ``AirflowDatabase``
implements ``StateDatabase``.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol

from modalflow.executor.losses.infrastructure_retries import InfrastructureRetries
from modalflow.executor.mailbox import SubmitRequest, WorkloadKey
from modalflow.executor.modal_api.blocking import in_daemon_thread
from modalflow.executor.reporting.loggers import logger
from modalflow.reasons import Cause
from modalflow.support.described import describe

log = logger(__name__)

#: Seconds in which queries that come together become one query of the database.
GATHER = 0.05
#: Seconds after which a query of the database counts as unanswered.
TIMEOUT = 30.0
#: The most work ids in one query of the database.
BATCH = 1_000


class AirflowState(Enum):
    """What Airflow's database has for a work id."""

    WAITING = auto()
    """The task instance is queued under this work id, and has not begun."""
    RUNNING = auto()
    """It runs under this work id, or was cleared while it ran."""
    GONE = auto()
    """It has ended, waits to be scheduled, or is queued or running under another work id."""
    UNKNOWN = auto()
    """The database was not asked, or did not answer."""
    LOCKED = auto()
    """Another transaction changes the task instance right now, its id is not stored yet, or the database did not answer
    about a loss: ask again."""


@dataclass(frozen=True, slots=True)
class Loss:
    """The end of a try for which its task has no fault."""

    cause: Cause
    limits: InfrastructureRetries
    awaits_id: bool
    """Whether this executor has reported, or will report, the function call id for Airflow to store."""


@dataclass(frozen=True, slots=True)
class StateQuery:
    """A question: what does Airflow's database have for this work id?"""

    key: WorkloadKey
    work_id: str
    with_request: bool = False
    """Whether to make its request again if it waits, because its scheduler is dead and took the request along."""
    loss: Loss | None = None
    """If set, and the task instance still waits or runs under this work id: queue it again, without using a retry."""


@dataclass(frozen=True, slots=True)
class StateAnswer:
    """What the database has."""

    state: AirflowState
    request: SubmitRequest | None = None
    problem: str = ""
    """Why there is no request, if one was asked for; or why a lost task is not queued again, perhaps not yet."""
    queued_again: str = ""
    """The line for users about a lost task that is queued again; empty if it is not."""


UNKNOWN = StateAnswer(AirflowState.UNKNOWN)


class StateDatabase(Protocol):
    """A database that can be asked. It is called in a thread of its own, one call after the other."""

    def answer(self, queries: Sequence[StateQuery]) -> Mapping[str, StateAnswer]:
        """Return the answers by work id; a work id that is left out is unknown."""

    def renew_queued(self, queries: Sequence[StateQuery]) -> None:
        """Let the time in the queue begin again for tasks that are queued under these work ids."""


@dataclass(order=True)
class _Pending:
    due: float
    number: int
    query: StateQuery = field(compare=False)
    then: Callable[[StateAnswer], None] = field(compare=False)


class StateQueries:
    """The queries that wait until they are due, and then for the database."""

    def __init__(self, database: StateDatabase | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._pending: list[_Pending] = []
        self._count = 0
        self._added = asyncio.Event()
        self._asking: asyncio.Task[Mapping[str, StateAnswer]] | None = None
        """The question that the database is at, perhaps for longer than anyone waits."""
        self._late: dict[str, StateAnswer] = {}
        """Tasks that were queued again after their time limit, until someone asks for them again."""

    @property
    def possible(self) -> bool:
        """Whether there is a database to ask: only a scheduler has one."""
        return self._database is not None

    def ask(self, query: StateQuery, then: Callable[[StateAnswer], None], after: float = 0.0) -> None:
        """Call ``then`` with what the database has in ``after`` seconds; with UNKNOWN, at once, if there is none."""
        if self._database is None:
            then(UNKNOWN)
            return
        self._count += 1
        heapq.heappush(self._pending, _Pending(self._clock() + after, self._count, query, then))
        self._added.set()

    async def renew_queued(self, queries: Sequence[StateQuery]) -> None:
        """Let the time in the queue begin again for these tasks. A failure is logged."""
        database = self._database
        if database is None:
            return
        try:
            async with asyncio.timeout(TIMEOUT):
                await in_daemon_thread(lambda: database.renew_queued(queries))
        except Exception as error:  # noqa: BLE001  Whatever a driver raises, the next time it is tried again.
            log.warning("The time in the queue of %s tasks was not renewed (%s)", len(queries), describe(error))

    async def run(self) -> None:
        """Ask the database until cancelled."""
        while True:
            await self._until_due()
            due = self._take_due()
            try:
                answers = await self._answers([pending.query for pending in due])
            except BaseException:
                # The engine's thread ends. The next one asks again.
                for pending in due:
                    heapq.heappush(self._pending, pending)
                raise
            for pending in due:
                try:
                    pending.then(answers.get(pending.query.work_id, UNKNOWN))
                except Exception:
                    log.exception("The answer of Airflow's database about %s was not acted on", pending.query.key)

    async def _until_due(self) -> None:
        while True:
            now = self._clock()
            if self._pending and self._pending[0].due <= now:
                await asyncio.sleep(GATHER)
                return
            self._added.clear()
            try:
                async with asyncio.timeout(self._pending[0].due - now if self._pending else None):
                    await self._added.wait()
            except TimeoutError:
                continue

    def _take_due(self) -> list[_Pending]:
        due: list[_Pending] = []
        while self._pending and self._pending[0].due <= self._clock() and len(due) < BATCH:
            due.append(heapq.heappop(self._pending))
        return due

    async def _answers(self, queries: Sequence[StateQuery]) -> Mapping[str, StateAnswer]:
        try:
            async with asyncio.timeout(TIMEOUT):
                return await self._ask_database(queries)
        except Exception as error:  # noqa: BLE001  Whatever a driver raises, the engine goes on without an answer.
            log.warning("Airflow's database did not answer (%s)", describe(error))
            # A question about a loss also changes Airflow's state, perhaps after its time limit.
            problem = f"Airflow's database did not answer ({describe(error)})."
            unanswered = StateAnswer(
                AirflowState.LOCKED, problem=f"It could not run again without using a retry: {problem}"
            )
            return {query.work_id: unanswered for query in queries if query.loss is not None}

    async def _ask_database(self, queries: Sequence[StateQuery]) -> Mapping[str, StateAnswer]:
        """Ask, after the end of an earlier question that took too long: each holds a connection of the scheduler's."""
        database = self._database
        assert database is not None, "nothing is pending if there is no database"
        if self._asking is not None:
            with contextlib.suppress(Exception):  # It was logged, or its queries are among these again.
                answers = await self._answer_of(self._asking)
                self._late |= {work_id: answer for work_id, answer in answers.items() if answer.queued_again}
        late = {query.work_id: self._late[query.work_id] for query in queries if query.work_id in self._late}
        answers = dict(late)
        if left := [query for query in queries if query.work_id not in late]:
            self._asking = asyncio.create_task(in_daemon_thread(lambda: database.answer(left)))
            answers.update(await self._answer_of(self._asking))
        for work_id in late:
            del self._late[work_id]
        return answers

    async def _answer_of(self, asking: asyncio.Task[Mapping[str, StateAnswer]]) -> Mapping[str, StateAnswer]:
        try:
            return await asyncio.shield(asking)
        finally:
            if asking.done():
                self._asking = None
