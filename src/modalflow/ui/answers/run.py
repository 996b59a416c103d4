"""The answer of ``GET /run/…``: a DAG run by container."""

from __future__ import annotations

from pydantic import BaseModel, Field

from modalflow.ui.answers.freshness import Freshness, Links


class Bar(BaseModel):
    """One function call in the chart."""

    task_id: str
    map_index: int = -1
    try_number: int = 0
    begins: float
    """When the container took it."""
    ready: float
    """When its process ran: ``begins`` to ``ready`` is the start, which is cold if ``cold``."""
    ends: float
    """Now, if it runs."""
    cold: bool = False
    running: bool = False
    outcome: str = ""
    function_call_id: str = ""
    dollars: float | None = None
    critical: bool = False


class ContainerRow(BaseModel):
    """One container, with the bars of this DAG run. Bars of one container may overlap: it can have several calls."""

    container_id: str
    profile: str = ""
    begins: float
    ends: float
    bars: list[Bar] = Field(default_factory=list)


class TaskCost(BaseModel):
    """What one task has cost, all its tries and map indexes together."""

    task_id: str
    calls: int = 0
    tries: int = 0
    seconds: float = 0.0
    """Of containers."""
    dollars: float | None = None


class PathStep(BaseModel):
    """One task instance on the critical path: what the end of the run waited for."""

    task_id: str
    map_index: int = -1
    begins: float
    ends: float
    wait: float = 0.0
    """Seconds between the end of the step before and its beginning."""


class RunAnswer(BaseModel):
    """What is known of one DAG run."""

    freshness: Freshness
    links: Links = Links()
    dag_id: str
    run_id: str
    state: str = ""
    begins: float = 0.0
    ends: float = 0.0
    """The ends of the chart's axis."""
    containers: list[ContainerRow] = Field(default_factory=list)
    """By their beginning."""
    waiting: int = 0
    """Task instances of this run that wait for Modal or are kept from it."""
    costs: list[TaskCost] = Field(default_factory=list)
    """The dearest first."""
    critical_path: list[PathStep] = Field(default_factory=list)
    """In the order of time."""
    dollars: float | None = None
    cold_starts: int = 0
    complete: bool = True
