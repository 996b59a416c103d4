"""The boundary of one workload: what goes wrong with it inside the executor ends it, and holds up no other one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from modalflow.executor.mailbox import News, NewsKind
from modalflow.executor.reporting.loggers import logger
from modalflow.reasons import Cause, Reason, explain
from modalflow.support.described import describe

if TYPE_CHECKING:
    from modalflow.executor.lifecycle.tracker import Tracker

log = logger(__name__)


@contextmanager
def alone(tracker: Tracker, work_id: str, doing: str) -> Iterator[None]:
    """Fail the call of a work id with the reason if what is done within raises. ``doing`` completes "while …"."""
    try:
        yield
    except Exception as error:  # The boundary of a workload: see the module's docstring.
        log.exception("Something unforeseen happened while %s (%s)", doing, work_id)
        _fail(tracker, work_id, own_failure(error, doing))


def own_failure(error: Exception, doing: str) -> Reason:
    """Return the reason for work that the executor itself could not deal with."""
    said = (
        f"the executor failed while {doing} ({describe(error)}). This is a fault of modalflow: please "
        "report it with the traceback in the scheduler's log"
    )
    return explain(Cause.OTHER, said=said)


def _fail(tracker: Tracker, work_id: str, reason: Reason) -> None:
    call = tracker.calls.get(work_id)
    if call is None or call.settled:
        return
    try:
        tracker.fail(call, reason)
    except Exception:  # The last resort: Airflow must learn that it ended.
        log.exception("%s could not be failed in order", call.label)
        call.settle()
        tracker.calls.discard(call)
        tracker.news.append(
            News(NewsKind.FAILED, call.key, call.origin, call.work_id, call.function_call_id, str(reason))
        )
