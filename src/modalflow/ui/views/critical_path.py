"""The critical path of a DAG run: the task instances that its end waited for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modalflow.ui.answers.run import PathStep
from modalflow.ui.sources.airflow_rows import InstanceRow

#: No path is longer in an answer.
_MOST = 1_000


def critical_path(instances: Sequence[InstanceRow], upstream: Mapping[str, frozenset[str]]) -> list[PathStep]:
    """Return the path, in the order of time: from the task that ended last, always the latest one it waited for.

    Tasks without an own time, such as skipped ones, are passed through.
    """
    latest: dict[str, InstanceRow] = {}
    for each in instances:
        if each.started_at and each.ended_at >= latest.get(each.task_id, each).ended_at:
            latest[each.task_id] = each
    if not latest:
        return []
    step: InstanceRow | None = max(latest.values(), key=lambda each: (each.ended_at, each.started_at))
    path: list[InstanceRow] = []
    while step is not None and len(path) < _MOST:
        path.append(step)
        waited_for = _with_times(upstream.get(step.task_id, frozenset()), latest, upstream)
        step = max(waited_for, key=lambda each: each.ended_at, default=None)
    path.reverse()
    ends = [each.ended_at for each in path]
    return [
        PathStep(
            task_id=each.task_id,
            map_index=each.map_index,
            begins=each.started_at,
            ends=each.ended_at,
            wait=max(0.0, each.started_at - ends[number - 1]) if number else 0.0,
        )
        for number, each in enumerate(path)
    ]


def _with_times(
    task_ids: frozenset[str], latest: Mapping[str, InstanceRow], upstream: Mapping[str, frozenset[str]]
) -> list[InstanceRow]:
    """Return the nearest tasks upstream that have run and ended."""
    found: list[InstanceRow] = []
    seen: set[str] = set()
    left = list(task_ids)
    while left:
        task_id = left.pop()
        if task_id in seen:
            continue
        seen.add(task_id)
        row = latest.get(task_id)
        if row is not None and row.ended_at:
            found.append(row)
        else:
            left += upstream.get(task_id, frozenset())
    return found
