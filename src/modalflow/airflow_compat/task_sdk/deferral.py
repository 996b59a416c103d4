"""Deferral of a task, by version of Airflow: the calls of a triggerer's trigger into Airflow, and its cancellation.

Cheap to import: functions import Airflow's own modules at their use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

_T = TypeVar("_T")

#: Seconds for the question about a task's state when its trigger ends. At its shutdown, a triggerer may not answer.
_PATIENCE = 10.0

#: Questions without an answer. The event loop itself keeps no task alive.
_asked: set[asyncio.Future[Any]] = set()


async def in_triggerers_thread(function: Callable[[], _T]) -> _T:
    """Run a function that calls Airflow from a trigger, for example for a connection."""
    # Airflow's answers arrive on the event loop. From a thread of asyncio's, older versions would wait on another one.
    from asgiref.sync import sync_to_async

    # The question outlives its trigger: before 3.3, an answer that no one reads ends the whole triggerer.
    question = asyncio.ensure_future(sync_to_async(function)())
    _asked.add(question)
    question.add_done_callback(_asked.discard)
    return await asyncio.shield(question)


def notifies_of_kill(trigger_class: type) -> bool:
    """Return whether this Airflow calls a trigger's ``on_kill`` for a user's action. Before 3.3, it does not."""
    from airflow.triggers.base import BaseTrigger

    return issubclass(trigger_class, BaseTrigger) and hasattr(BaseTrigger, "on_kill")


async def is_still_deferred(task_instance: Any) -> bool:
    """Return whether a task still waits for its trigger, so that the trigger's end is no action of a user.

    Returns True if Airflow does not answer: then another triggerer goes on with the trigger.
    """
    try:
        async with asyncio.timeout(_PATIENCE):
            states = await in_triggerers_thread(lambda: _states(task_instance))
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
