"""Reasons are sentences, each cause has one, and the page about them is up to date."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from modal import exception

from modalflow import reasons
from modalflow.executor.modal_api.call_status import call_status_of
from modalflow.reasons import Cause, explain

PAGE = Path(__file__).parents[2] / "docs" / "lost-work.md"


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("where", [{}, {"container": "ta-1", "call": "fc-1"}])
def test_every_cause_has_a_sentence(cause: Cause, where: dict[str, str]) -> None:
    """It begins with a capital, ends with a full stop, and reads well where nothing is known of where it was."""
    reason = explain(cause, detail="Modal's words", **where)
    assert reason[0].isupper() and reason.endswith(".")
    assert "Modal's words" in reason and "{" not in reason.replace('{"modal"', "").replace('{"memory"', "").replace(
        '{"timeout"', ""
    )
    assert reasons.cause_of(reason) is reasons.cause_of(copy.deepcopy(reason)) is cause


def test_the_page_is_up_to_date() -> None:
    """docs/lost-work.md has the table as the code has it."""
    assert reasons.table() in PAGE.read_text(), "run `make docs`"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (exception.RemoteError("container ta-1 ran out of memory: 9 MiB in use"), Cause.OUT_OF_MEMORY),
        (exception.RemoteError("Task's memory limit was exceeded"), Cause.OUT_OF_MEMORY),
        (exception.RemoteError("App ap-1 was stopped"), Cause.APP_STOPPED),
        (exception.RemoteError("container ta-1 exited with signal 9 (SIGKILL) while running"), Cause.CONTAINER_LOST),
        (exception.RemoteError("container ta-1 exited with code 1 before it took an input"), Cause.NOT_STARTABLE),
        (exception.ExecutionError("... ImportError: libpq.so.5"), Cause.NOT_STARTABLE),
        (exception.RemoteError("a user cancelled input in-1"), Cause.CANCELLED),
        (exception.RemoteError(""), Cause.CANCELLED),
        (exception.RemoteError("whatever"), Cause.OTHER),
        (exception.FunctionTimeoutError("Timed out: ran for 2 s"), Cause.FUNCTION_TIMEOUT),
        (exception.OutputExpiredError(), Cause.OUTPUT_EXPIRED),
        (exception.NotFoundError("no function call"), Cause.CALL_UNKNOWN),
        (exception.InternalFailure("oops"), Cause.MODAL_FAILURE),
    ],
)
def test_modals_words_choose_the_advice(error: Exception, cause: Cause) -> None:
    """Whatever it is taken for, Modal's words are passed on."""
    status = call_status_of(error)
    assert status.ended and status.cause is cause
    assert cause is Cause.OUTPUT_EXPIRED or str(error) in status.reason
