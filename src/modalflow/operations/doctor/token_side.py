"""Tests of Airflow's API with tokens of this machine, from this machine and from inside a container.

A trial requests the start of a missing task instance, so it changes nothing. Its token lives for minutes and has no
other use. It goes to containers as a workload's token does.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modalflow.config.urls import without_user
from modalflow.errors import ModalflowError
from modalflow.operations.doctor.findings import Finding, fail, ok, skip, timed, warn
from modalflow.operations.site import PATIENCE, within
from modalflow.reasons import EXPLANATIONS, Cause, cause_of
from modalflow.support.described import describe
from modalflow.worker.run.api_errors import token_refusal

NAME = "task token"
IN_CONTAINER = "task token in the container"

_URL = "AIRFLOW__CORE__EXECUTION_API_SERVER_URL"

#: Validity of a token in seconds, in addition to the container's time limit.
_SPARE = 60.0


@dataclass(frozen=True)
class Trial:
    """A token for a test, and its task instance, which does not exist."""

    ti_id: str
    origin: str
    """The source of this machine's signing key."""
    token: str = field(repr=False)


def prepare(conf: Any | None, timeout: float, why_not: str) -> tuple[Trial | None, Finding | None]:
    """Sign a token as the scheduler of this machine's configuration does; otherwise return the obstacle."""
    if conf is None:
        return None, skip(NAME, why_not)
    from modalflow.airflow_compat import tokens

    ti_id = str(uuid.uuid4())
    try:
        token = tokens.trial_token(ti_id, timeout + _SPARE)
    except ModalflowError as error:
        return None, warn(
            NAME,
            f"cannot sign a token. {error}",
            "Run the doctor with the scheduler's environment and airflow.cfg. A scheduler that cannot sign a token "
            "cannot queue a task.",
        )
    return Trial(ti_id, tokens.origin_of_the_key(), token), None


def from_here(trial: Trial, env: Mapping[str, str]) -> Finding:
    """Test the token from this machine. It may not reach the containers' address."""
    from modalflow.airflow_compat.task_sdk.api_client import http_library
    from modalflow.airflow_compat.tokens import Answer, try_token

    http = http_library()
    url = env.get(_URL, "")
    if not url:
        return skip(NAME, "not tested from here: the address of the Execution API is unknown")
    try:
        answer, seconds = timed(lambda: within(PATIENCE, lambda: try_token(url, trial.token, trial.ti_id)))
    except (http.HTTPError, http.InvalidURL, OSError, ValueError) as error:
        return skip(NAME, f"not tested from here: cannot reach {without_user(url)} ({describe(error)})")
    assert isinstance(answer, Answer)
    if answer.accepted:
        return ok(NAME, _accepted(trial, url), seconds)
    refused = token_refusal(answer.status, answer.text, trial.token, answer.date)
    if refused is None:
        return skip(NAME, f"not tested from here: {without_user(url)} answered {answer.status}")
    return _refused(NAME, trial, url, refused.cause, refused.detail)


def from_container(trial: Trial | None, env: Mapping[str, str], seen: Any, absence: str) -> Finding | None:
    """Return the finding of a container's try; None if there was nothing to try.

    ``absence`` is the reason if the container reported no try.
    """
    if trial is None:
        return None
    if not isinstance(seen, dict):
        return skip(IN_CONTAINER, absence)
    url = env.get(_URL, "")
    if seen.get("accepted") is True:
        return ok(IN_CONTAINER, _accepted(trial, url), float(seen.get("seconds") or 0))
    if seen.get("cause"):
        return _refused(IN_CONTAINER, trial, url, cause_of(seen["cause"]), str(seen.get("said"))[:500])
    # Why the API cannot be reached is a finding of the check of its health.
    why = str(seen.get("error") or f"it answered {seen.get('status')}")[:300]
    return skip(IN_CONTAINER, f"not tested: {why}")


def _accepted(trial: Trial, url: str) -> str:
    return f"{without_user(url)} accepts tokens signed by this machine with {trial.origin}"


def _refused(name: str, trial: Trial, url: str, cause: Cause, detail: str) -> Finding:
    whose = f"a token signed by this machine with {trial.origin}"
    if cause is Cause.PROXY_REFUSED:
        whose = "a request with a task's token, or a proxy in front of it did"
    return fail(name, f"{without_user(url)} refused {whose}: {detail}", EXPLANATIONS[cause].do)
