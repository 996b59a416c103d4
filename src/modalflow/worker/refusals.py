"""Airflow's refusals to start a task, in words. Pure; knows errors of Airflow's client by their shape alone."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from modalflow.messages import State
from modalflow.reasons import Cause
from modalflow.worker.orders import Outcome

_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _CONFLICT, _GONE = 401, 403, 404, 409, 410
_SERVER_ERROR = 500


def refusal_of(error: BaseException, token: str) -> Outcome | None:
    """The outcome where Airflow's API refused the task's start for a reason that can be explained; else None.

    The outcome's reason is what Airflow said, for the container's main process to put into a sentence.
    """
    status = getattr(getattr(error, "response", None), "status_code", None)
    detail = getattr(error, "detail", None)
    if isinstance(detail, dict) and isinstance(detail.get("detail"), dict):
        # As the clients of Airflow 3.0 and 3.1 have it.
        detail = detail["detail"]
    if status in (_UNAUTHORIZED, _FORBIDDEN) and (ago := _expired_ago(token)) > 0:
        return Outcome(State.FAILED, reason=f"expired {ago:.0f} s ago", cause=Cause.TOKEN_EXPIRED)
    if status == _CONFLICT and isinstance(detail, dict) and detail.get("reason") == "invalid_state":
        state = str(detail.get("previous_state") or "no state")
        said = f"Airflow has it as {state!r}"
        return Outcome(State.SUCCESS, final_state=state, reason=said, cause=Cause.NOT_WANTED)
    if status in (_NOT_FOUND, _GONE) and isinstance(detail, dict) and detail.get("reason") == "not_found":
        said = "it was cleared, or its DAG run deleted"
        return Outcome(State.SUCCESS, reason=said, cause=Cause.NOT_WANTED)
    return None


def unreached(error: BaseException, url: str) -> Outcome | None:
    """The outcome where nobody at the API answered a task's start, or nobody but a server in trouble; else None."""
    away = any(
        kind.__name__ == "TransportError" and kind.__module__.startswith("httpx") for kind in type(error).__mro__
    )
    status = getattr(getattr(error, "response", None), "status_code", None)
    if away or (isinstance(status, int) and status >= _SERVER_ERROR):
        return Outcome(State.FAILED, reason=f"{url}: {type(error).__name__}: {error}", cause=Cause.API_UNREACHABLE)
    return None


def _expired_ago(token: str) -> float:
    """Seconds since a token's expiry, by this container's clock; negative where it is valid, or cannot be read."""
    try:
        payload = token.split(".")[1]
        claims: Any = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return time.time() - float(claims["exp"])
    except (IndexError, KeyError, TypeError, ValueError):
        return -1.0
