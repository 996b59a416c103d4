"""What things are called on Modal: names that tell apart what is different."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modalflow.names import DEPLOYMENT_FILE, LONGEST_NAME, USAGE_FOLDER, TaskTry, file_name, short, stored_log_path

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
