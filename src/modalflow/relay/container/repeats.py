"""The meaning of answers to repeated requests: an earlier change is no failure.

After the loss of an answer, its request comes again, and the API server finds its own earlier work.
"""

from __future__ import annotations

import json
import re
from typing import Any

from modalflow.relay.messages import Answer, Request

_TASK_STATE = re.compile(r"task-instances/[^/?]+/state")
_CONNECTION_TEST = re.compile(r"connection-tests/[^/?]+")
_NEW_DAG_RUN = re.compile(r"dag-runs/[^/?]+/[^/?]+")

#: Reported states with other results in Airflow: a failed task waits for its retry.
_BECOMES = {"failed": {"failed", "up_for_retry"}}
#: Reported states of waiting tasks. Airflow may have queued the task again before a repeat of the report arrives.
_WAITING = frozenset({"deferred", "up_for_reschedule", "awaiting_input"})
_QUEUED_AGAIN = frozenset({"scheduled", "queued"})
#: The report of this state gives the task another id, so a repeat finds no task.
_GETS_ANOTHER_ID = "up_for_retry"


def understood(request: Request, answer: Answer, *, repeated: bool) -> Answer:
    """Return the answer to the first of several equal requests.

    ``repeated``: the request was sent more than once.
    """
    if _TASK_STATE.fullmatch(request.target):
        is_done = answer.status in (404, 409) and _is_reported(request, answer, repeated)
    else:
        is_done = repeated and _is_carried_out(request, answer.status)
    return Answer(204) if is_done else answer


def _is_carried_out(request: Request, status: int) -> bool:
    if status == 409:
        return (request.method == "POST" and _NEW_DAG_RUN.fullmatch(request.target) is not None) or (
            request.method == "PATCH" and _CONNECTION_TEST.fullmatch(request.target) is not None
        )
    return status == 404 and request.method == "DELETE"


def _is_reported(request: Request, answer: Answer, repeated: bool) -> bool:
    """Return whether an earlier message has reported this state of a task."""
    try:
        requested: Any = json.loads(request.body)
        state = str(requested["state"])
        if answer.status == 404:
            return repeated and state == _GETS_ANOTHER_ID
        found: Any = json.loads(answer.body)
        previous = found["detail"]["previous_state"]
    except (KeyError, TypeError, ValueError):
        return False
    if repeated and state in _WAITING and previous in _QUEUED_AGAIN:
        return True
    # Not only if it was repeated: an item can be doubled on the way, and the copy be answered first.
    return previous in _BECOMES.get(state, {state})
