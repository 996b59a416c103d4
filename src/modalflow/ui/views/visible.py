"""What a user may see."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass


@dataclass(frozen=True)
class Visible:
    """The DAGs that a user may read."""

    dag_ids: Set[str]
    everything: bool = False
    """Whether these are all DAGs: then also work of no DAG, work of deleted DAGs, and texts that may name any DAG."""
    cluster: bool = False
    """Whether the user may see Airflow's cluster activity: executors and their hosts, budgets of all work, relays."""
    teams: Set[str] | None = None
    """The user's teams; None if Airflow has no teams, or if the user belongs to all of them."""

    def sees(self, dag_id: str) -> bool:
        """Return whether the user may see work of this DAG; of no DAG if the id is empty."""
        return dag_id in self.dag_ids or self.everything

    def sees_team(self, team: str) -> bool:
        """Return whether the user may see what is of this team; of no team if the name is empty."""
        return self.teams is None or not team or team in self.teams

    @property
    def sees_all_teams(self) -> bool:
        """Whether the user may see sums over the work of all teams."""
        return self.teams is None
