"""FAILED, told to Airflow so that it counts: not where Airflow has gone on, and again where Airflow took no notice.

Airflow takes a FAILED for whatever its task instance does now, and drops an event whose row is locked just then. So
Airflow's database is looked at before a FAILED is told, and again some seconds after.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from modalflow.executor.lifecycle.airflow_state import Answer, Enquiries, Question, Standing
from modalflow.executor.mailbox import News, NewsKind
from modalflow.executor.reporting.loggers import logger

log = logger(__name__)

#: Seconds after which Airflow should have taken notice. Each time that it has not, twice as long is waited.
FIRST_LOOK = 5.0
#: After waiting for this long in vain, Airflow's own heartbeat timeout is left to end the task.
LAST_LOOK = 80.0


class Failures:
    """What failed, from the engine's knowledge of it to Airflow's."""

    def __init__(
        self,
        tell: Callable[[News], None],
        forget: Callable[[str], None],
        enquiries: Enquiries,
        first_look: float = FIRST_LOOK,
    ) -> None:
        self._tell = tell
        self._forget = forget
        self._enquiries = enquiries
        self._first_look = first_look
        self._kept: dict[str, bool] = {}
        """Work ids whose FAILED may have to be told again → whether the executor is done with them."""

    def tell(self, news: News) -> None:
        """Tell that a task failed, if Airflow still waits for it under this work id."""
        self._enquiries.ask(Question(news.key, news.origin), lambda answer: self._looked(news, answer))

    def keeps(self, work_id: str) -> bool:
        """Whether the entry of a told outcome must stay for now; it is forgotten later in that case."""
        if work_id not in self._kept:
            return False
        self._kept[work_id] = True
        return True

    def _looked(self, news: News, answer: Answer) -> None:
        if answer.standing is Standing.GONE:
            log.info("Airflow has moved on from %s, so this is not reported: %s", news.key, news.reason)
            self._tell(dataclasses.replace(news, kind=NewsKind.OVER))
            return
        if answer.standing is not Standing.UNKNOWN:
            self._kept[news.work_id] = False
            self._look_again(news, self._first_look)
        self._tell(news)

    def _look_again(self, news: News, after: float) -> None:
        self._enquiries.ask(
            Question(news.key, news.origin), lambda answer: self._looked_again(news, answer, after), after
        )

    def _looked_again(self, news: News, answer: Answer, waited: float) -> None:
        if answer.standing is Standing.GONE:
            if self._kept.pop(news.work_id, False):
                self._forget(news.work_id)
            return
        if answer.standing is not Standing.UNKNOWN:
            log.warning("Airflow ignored the failure of %s; it is reported again", news.key)
            self._tell(dataclasses.replace(news, again=True))
        if waited < LAST_LOOK:
            self._look_again(news, waited * 2)
        else:
            log.warning("Airflow ignores the failure of %s; its heartbeat timeout will end it", news.key)
            # The entry stays: whoever adopts the task finds out from it.
            self._kept.pop(news.work_id, None)
