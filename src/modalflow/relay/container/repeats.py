"""The meaning of answers to repeated requests: an earlier change is no failure.

After the loss of an answer, its request comes again, and the API server finds its own earlier work.
"""

from __future__ import annotations

import json
import re
from typing import Any

from modalflow.relay.messages import Answer, Request

_TASK_STATE = re.compile(r"task-instances/[^/?]+/state")
_NEW_DAG_RUN = re.compile(r"dag-runs/[^/?]+/[^/?]+")

#: Reported states with other results in Airflow: a failed task waits for its retry.
_BECOMES = {"failed": {"failed", "up_for_retry"}}


def understood(request: Request, answer: Answer, *, repeated: bool) -> Answer:
    """Return the answer to the first of several equal requests.

    ``repeated``: the request was sent more than once.
    """
    if answer.status == 409 and _TASK_STATE.fullmatch(request.target) and _is_in_requested_state(request, answer):
        # Not only if it was repeated: an item can be doubled on the way, and the copy be answered first.
        return Answer(204)
    if not repeated:
        return answer
    if answer.status == 409 and request.method == "POST" and _NEW_DAG_RUN.fullmatch(request.target):
        return Answer(204)
    if answer.status == 404 and request.method == "DELETE":
        return Answer(204)
    return answer


def _is_in_requested_state(request: Request, answer: Answer) -> bool:
    try:
        requested: Any = json.loads(request.body)
        found: Any = json.loads(answer.body)
        state, previous = requested["state"], found["detail"]["previous_state"]
    except (KeyError, TypeError, ValueError):
        return False
    return isinstance(state, str) and previous in _BECOMES.get(state, {state})
