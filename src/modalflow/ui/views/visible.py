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

    def sees(self, dag_id: str) -> bool:
        """Return whether the user may see work of this DAG; of no DAG if the id is empty."""
        return dag_id in self.dag_ids or self.everything
