"""The critical path: the task instances that the end of a run waited for."""

from __future__ import annotations

from modalflow.ui.sources.airflow_rows import InstanceRow
from modalflow.ui.views.critical_path import critical_path


def row(task_id: str, begins: float, ends: float, map_index: int = -1) -> InstanceRow:
    return InstanceRow(task_id, map_index, "success" if ends else "running", begins, ends)


def test_it_follows_the_latest_of_what_each_task_waited_for() -> None:
    """Not the longest task, and not one that nothing waited for."""
    instances = [row("a", 10, 20), row("long", 10, 28), row("b", 21, 30), row("late", 10, 35), row("end", 31, 40)]
    upstream = {"b": frozenset({"a"}), "end": frozenset({"b", "long"}), "a": frozenset[str]()}
    path = critical_path(instances, upstream)
    assert [(step.task_id, step.wait) for step in path] == [("a", 0), ("b", 1), ("end", 1)]


def test_a_mapped_task_counts_by_its_last_instance() -> None:
    """All of them had to end."""
    instances = [row("map", 1, 5, 0), row("map", 1, 9, 1), row("sum", 10, 11)]
    path = critical_path(instances, {"sum": frozenset({"map"})})
    assert [(step.task_id, step.map_index) for step in path] == [("map", 1), ("sum", -1)]


def test_a_skipped_task_is_passed_through() -> None:
    """It has no time of its own."""
    instances = [row("a", 1, 5), row("skipped", 0, 0), row("end", 6, 7)]
    path = critical_path(instances, {"end": frozenset({"skipped"}), "skipped": frozenset({"a"})})
    assert [step.task_id for step in path] == ["a", "end"]


def test_a_run_without_times_has_none() -> None:
    """Nothing has begun."""
    assert critical_path([row("a", 0, 0)], {}) == []
