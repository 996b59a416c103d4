"""The table of work: filters, order and pages, and its time with 10,000 rows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modalflow.names import TaskTry
from modalflow.operations.inventory import Inventory
from modalflow.protocol.messages import Entry, State
from modalflow.protocol.snapshot import InFlight, Snapshot
from modalflow.ui.answers.freshness import Freshness, Links
from modalflow.ui.answers.work import COLUMNS, WorkTable
from modalflow.ui.sources.live_state import LiveState
from modalflow.ui.views.visible import Visible
from modalflow.ui.views.work import Filters, work_table

NOW = 10_000.0
EVERYTHING = Visible(frozenset(), everything=True, cluster=True)


def call(number: int, state: str, profile: str = "default", dag: str = "etl", reason: str = "") -> InFlight:
    task = TaskTry(dag, f"task-{number}", "r1")
    return InFlight(f"w{number}", task.label, state, NOW - number, f"fc-{number}", profile, 1, task, reason)


CALLS = [
    call(1, "waiting", "gpu", reason="the budget of DAG etl is used up"),
    call(2, "submitted"),
    call(3, "submitted", dag="Über"),
    call(4, "submitted", "gpu"),
]
RUNNING = Entry("w4", State.RUNNING, "fc-4", "ta-4", "o", CALLS[3].label, "p", started_at=NOW, task=CALLS[3].task)


def state_of(calls: list[InFlight], entries: list[Entry], more: int = 0) -> LiveState:
    snapshot = Snapshot("p", "host", 7, published_at=NOW, calls=calls, more=more)
    return LiveState.of(Inventory(NOW, [snapshot], entries), (), local=False, app="a", environment="main")


LIVE = state_of(CALLS, [RUNNING], more=5)


def table(visible: Visible = EVERYTHING, live: LiveState | None = LIVE, **filters: Any) -> dict[str, Any]:
    body = work_table(live, visible, {"etl"}, Filters(**filters), Freshness(), Links())
    found: dict[str, Any] = json.loads(body)
    assert WorkTable.model_validate(found)
    return found


def ids(found: dict[str, Any]) -> list[str]:
    return [row[0] for row in found["rows"]]


def test_running_work_comes_first() -> None:
    """Then the oldest of each state; counts and values for filters are of all rows."""
    found = table()
    assert ids(found) == ["w4", "w3", "w2", "w1"]
    assert found["states"] == {"running": 1, "submitted": 2, "waiting": 1}
    assert (found["profiles"], found["dags"], found["cancellable"]) == (["default", "gpu"], ["etl", "Über"], ["etl"])
    row = dict(zip(found["columns"], found["rows"][3], strict=True))
    assert row["reason"] == "the budget of DAG etl is used up"
    assert (row["state"], row["task_id"], row["executor"], row["since"]) == ("waiting", "task-1", "host/7", NOW - 1)
    assert found["unlisted"] == 5


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"states": {"waiting", "running"}}, ["w4", "w1"]),
        ({"profiles": {"gpu"}}, ["w4", "w1"]),
        ({"dags": {"Über"}}, ["w3"]),
        ({"text": "BUDGET"}, ["w1"]),
        ({"text": "über"}, ["w3"]),
        ({"text": "ta-4"}, ["w4"]),
        ({"sort": "since"}, ["w3", "w2", "w1", "w4"]),
        ({"sort": "-work_id"}, ["w4", "w3", "w2", "w1"]),
        ({"sort": "nonsense"}, ["w4", "w3", "w2", "w1"]),
        ({"offset": 1, "limit": 2}, ["w3", "w2"]),
        ({"offset": 9}, []),
    ],
)
def test_filters(filters: dict[str, Any], expected: list[str]) -> None:
    """Each selects rows, in any letter case, and leaves the total."""
    found = table(**filters)
    assert ids(found) == expected
    assert found["total"] == 4


def test_the_counts_of_states_are_for_their_own_filter() -> None:
    """So they stay while a state is chosen, and follow the other filters."""
    found = table(states={"waiting"}, profiles={"gpu"})
    assert (found["states"], found["matched"]) == ({"running": 1, "submitted": 0, "waiting": 1}, 1)


def test_unlisted_calls_are_for_those_who_see_everything() -> None:
    """Their DAGs are unknown."""
    assert table(Visible(frozenset({"etl"})))["unlisted"] == 0


def test_hosts_of_executors_are_for_those_who_see_the_cluster() -> None:
    """Neither a row, nor a search, nor the order shows them to others."""
    narrow = Visible(frozenset({"etl", "Über"}))
    place = COLUMNS.index("executor")
    assert {row[place] for row in table()["rows"]} == {"host/7"}
    assert {row[place] for row in table(narrow)["rows"]} == {""}
    assert [row[:place] + row[place + 1 :] for row in table(narrow)["rows"]] == [
        row[:place] + row[place + 1 :] for row in table()["rows"]
    ]
    assert (ids(table(text="host/7")), ids(table(narrow, text="host/7"))) == (["w4", "w3", "w2", "w1"], [])
    other = state_of(CALLS[:1], [Entry("w9", State.RUNNING, "fc-9", "ta-9", "o", "l", "gone")])
    everyone = Visible(frozenset(), everything=True)
    assert ids(table(live=other, sort="-executor")) == ["w1", "w9"]
    assert ids(table(everyone, other, sort="-executor")) == ["w9", "w1"]


def test_before_the_first_read_the_table_is_empty() -> None:
    """With all its parts."""
    found = table(live=None)
    assert (found["rows"], found["total"], found["columns"]) == ([], 0, list(COLUMNS))
