"""What things are called on Modal: names that tell apart what is different."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modalflow.names import (
    DEPLOYMENT_FILE,
    LONGEST_NAME,
    MAP_INDEX,
    TRY_LOG,
    USAGE_FOLDER,
    TaskTry,
    file_name,
    is_log_part,
    log_file,
    log_part,
    short,
    stored_log_path,
)

LONG = TaskTry("d" * 250, "t" * 250, "manual__2026-01-01T00:00:00+00:00")


@pytest.mark.parametrize(
    "task",
    [
        TaskTry("etl", "load.orders", "manual__2026-01-01T00:00:00+00:00"),
        TaskTry("x5_uni_é", "задача", "a/b", 3, 2),
        TaskTry("ж" * 100, "t", "with spaces"),
        TaskTry("d" * 248, "t" * 247, "r" * 248),
        TaskTry("D.", "t..", "..", 0),
    ],
)
def test_names_that_a_file_can_have_stay(task: TaskTry) -> None:
    """The layout on the Volume is that of the versions before, and Airflow's own: logs that are there stay readable."""
    assert stored_log_path(task.log_path) == task.log_path


@pytest.mark.parametrize(
    "task",
    [
        LONG,
        TaskTry("ж" * 125, "任务" * 45, "r" * 250),
        TaskTry("d", "t", "\U0001f680" * 250),
        TaskTry("d", "t", "é" * 250),
    ],
)
def test_longer_names_are_cut(task: TaskTry) -> None:
    """Airflow takes ids of 250 characters, which can be 1,000 bytes; a file name has 255."""
    stored = stored_log_path(task.log_path)
    assert stored.count("/") == task.log_path.count("/")
    assert all(len(part.encode()) <= LONGEST_NAME for part in stored.split("/"))
    # A person who lists the Volume still recognises them.
    assert stored.startswith(f"dag_id={task.dag_id[:20]}")


#: Parts that are alike, too long, no names at all, or names that stand for others.
_PARTS = st.one_of(
    st.text("ab./\\\0 ~é\u0301:+%", max_size=6),
    st.builds(lambda letter, length: letter * length, st.sampled_from("aA任é"), st.integers(80, 260)),
    st.builds(lambda text: f"{text[:222]}~{short(text)}", st.builds(lambda n: "a" * n, st.integers(254, 258))),
    st.sampled_from(["", ".", "..", USAGE_FOLDER, DEPLOYMENT_FILE, "\ud800"]),
)
_PATHS = st.lists(_PARTS, min_size=1, max_size=4).map("/".join)


@given(_PATHS, _PATHS)
@example("a" * 256, stored_log_path("a" * 256))
@example("run_id=a//b", "run_id=a/b")
@example("run_id=a/./b", "run_id=a/b")
@example("run_id=é", "run_id=e\u0301")
@example("run_id=A", "run_id=a")
def test_different_paths_are_stored_apart(one: str, other: str) -> None:
    """No two runs share a folder, however their ids are spelt; and none leaves the Volume."""
    stored = [PurePosixPath("/volume", stored_log_path(path)) for path in (one, other)]
    assert (stored[0] == stored[1]) is (one == other)
    for path in stored:
        assert path.parts[:2] == ("/", "volume") and ".." not in path.parts and "\0" not in str(path)
        assert path.parts[2] not in (USAGE_FOLDER, DEPLOYMENT_FILE)
        assert all(len(part.encode()) <= LONGEST_NAME for part in path.parts)


@given(_PATHS, _PATHS)
@example("a/b", "a_b")
def test_file_names_tell_texts_apart(one: str, other: str) -> None:
    """Of any two texts, each has a file name of its own."""
    names = file_name(one), file_name(other)
    assert (names[0] == names[1]) is (one == other)
    assert all("/" not in name and len(name.encode()) <= LONGEST_NAME and name not in ("", ".", "..") for name in names)


def test_a_try_survives_json_and_nothing_else_passes_for_one() -> None:
    """Containers write it where executors and commands read it."""
    assert TaskTry.read(json.loads(json.dumps(LONG))) == LONG and TaskTry.read(None) is None
    wires: list[object] = [[], "etl", 7, {}, ["d", "t", "r", -1], ["d", "t", "r", -1, "1"], ["d", "t", "r", True, 1]]
    for wire in [*wires, [*LONG, 1]]:
        with pytest.raises(ValueError, match="a try of a task instance is"):
            TaskTry.read(wire)


@pytest.mark.parametrize(
    "task",
    [TaskTry("etl", "load.orders", "manual__1"), TaskTry("d", "t", "with spaces", 3, 12), TaskTry("é", "ж", "r")],
)
def test_the_path_of_a_log_is_read_back(task: TaskTry) -> None:
    """As the layout writes it; the folders of a try and of a mapped task are recognised on their own, too."""
    assert TaskTry.of_log(task.log_path) == task
    *_, before, last = task.log_path.split("/")
    found = TRY_LOG.fullmatch(last)
    assert found is not None and int(found[1]) == task.try_number
    index = MAP_INDEX.fullmatch(before)
    assert (int(index[1]) if index else -1) == task.map_index


@pytest.mark.parametrize("path", ["modal/commands/1.log", "dag_id=d/run_id=a/run_id=b/task_id=t/attempt=1.log"])
def test_a_path_that_is_no_trys_or_two_is_none(path: str) -> None:
    """A command's log, and one in which an id could end in two places."""
    assert TaskTry.of_log(path) is None


def test_the_files_of_a_log_sort_by_time_and_part() -> None:
    """A reader puts a log together in the order of the names, and names the first file of each writer as its source."""
    first = log_file(datetime(2026, 11, 28, 23, 5, 0, 7, tzinfo=UTC), "fc-1")
    assert first == "20261128T230500.000007Z-fc-1.log"
    names = [log_part(first, number) for number in (0, 1, 9, 10, 9999, 10000)]
    assert names[0] == first and names[:5] == sorted(names[:5])
    assert [is_log_part(f"folder/{name}") for name in names] == [False, True, True, True, True, True]
