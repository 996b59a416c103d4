"""Why Airflow did not let a task start, in words and with the right end."""

from __future__ import annotations

import base64
import json
import time
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from modalflow.messages import State
from modalflow.reasons import Cause
from modalflow.worker.refusals import refusal_of, unreached


class Refused(Exception):
    """As Airflow's client raises it."""

    def __init__(self, status: int, detail: Any = None) -> None:
        super().__init__("Invalid auth token")
        self.response = SimpleNamespace(status_code=status)
        self.detail = detail


def token(expires: float) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": expires}).encode()).decode().rstrip("=")
    return f"header.{claims}.signature"


@pytest.mark.parametrize("status", [401, 403])
def test_an_expired_token_is_the_reason(status: int) -> None:
    """The start failed because the task had waited for too long: not a bare 403."""
    outcome = refusal_of(Refused(status), token(time.time() - 61))
    assert outcome is not None
    assert (outcome.state, outcome.cause) == (State.FAILED, Cause.TOKEN_EXPIRED)
    assert "ago" in (outcome.reason or "")


def test_a_valid_token_has_not_expired() -> None:
    """A refusal of one stays what it is."""
    assert refusal_of(Refused(403), token(time.time() + 600)) is None


@pytest.mark.parametrize("given", ["", "no.token.", "a.b", "secret"])
def test_other_refusals_of_a_token_stay_what_they_are(given: str) -> None:
    """A token that cannot be read has not expired, as far as anybody can tell."""
    assert refusal_of(Refused(403), given) is None


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
    outcome = refusal_of(error, token(0))
    assert outcome is not None
    assert (outcome.state, outcome.cause) == (State.SUCCESS, Cause.NOT_WANTED)
    assert said in (outcome.reason or "")


def test_anything_else_is_not_explained_away() -> None:
    """An API that is ill, or a bug, keeps its own words."""
    for error in (Refused(500), Refused(409, "conflict"), Refused(404, "Not Found"), ValueError("no")):
        assert refusal_of(error, token(0)) is None


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
