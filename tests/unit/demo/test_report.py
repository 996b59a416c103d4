"""The demo's verdict: a success is a task that succeeded in a container that Modal knows."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from modalflow.demo.airflow_api import TaskInstance
from modalflow.demo.report import Row, problems, table

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def row(
    task_id: str = "extract",
    state: str | None = "success",
    call: str = "fc-1",
    host: str = "ta-1",
    confirmed: str = "ta-1",
    map_index: int = -1,
) -> Row:
    """A row; as given, one that is all right."""
    instance = TaskInstance(
        id="1",
        run_id="manual",
        task_id=task_id,
        map_index=map_index,
        state=state,
        try_number=1,
        hostname=host,
        queued=START - timedelta(seconds=1.5),
        started=START,
        ended=START + timedelta(seconds=2),
    )
    return Row(instance, call, frozenset(confirmed.split()))


def test_a_task_that_ran_in_a_known_container_is_no_problem() -> None:
    """Airflow's host name is among the containers of the function call, as Modal tells it."""
    assert problems([row(), row(map_index=2, confirmed="ta-0 ta-1")]) == []


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (row(state="failed"), "extract is failed; expected success"),
        (row(state=None), "extract is none; expected success"),
        (row(state="skipped"), "extract is skipped; expected success"),
        (row(call=""), "extract has no function call"),
        (row(call="123"), "its external_executor_id is '123'"),
        (row(host="myhost"), "extract ran on host 'myhost'"),
        (row(host=""), "extract ran on host 'unknown'"),
        (row(confirmed=""), "Modal's containers of fc-1: none"),
        (row(task_id="do_nothing"), "do_nothing is success; the branch should have skipped it"),
        (row(map_index=3, state="failed"), "extract [3] is failed"),
    ],
)
def test_everything_else_is_a_problem(bad: Row, says: str) -> None:
    """No way of not having run in a Modal container counts as a success."""
    (problem,) = problems([row(), bad])
    assert says in problem


def test_the_way_not_taken_is_no_problem() -> None:
    """A task that the DAG means to be skipped needs no container."""
    assert problems([row(task_id="do_nothing", state="skipped", call="", host="", confirmed="")]) == []


def test_the_table_shows_where_and_how_long() -> None:
    """Each task instance has its map index, both ids and both durations in the table."""
    console = Console(file=io.StringIO(), width=140)
    console.print(table([row(map_index=2), row(task_id="do_nothing", state="skipped", call="", host="")]))
    assert isinstance(console.file, io.StringIO)
    first, second = (line for line in console.file.getvalue().splitlines() if line.startswith("│"))
    assert [cell.strip() for cell in first.strip("│").split("│")] == [
        "extract [2]",
        "success",
        "1",
        "fc-1",
        "ta-1",
        "1.5",
        "2.0",
    ]
    assert [cell.strip() for cell in second.strip("│").split("│")][3:] == ["-", "-", "-", "-"]


def test_the_table_does_not_show_what_is_not_so() -> None:
    """A work id is no function call, and the start of one try says nothing about the queueing of the next."""
    again = row(state="queued", call="6400abcb-4903-4ab2-b2ce-96ad82562918")
    again = replace(again, instance=replace(again.instance, queued=START + timedelta(seconds=9)))
    console = Console(file=io.StringIO(), width=140)
    console.print(table([again]))
    assert isinstance(console.file, io.StringIO)
    (line,) = (line for line in console.file.getvalue().splitlines() if line.startswith("│"))
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    assert (cells[3], cells[5]) == ("-", "-")
