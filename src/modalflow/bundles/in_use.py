"""The versions of DAG bundles that Airflow still needs. Reads Airflow's database and writes nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from modalflow.errors import BundleError
from modalflow.support.described import describe


def versions_in_use() -> Mapping[str, set[str]]:
    """Return the versions of unfinished DAG runs: bundle → versions. Raises BundleError."""
    try:
        from airflow.models.dag import DagModel
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session
        from airflow.utils.state import DagRunState
        from sqlalchemy import select

        ended = (DagRunState.SUCCESS, DagRunState.FAILED)
        query = (
            select(DagModel.bundle_name, DagRun.bundle_version)
            .join(DagModel, DagModel.dag_id == DagRun.dag_id)
            .where(DagRun.state.not_in(ended), DagRun.bundle_version.is_not(None))
            .distinct()
        )
        with create_session() as session:
            rows = session.execute(query).all()
    except Exception as error:
        raise BundleError(
            f"The versions that DAG runs need cannot be read from Airflow's database ({describe(error)}), so nothing "
            "is removed. Run this command where the scheduler runs."
        ) from error
    found: defaultdict[str, set[str]] = defaultdict(set)
    for bundle, version in rows:
        found[str(bundle)].add(str(version))
    return found
