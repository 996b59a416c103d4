"""The requests and answers of ``POST /actions/…``."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field


class Cancel(BaseModel):
    """The work to cancel: ids from the table of work, or of a task instance's parts."""

    # The limit of each also refuses half a character (a lone surrogate), which no answer could repeat.
    work_ids: list[Annotated[str, Field(max_length=1000)]] = Field(min_length=1, max_length=100)


class Cancelled(BaseModel):
    """The result for one work id."""

    work_id: str
    done: bool
    """Whether nothing of it runs any more, and nothing will."""
    how: str
    """The end of a sentence: "ended after 1.2 s"."""


class CancelAnswer(BaseModel):
    """The results, in the order of the request."""

    results: list[Cancelled]


class Hold(BaseModel):
    """Why a profile is paused or drained, for everyone whose tasks wait."""

    reason: str = Field("", max_length=300)


class ProfileAnswer(BaseModel):
    """The state of a profile after the action. Executors follow within five seconds."""

    name: str
    state: str
    """active, paused or draining."""
    state_by: str = ""
    state_since: float = 0.0
    state_reason: str = ""
    changed: bool = True
    """Whether it was in another state before."""


class Finding(BaseModel):
    """One line of the doctor's answer, which is a stream: JSON texts, one a line (application/x-ndjson)."""

    name: str
    status: str
    """ok, warn, fail or skip."""
    detail: str = ""
    advice: str = ""
    seconds: float | None = None


class Problem(BaseModel):
    """The body of every error (400, 401, 403, 404, 409, 503): as FastAPI has it."""

    detail: str
