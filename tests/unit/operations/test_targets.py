"""Which work a user means."""

from __future__ import annotations

import pytest
from airflow.models.taskinstancekey import TaskInstanceKey
from hypothesis import given
from hypothesis import strategies as st

from modalflow.executor.workloads import label_of
from modalflow.names import TaskTry
from modalflow.operations.inventory import Work
from modalflow.operations.targets import NothingMatchesError, Target, matching

RUN = "manual__2026-01-01T00:00:00+00:00"


def label(task: str = "load", index: int = -1, number: int = 1, dag: str = "etl", run: str = RUN) -> str:
    return label_of(TaskInstanceKey(dag, task, run, number, index))


@pytest.mark.parametrize(
    ("target", "matches"),
    [
        (Target("etl", "load", RUN), True),
        (Target("etl", "load", RUN, map_index=3), True),
        (Target("etl", "load", RUN, map_index=4), False),
        (Target("etl", "load", RUN, try_number=2), True),
        (Target("etl", "load", RUN, try_number=1), False),
        (Target("etl", "loa", RUN), False),
        (Target("etl", "load", RUN[:-1]), False),
        (Target("etl.load", "", RUN), False),
        (Target(".*", "load", RUN), False),
    ],
)
def test_a_label_is_that_of_one_target(target: Target, matches: bool) -> None:
    """What is left out stands for any; what is given is compared whole, and is no pattern."""
    assert target.matches(work(1, label(index=3, number=2), TaskTry("etl", "load", RUN, 3, 2))) is matches
    # As modalflow 0.4 has recorded it.
    assert target.matches(work(1, label(index=3, number=2))) is (matches and not target.is_ambiguous)


def work(number: int, of: str, task: TaskTry | None = None) -> Work:
    return Work(f"work-{number}", of, "running", 0.0, function_call_id=f"fc-{number}", task=task)


GROUPED = TaskTry("etl", "load.orders", RUN)
OTHERS = TaskTry("etl.load", "orders", RUN)


def test_dags_and_tasks_with_dots_are_not_mixed_up() -> None:
    """Joined with a dot, a task in a group reads like a task of another DAG; only the one that is named is meant."""
    assert GROUPED.label == OTHERS.label
    there = [work(1, GROUPED.label, GROUPED), work(2, OTHERS.label, OTHERS)]
    assert matching(there, Target("etl", "load.orders", RUN)) == [there[0]]
    assert matching(there, Target("etl.load", "orders", RUN)) == [there[1]]


def test_what_was_joined_by_an_older_version_is_not_guessed_at() -> None:
    """The work of modalflow 0.4 has a label alone: one that two tasks share ends neither, and its id is named."""
    there = [work(1, GROUPED.label)]
    with pytest.raises(NothingMatchesError, match=r"Use its id instead: fc-1\."):
        matching(there, Target("etl", "load.orders", RUN))
    assert matching(there, "fc-1") == there
    plain = [work(2, label("load"))]
    assert matching(plain, Target("etl", "load", RUN)) == plain


_IDS = st.text("ab._-[]0 ", min_size=1, max_size=6)


@given(
    st.lists(
        st.builds(TaskTry, _IDS, _IDS, _IDS, st.integers(-1, 2), st.integers(1, 2)), min_size=1, max_size=6, unique=True
    )
)
def test_a_target_means_one_try_whatever_the_ids_look_like(tries: list[TaskTry]) -> None:
    """Dots, brackets, spaces and digits in ids never make one try pass for another."""
    there = [work(number, each.label, each) for number, each in enumerate(tries)]
    for one in tries:
        wanted = Target(one.dag_id, one.task_id, one.run_id, one.map_index, one.try_number)
        assert [each.task for each in matching(there, wanted)] == [one]


@pytest.mark.parametrize("wanted", ["", " "])
def test_an_empty_id_means_nothing(wanted: str) -> None:
    """Work that Modal has not taken yet has no function call id: an empty variable in a script ends none of it."""
    with pytest.raises(NothingMatchesError):
        matching([Work("work-1", "etl.load run r try 1", "waiting", 0.0)], wanted)


def test_all_that_is_meant_is_found() -> None:
    """Without a map index all mapped instances are meant; an id means one."""
    there = [work(n, label(index=n)) for n in range(3)] + [work(7, label("other"))]
    assert matching(there, Target("etl", "load", RUN)) == there[:3]
    assert matching(there, Target("etl", "load", RUN, map_index=1)) == [there[1]]
    assert matching(there, "fc-7") == matching(there, "work-7") == [there[3]]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Target("etl", "lod", RUN), f"The nearest: etl.load run {RUN} try 1"),
        ("fc-8", "The nearest: fc-7"),
        ("something else", "matches 'something else'. `modalflow status` lists"),
    ],
)
def test_what_is_not_there_is_answered_with_the_nearest(wanted: Target | str, said: str) -> None:
    """A typing mistake costs one more look, not a search."""
    with pytest.raises(NothingMatchesError) as refused:
        matching([work(7, label())], wanted)
    assert said in str(refused.value)
