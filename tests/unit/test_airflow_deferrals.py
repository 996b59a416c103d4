"""A trigger without a triggerer: its first event, and the arguments with which the task resumes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from airflow.triggers import base
from airflow.triggers.base import BaseTrigger

from modalflow.airflow_compat.reading.deferrals import _decoded, _encoded, fire

#: Without annotations in Airflow.
TriggerEvent: Any = base.TriggerEvent
TaskSuccessEvent: Any = base.TaskSuccessEvent


class Echo(BaseTrigger):
    """Fires with its argument, more than once."""

    def __init__(self, what: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # As above.
        self.what = what

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.Echo", {"what": self.what}

    async def run(self) -> AsyncIterator[Any]:
        if self.what == "end":
            yield TaskSuccessEvent(xcoms={"return_value": 3})
        if self.what == "error":
            raise ValueError("no such file")
        yield TriggerEvent(self.what)
        yield TriggerEvent("too late")


def deferred(what: str, **kwargs: object) -> dict[str, Any]:
    """The body with which a task defers itself to an Echo."""
    return {
        "classpath": f"{__name__}.Echo",
        "trigger_kwargs": _encoded({"what": what}),
        "next_method": "go_on",
        "next_kwargs": _encoded(kwargs),
    }


def test_the_first_event_resumes_the_task() -> None:
    """With the arguments of the deferral, of whatever type, and the event's payload."""
    fired = fire(deferred("hello", after=timedelta(hours=1)))
    assert (fired.next_call["next_method"], fired.final_state) == ("go_on", "")
    assert _decoded(fired.next_call["next_kwargs"]) == {"after": timedelta(hours=1), "event": "hello"}


def test_an_event_can_end_the_task() -> None:
    """Without a resumption, and with XComs."""
    fired = fire(deferred("end"))
    assert (fired.final_state, fired.xcoms) == ("success", {"return_value": 3})


def test_an_error_of_the_trigger_is_raised() -> None:
    """For the reason of the replay."""
    with pytest.raises(ValueError, match="no such file"):
        fire(deferred("error"))
