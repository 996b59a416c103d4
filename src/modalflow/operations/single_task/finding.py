"""A task or a try by the words of a user, with the nearest names if there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from modalflow.airflow_compat.reading import task_instances
from modalflow.airflow_compat.reading.task_instances import TaskTryRecord
from modalflow.operations.targets import NothingMatchesError, nearest

#: Names in an error if none is similar.
_NAMED = 5


@dataclass(frozen=True)
class NamedTry:
    """The words of a user: a try of a task instance. None stands for the newest try, or the only instance."""

    dag_id: str
    task_id: str
    run_id: str
    map_index: int | None = None
    number: int | None = None


def find_try(wanted: NamedTry) -> TaskTryRecord:
    """Return a try. NothingMatchesError names what there is instead."""
    dag_id, task_id, run_id = wanted.dag_id, wanted.task_id, wanted.run_id
    indexes = task_instances.map_indexes(dag_id, task_id, run_id)
    if not indexes:
        raise NothingMatchesError(_why_none(wanted))
    index = _index(wanted, indexes)
    found = task_instances.task_try(dag_id, task_id, run_id, index, wanted.number)
    if found is None:
        there = ", ".join(map(str, task_instances.tries(dag_id, task_id, run_id, index)))
        raise NothingMatchesError(f"{dag_id}.{task_id} run {run_id} has no try {wanted.number}. Tries: {there}.")
    return found


def find_planned(dag_id: str, task_id: str, map_index: int | None) -> Any:
    """Return the task instance that a run of the newest version of a DAG would have. NothingMatchesError as above."""
    found = task_instances.planned_instance(dag_id, task_id, "next", -1 if map_index is None else map_index)
    if found is None:
        raise NothingMatchesError(_unknown_task(dag_id, task_id, lambda: task_instances.task_ids(dag_id)))
    return found


def _index(wanted: NamedTry, indexes: Sequence[int]) -> int:
    index = -1 if wanted.map_index is None else wanted.map_index
    if index in indexes:
        return index
    name = f"{wanted.dag_id}.{wanted.task_id} run {wanted.run_id}"
    if indexes == [-1]:
        raise NothingMatchesError(f"{name} is not mapped: leave --map-index out.")
    there = f"{min(indexes)} to {max(indexes)}" if len(indexes) > 1 else str(indexes[0])
    if wanted.map_index is None:
        raise NothingMatchesError(f"{name} is mapped: name one instance with --map-index ({there}).")
    raise NothingMatchesError(f"{name} has no instance {index}. There are: {there}.")


def _why_none(wanted: NamedTry) -> str:
    dag_id, run_id = wanted.dag_id, wanted.run_id
    runs = task_instances.run_ids(dag_id)
    if runs and run_id not in runs:
        return f"DAG {dag_id!r} has no run {run_id!r}.{_hint('runs', run_id, runs)}"
    return _unknown_task(dag_id, wanted.task_id, lambda: task_instances.run_task_ids(dag_id, run_id), run_id)


def _unknown_task(dag_id: str, task_id: str, tasks: Callable[[], Sequence[str]], run_id: str = "") -> str:
    dags = task_instances.dag_ids()
    if dag_id not in dags:
        return (
            f"Airflow's database has no DAG {dag_id!r}.{_hint('DAGs', dag_id, dags)} Airflow's DAG processor adds a "
            "DAG after it has read the file; `airflow dags list-import-errors` shows files that it cannot read."
        )
    there = tasks()
    if not there:
        return f"DAG {dag_id!r} has no {'run' if run_id else 'version in the database'} yet."
    where = f"Run {run_id!r} of DAG" if run_id else "DAG"
    return f"{where} {dag_id!r} has no task {task_id!r}.{_hint('tasks', task_id, there)}"


def _hint(what: str, wanted: str, there: Sequence[str]) -> str:
    near = nearest(wanted, there)
    if near:
        return f" Nearest {what}: {', '.join(near)}."
    return f" Known {what}: {', '.join(there[:_NAMED])}." if there else f" It has no {what}."
