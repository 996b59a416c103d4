"""The answer of ``GET /overview``."""

from __future__ import annotations

from pydantic import BaseModel, Field

from modalflow.ui.answers.freshness import Freshness, Links


class Viewer(BaseModel):
    """What the user may do."""

    manage: bool = False
    """Pause, resume and drain profiles."""
    examine: bool = False
    """Run the doctor."""
    executors: bool = True
    """See executors and their texts."""


class ExecutorRow(BaseModel):
    """One executor: a scheduler's process."""

    id: str
    place: str
    """host/pid"""
    team: str = ""
    version: str = ""
    alive_since: float = 0.0
    reported_at: float = 0.0
    silent: bool = False
    """Whether it has not reported for minutes: killed, or cut off from Modal."""
    in_flight: int = 0
    waiting: int = 0
    submitted: int = 0
    held: int = 0
    """Calls that wait because of budgets; part of ``waiting``."""
    obstacle: str = ""
    """Why Modal takes nothing at present."""
    trouble: str = ""
    """Its last warning or error."""
    trouble_at: float = 0.0


class ProfileRow(BaseModel):
    """One deployed profile. Counts of work are those of DAGs that the user may read."""

    name: str
    containers: int | None = 0
    """null, as ``backlog``, if the user may not see the work of all teams: Modal has no figures of one team."""
    backlog: int | None = 0
    """Inputs on Modal that no container has taken."""
    running: int = 0
    submitted: int = 0
    """On Modal, not claimed by a container."""
    waiting: int = 0
    """Kept from Modal by an executor."""
    state: str = "active"
    """active; paused: its tasks wait, and running ones go on; draining: the same, and a user waits for their end; or
    drained: nothing of it runs."""
    state_by: str = ""
    state_since: float = 0.0
    state_reason: str = ""
    """The user's words."""
    limits: dict[str, str] = Field(default_factory=dict)
    """Limit → its text, for example ``max_containers`` → ``100``."""
    resources: dict[str, str] = Field(default_factory=dict)
    """Resource → its text, for example ``gpu`` → ``H100:2``."""
    dollars_per_hour: float | None = None
    """Of one container with its reservation; null without a rate."""
    problem: str = ""
    """Why Modal's figures are missing."""


class BudgetRow(BaseModel):
    """One budget, and its balance."""

    scope: str
    """dag, profile, team or all."""
    subject: str = ""
    per: str = "day"
    """day or month."""
    dollars: float = 0.0
    """The limit."""
    spent: float = 0.0
    """By ended work in this period."""
    running: float = 0.0
    """By running work, so far."""
    left: float = 0.0
    action: str = "warn"
    """warn, hold or refuse."""
    used_up: bool = False


class LossRow(BaseModel):
    """One lost or failed piece of work."""

    at: float
    cause: str
    reason: str
    dag_id: str = ""
    task_id: str = ""
    run_id: str = ""
    map_index: int = -1
    try_number: int = 0


class LossGroup(BaseModel):
    """The losses of one cause in the last days, the newest first."""

    cause: str
    what: str
    """The sentence of the table of reasons."""
    advice: str = ""
    number: int = 0
    losses: list[LossRow] = Field(default_factory=list)
    """The newest ones, at most ten."""


class RelayRow(BaseModel):
    """One relay of the Execution API."""

    name: str
    reported_at: float = 0.0
    silent: bool = False
    problem: str = ""


class Overview(BaseModel):
    """The state of all executors, profiles and budgets."""

    freshness: Freshness
    links: Links = Links()
    viewer: Viewer = Viewer()
    app: str = ""
    environment: str = ""
    version: str = ""
    """modalflow's version on the API server."""
    worker_version: str = ""
    """That of the deployed worker."""
    executors: list[ExecutorRow] = Field(default_factory=list)
    profiles: list[ProfileRow] = Field(default_factory=list)
    budgets: list[BudgetRow] = Field(default_factory=list)
    losses: list[LossGroup] = Field(default_factory=list)
    relays: list[RelayRow] = Field(default_factory=list)
    totals: dict[str, int] = Field(default_factory=dict)
    """State of work (running, submitted, waiting) → number, of DAGs that the user may read."""
