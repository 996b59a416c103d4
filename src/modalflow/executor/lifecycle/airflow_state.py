"""How Airflow stands to a work id: questions of the engine's to Airflow's database, collected and asked together.

Runs on the engine's loop; the database is asked in a daemon thread. Knows nothing of Airflow: ``Database`` is whoever
answers.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol

from modalflow.executor.mailbox import Order
from modalflow.executor.modal_api.blocking import in_daemon_thread
from modalflow.executor.reporting.loggers import logger
from modalflow.support.described import describe

log = logger(__name__)

#: Seconds in which questions that come together become one query.
GATHER = 0.05
#: Seconds after which a look at the database counts as unanswered.
LOOK_TIMEOUT = 30.0
#: The most questions of one look.
AT_ONCE = 1_000


class Standing(Enum):
    """What Airflow's database has for a work id."""

    WAITING = auto()
    """The task instance is queued under this work id, and has not begun."""
    RUNNING = auto()
    """It runs, or was cleared while it ran, under this work id."""
    GONE = auto()
    """It has ended, waits to be scheduled, or is queued or running under another work id."""
    UNKNOWN = auto()
    """Nobody could be asked."""


@dataclass(frozen=True, slots=True)
class Question:
    """How does Airflow stand to this work id?"""

    key: Hashable
    work_id: str
    with_order: bool = False
    """Also make the order anew, where it waits: its scheduler is dead and took the order along."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the database said."""

    standing: Standing
    order: Order | None = None
    problem: str = ""
    """Why there is no order, where one was asked for."""


UNKNOWN = Answer(Standing.UNKNOWN)


class Database(Protocol):
    """Whoever can be asked; called in a thread of its own, one question after another."""

    def look(self, questions: Sequence[Question]) -> Mapping[str, Answer]:
        """Answer by work id. What is left out is unknown."""


Then = Callable[[Answer], None]


@dataclass(order=True)
class _Asked:
    due: float
    number: int
    question: Question = field(compare=False)
    then: Then = field(compare=False)


class Enquiries:
    """Questions that wait for their time, and then for the database."""

    def __init__(self, database: Database | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._asked: list[_Asked] = []
        self._count = 0
        self._news = asyncio.Event()

    @property
    def possible(self) -> bool:
        """Whether there is a database to ask: there is none but under a scheduler."""
        return self._database is not None

    def ask(self, question: Question, then: Then, after: float = 0.0) -> None:
        """Call ``then`` with the answer as it is in ``after`` seconds; UNKNOWN at once where there is no database."""
        if self._database is None:
            then(UNKNOWN)
            return
        self._count += 1
        heapq.heappush(self._asked, _Asked(self._clock() + after, self._count, question, then))
        self._news.set()

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self._something_due()
            due = self._take()
            answers = await self._look([asked.question for asked in due])
            for asked in due:
                try:
                    asked.then(answers.get(asked.question.work_id, UNKNOWN))
                except Exception:
                    log.exception(
                        "The answer of Airflow's database about %s could not be processed", asked.question.key
                    )

    async def _something_due(self) -> None:
        while True:
            now = self._clock()
            if self._asked and self._asked[0].due <= now:
                await asyncio.sleep(GATHER)
                return
            self._news.clear()
            try:
                async with asyncio.timeout(self._asked[0].due - now if self._asked else None):
                    await self._news.wait()
            except TimeoutError:
                continue

    def _take(self) -> list[_Asked]:
        due: list[_Asked] = []
        while self._asked and self._asked[0].due <= self._clock() and len(due) < AT_ONCE:
            due.append(heapq.heappop(self._asked))
        return due

    async def _look(self, questions: Sequence[Question]) -> Mapping[str, Answer]:
        database = self._database
        assert database is not None, "nothing is asked where there is no database"
        try:
            async with asyncio.timeout(LOOK_TIMEOUT):
                return await in_daemon_thread(lambda: database.look(questions))
        except Exception as error:  # noqa: BLE001  Whatever a driver raises: the engine goes on without an answer.
            log.warning("Airflow's database did not answer (%s)", describe(error))
            return {}
