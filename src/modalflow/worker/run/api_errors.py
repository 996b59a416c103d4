"""Airflow's refusals to start a task, in words. Pure; knows errors of Airflow's client by their shape alone."""

from __future__ import annotations

from modalflow.protocol.messages import State
from modalflow.reasons import Cause
from modalflow.support.described import describe
from modalflow.worker.run.token_refusals import token_refusal
from modalflow.worker.zygote.protocol import Outcome

_NOT_FOUND, _CONFLICT, _GONE = 404, 409, 410
_SERVER_ERROR = 500


def refusal_of(error: BaseException, token: str, url: str, *, began: bool = False) -> Outcome | None:
    """Return the outcome if Airflow's API refused a request for a reason that can be explained; otherwise None.

    The outcome's reason is what Airflow said, for the container's main process to put into a sentence. ``began`` says
    that the API server had let the task start: from then on the token is another one, which the API server made.
    """
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    detail = getattr(error, "detail", None)
    if isinstance(detail, dict) and isinstance(detail.get("detail"), dict):
        # As the clients of Airflow 3.0 and 3.1 have it.
        detail = detail["detail"]
    if isinstance(status, int):
        date = str(getattr(response, "headers", {}).get("date") or "")
        refused = token_refusal(status, _answer(error, detail), "" if began else token, date)
        if refused is not None and began and refused.cause is not Cause.PROXY_REFUSED:
            return Outcome(State.FAILED, reason=f"{url}: {refused.said}{_LATE}", cause=Cause.TOKEN_REFUSED)
        if refused is not None:
            return Outcome(State.FAILED, reason=f"{url}: {refused.said}", cause=refused.cause)
    if began:
        return None
    if status == _CONFLICT and isinstance(detail, dict) and detail.get("reason") == "invalid_state":
        state = str(detail.get("previous_state") or "no state")
        said = f"Airflow has it as {state!r}"
        return Outcome(State.SUCCESS, final_state=state, reason=said, cause=Cause.NOT_WANTED)
    if status in (_NOT_FOUND, _GONE) and isinstance(detail, dict) and detail.get("reason") == "not_found":
        said = "it was cleared, or its DAG run deleted"
        return Outcome(State.SUCCESS, reason=said, cause=Cause.NOT_WANTED)
    return None


#: What a refusal after the start means.
_LATE = (
    ". It had let the task start, so its own settings have changed since then, or there are several API servers whose "
    "settings differ"
)


def _answer(error: BaseException, detail: object) -> str:
    """What the API server said. Airflow's client makes it the error's text; httpx has a text of its own instead."""
    if isinstance(detail, dict):
        detail = detail.get("detail", detail)
    if isinstance(detail, str):
        return detail
    return "" if type(error).__module__.startswith("httpx") else str(error)


def unreached(error: BaseException, url: str) -> Outcome | None:
    """The outcome if no one at the API answered a task's start, or only a server in trouble did; otherwise None."""
    away = any(
        kind.__name__ == "TransportError" and kind.__module__.startswith("httpx") for kind in type(error).__mro__
    )
    status = getattr(getattr(error, "response", None), "status_code", None)
    if away or (isinstance(status, int) and status >= _SERVER_ERROR):
        return Outcome(State.FAILED, reason=f"{url}: {describe(error)}", cause=Cause.API_UNREACHABLE)
    return None
