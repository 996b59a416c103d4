"""The answer of ``GET /task/…``: all tries of a task instance, with their deferrals."""

from __future__ import annotations

from pydantic import BaseModel, Field

from modalflow.ui.answers.freshness import Freshness, Links


class Point(BaseModel):
    """One moment of a call."""

    name: str
    """scheduled, queued, handed_over, spawned, container_started, claimed, first_line, ended, or reported."""
    at: float


class Span(BaseModel):
    """The time between two points."""

    name: str
    """scheduled (scheduled → queued: a wait for a slot), airflow (queued → handed over), submitting, waiting (for a
    container), starting (the container), preparing (claimed → first line), running, reporting (ended → reported), or
    ending (reported → the end of its process)."""
    begins: float
    ends: float


class Amounts(BaseModel):
    """Resources: asked, granted or used. null is unknown."""

    cpu: float | None = None
    """Cores; for ``used``, the average."""
    cpu_peak: float | None = None
    memory_mib: float | None = None
    """For ``used``, the peak."""
    memory_limit_mib: float | None = None
    gpu: str = ""
    regions: list[str] = Field(default_factory=list)
    cloud: str = ""
    nonpreemptible: bool | None = None
    timeout: float | None = None
    """Seconds."""


class Samples(BaseModel):
    """CPU and memory over time, for a spark line. The three lists have one length.

    Those of a running call end when the container last published its log: later ones come with its next lines.
    """

    at: list[float] = Field(default_factory=list)
    cpu: list[float] = Field(default_factory=list)
    """Cores."""
    memory_mib: list[float] = Field(default_factory=list)


class Part(BaseModel):
    """One function call of a try. A try that deferred or rescheduled has several."""

    try_number: int
    number: int = 1
    """Of the parts of its try."""
    state: str
    """waiting, submitted, running or ended."""
    outcome: str = ""
    """As Airflow names it (success, failed, deferred, up_for_reschedule, …), or lost, or out-of-memory."""
    cause: str = ""
    reason: str = ""
    """Why it ended abnormally, or why it waits."""
    advice: str = ""
    """Advice of the table of reasons; empty if ``reason`` ends with it."""
    work_id: str = ""
    profile: str = ""
    image: str = ""
    region: str = ""
    """Where its container ran, if Modal reports it."""
    cloud: str = ""
    function_call_id: str = ""
    container_id: str = ""
    executor: str = ""
    """The place of its executor, while it runs or waits, for users who may see the cluster."""
    submissions: int = 0
    cold: bool = False
    """Whether its container was started for it."""
    points: list[Point] = Field(default_factory=list)
    """Those known, in the order of time."""
    spans: list[Span] = Field(default_factory=list)
    """Those between known points. They do not overlap."""
    asked: Amounts = Amounts()
    granted: Amounts = Amounts()
    used: Amounts = Amounts()
    samples: Samples = Samples()
    dollars: float | None = None
    """Estimated; null without a record or a rate."""
    unpriced: str = ""
    """The resource without a rate."""


class Try(BaseModel):
    """One try."""

    try_number: int
    state: str = ""
    """Airflow's state of it; empty if unknown."""
    parts: list[Part] = Field(default_factory=list)
    dollars: float | None = None


class TaskAnswer(BaseModel):
    """What is known of one task instance."""

    freshness: Freshness
    links: Links = Links()
    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    state: str = ""
    on_modal: bool = True
    """Whether it runs with modalflow's executor, as far as known; false: there is nothing to show."""
    cancellable: bool = False
    """Whether the user may cancel it, and there is something to cancel."""
    tries: list[Try] = Field(default_factory=list)
    """The newest first."""
    dollars: float | None = None
    complete: bool = True
    """Whether all records of its days have been read; otherwise more may come."""
