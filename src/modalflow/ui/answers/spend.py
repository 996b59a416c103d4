"""The answer of ``GET /spend``: series for a chart."""

from __future__ import annotations

from pydantic import BaseModel, Field

from modalflow.ui.answers.freshness import Freshness


class Series(BaseModel):
    """The dollars of one DAG or profile."""

    name: str
    """``(none)`` for work outside of DAGs; ``(others)`` for all beyond the largest ones."""
    dollars: list[float]
    """One figure for each of ``days``."""
    total: float
    calls: int = 0


class Spend(BaseModel):
    """Estimated dollars of ended work, of DAGs that the user may read."""

    freshness: Freshness
    by: str
    """dag, profile, or day: one series with everything."""
    days: list[str] = Field(default_factory=list)
    """ISO dates in ``time_zone``, the oldest first, without gaps."""
    time_zone: str = "UTC"
    series: list[Series] = Field(default_factory=list)
    """The largest first, at most 20."""
    total: float = 0.0
    calls: int = 0
    rates: str = ""
    """The source of the rates."""
    unpriced: dict[str, int] = Field(default_factory=dict)
    """Resource without a rate → number of calls that ``total`` lacks."""
    complete: bool = True
    """Whether all records of the days have been read; otherwise the figures still grow."""
