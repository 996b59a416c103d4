"""Why Airflow did not let a task start, in words and with the right end."""

from __future__ import annotations

import base64
import json
import time
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from modalflow.protocol.messages import State
from modalflow.reasons import Cause
from modalflow.worker.run.api_errors import refusal_of, unreached

URL = "http://airflow/execution/"


class Refused(Exception):
    """As Airflow's client raises it."""

    def __init__(self, status: int, detail: Any = None) -> None:
        super().__init__("Invalid auth token")
        self.response = SimpleNamespace(status_code=status)
        self.detail = detail


def token(expires: float) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": expires}).encode()).decode().rstrip("=")
    return f"header.{claims}.signature"


@pytest.mark.parametrize(
    ("error", "given", "cause"),
    [
        (Refused(403), -61, Cause.TOKEN_EXPIRED),
        (Refused(403), 600, Cause.TOKEN_REFUSED),
        (Refused(403), "no.token.", Cause.TOKEN_REFUSED),
        (Refused(407, "Log in first"), 600, Cause.PROXY_REFUSED),
        # As the client of Airflow 3.0 to 3.2 has it.
        (Refused(403, {"detail": "Invalid auth token: Signature has expired"}), "", Cause.TOKEN_EXPIRED),
    ],
    ids=["expired", "refused", "no token", "a proxy's", "Airflow 3.0's expired"],
)
def test_a_refused_token_names_the_cause_and_the_server(error: Refused, given: str | int, cause: Cause) -> None:
    """Not a bare 403: why, and which API server said so. ``given`` is a token, or the seconds until one expires."""
    # Made here: between the collection of the tests and this one, a token may expire.
    outcome = refusal_of(error, given if isinstance(given, str) else token(time.time() + given), URL)
    assert outcome is not None
    assert (outcome.state, outcome.cause) == (State.FAILED, cause)
    assert (outcome.reason or "").startswith(f"{URL}: it ")


def test_a_refusal_after_the_start_is_of_another_token() -> None:
    """The API server made that token itself, so no clock and no setting of the scheduler is the cause."""
    outcome = refusal_of(Refused(403), token(time.time() - 61), URL, started=True)
    assert outcome is not None
    assert outcome.cause == Cause.TOKEN_REFUSED and "several API servers" in (outcome.reason or "")
    assert refusal_of(Refused(404, {"reason": "not_found"}), "", URL, started=True) is None


def test_a_login_page_is_no_refusal_of_airflow() -> None:
    """A proxy's page comes as httpx's own error, whose text names no token."""
    response = httpx.Response(401, text="<html>Log in</html>", request=httpx.Request("PATCH", URL))
    outcome = refusal_of(httpx.HTTPStatusError("401", request=response.request, response=response), "", URL)
    assert outcome is not None and outcome.cause == Cause.PROXY_REFUSED


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Refused(409, {"reason": "invalid_state", "previous_state": "failed"}), "'failed'"),
        (Refused(409, {"reason": "invalid_state", "previous_state": None}), "'no state'"),
        (Refused(404, {"reason": "not_found"}), "cleared"),
    ],
)
def test_a_task_that_is_no_longer_wanted_did_not_fail(error: Refused, said: str) -> None:
    """Marked or cleared while it waited: it does not run, and Airflow is told no failure."""
    outcome = refusal_of(error, token(0), URL)
    assert outcome is not None
    assert (outcome.state, outcome.cause) == (State.SUCCESS, Cause.NOT_WANTED)
    assert said in (outcome.reason or "")


def test_anything_else_is_not_explained_away() -> None:
    """An API that is ill, or a bug, keeps its own words."""
    for error in (Refused(500), Refused(409, "conflict"), Refused(404, "Not Found"), ValueError("no")):
        assert refusal_of(error, token(0), URL) is None


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (httpx.ConnectError("refused"), True),
        (httpx.ReadTimeout("slow"), True),
        (Refused(503), True),
        (Refused(409, {"reason": "invalid_state"}), False),
        (ValueError("a bug"), False),
    ],
)
def test_an_api_that_does_not_answer_is_told_from_one_that_refuses(error: Exception, away: bool) -> None:
    """Where nobody answered nothing has run: the executor may submit it again at no retry's cost."""
    outcome = unreached(error, "http://airflow/execution/")
    assert (outcome is not None) == away
    if outcome is not None:
        assert (outcome.state, outcome.cause) == (State.FAILED, Cause.API_UNREACHABLE)
        assert "http://airflow/execution/" in (outcome.reason or "")
