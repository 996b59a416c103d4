"""Deferral of a task, by version of Airflow: the calls of a triggerer's trigger into Airflow, and its cancellation.

Cheap to import: functions import Airflow's own modules at their use.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

_T = TypeVar("_T")

log = logging.getLogger(__name__)

#: Seconds for a question to Airflow, which is usually answered in much less than one.
PATIENCE = 60.0

#: Seconds for the question about a task's state when its trigger ends. At its shutdown, a triggerer may not answer.
_SHORT_PATIENCE = 10.0

#: Questions without an answer. The event loop itself keeps no task alive.
_asked: set[asyncio.Future[Any]] = set()


class _OwnThreads(Executor):
    """A thread for each question, for which the end of the process does not wait."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call the function in a thread of its own."""
        outcome: Future[Any] = Future()
        outcome.set_running_or_notify_cancel()

        def run() -> None:
            try:
                outcome.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001  It is raised where the result is awaited.
                outcome.set_exception(error)

        threading.Thread(target=run, name="modalflow-question", daemon=True).start()
        return outcome


async def in_triggerers_thread(function: Callable[[], _T], what: str, seconds: float = PATIENCE) -> _T:
    """Run a function that calls Airflow from a trigger, for example for a connection.

    ``what`` is the subject of the question, for users. Raises TimeoutError after ``seconds``, and logs that.
    """
    # Airflow's answers arrive on the event loop. From a thread of asyncio's, older versions would wait on another one.
    from asgiref.sync import sync_to_async

    # Not in asgiref's one thread for all triggers of the process: a question without an answer would hold it.
    # asgiref only passes the executor on to the event loop, which takes any.
    own: Any = _OwnThreads()
    asking = sync_to_async(function, thread_sensitive=False, executor=own)
    # The question outlives its trigger: before 3.3, an answer that no one reads ends the whole triggerer.
    question: asyncio.Future[_T] = asyncio.ensure_future(asking())
    _asked.add(question)
    question.add_done_callback(_forget)
    done, _ = await asyncio.wait({question}, timeout=seconds)
    if not done:
        text = f"Airflow has not answered the question about {what} for {seconds:g} s"
        log.warning("%s. The trigger goes on without the answer.", text)
        raise TimeoutError(text)
    return question.result()


def _forget(question: asyncio.Future[Any]) -> None:
    _asked.discard(question)
    if not question.cancelled():
        # Otherwise asyncio would log the error of a question that no one waits for.
        question.exception()


def notifies_of_kill(trigger_class: type) -> bool:
    """Return whether this Airflow calls a trigger's ``on_kill`` for a user's action. Before 3.3, it does not."""
    from airflow.triggers.base import BaseTrigger

    return issubclass(trigger_class, BaseTrigger) and hasattr(BaseTrigger, "on_kill")


async def is_still_deferred(task_instance: Any) -> bool:
    """Return whether a task still waits for its trigger, so that the trigger's end is no action of a user.

    Returns True if Airflow does not answer: then another triggerer goes on with the trigger.
    """
    try:
        what = f"the state of task {task_instance.dag_id}.{task_instance.task_id}"
        states = await in_triggerers_thread(lambda: _states(task_instance), what, _SHORT_PATIENCE)
    except Exception:  # noqa: BLE001  At a shutdown, the connection to Airflow can fail in any way.
        return True
    return "deferred" in states


def _states(task_instance: Any) -> list[str]:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    found = RuntimeTaskInstance.get_task_states(
        dag_id=task_instance.dag_id,
        task_ids=[task_instance.task_id],
        run_ids=[task_instance.run_id],
        map_index=task_instance.map_index,
    )
    return [str(state) for states in found.values() for state in states.values()]
