"""The ended calls of a task instance and of a run, from a Volume in memory: what is read, and what is not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest
from modal import exception

from modalflow.cost.samples import Samples
from modalflow.cost.timeline import NO_TIMELINE, Timeline
from modalflow.cost.usage import LOST, Record
from modalflow.logs import recorded_calls
from modalflow.logs.recorded_calls import SLACK, RecordedCalls
from modalflow.names import SAMPLES_FOLDER, USAGE_FOLDER, running_samples, usage_file, usage_file_begun

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC).timestamp()
HOUR = 3600.0


class Kind(Enum):
    FILE = 1
    DIRECTORY = 2


class Volume:
    """A Volume with the two calls that are used, each counted."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[bytes, float]] = {}
        self.reads: list[str] = []

    def add(self, container: str, at: float, content: str, *, written_at: float = 0.0, number: int = 1) -> str:
        """Add a file that was begun at a time; return its name."""
        begun = datetime.fromtimestamp(at, UTC)
        name = usage_file(container, number, begun)
        self.files[f"{USAGE_FOLDER}/{begun:%Y-%m-%d}/{name}"] = content.encode(), written_at or at
        return name

    def listdir(self, path: str) -> list[Any]:
        below = {name.removeprefix(f"{path}/") for name in self.files if name.startswith(f"{path}/")}
        if not below:
            raise exception.NotFoundError(path)
        folders = {name.partition("/")[0] for name in below if "/" in name}
        found = [SimpleNamespace(path=f"{path}/{name}", type=Kind.DIRECTORY, size=0, mtime=0) for name in folders]
        for name in below:
            if "/" not in name:
                content, written_at = self.files[f"{path}/{name}"]
                size = len(content)
                found.append(SimpleNamespace(path=f"{path}/{name}", type=Kind.FILE, size=size, mtime=written_at))
        return found

    def read_file(self, path: str) -> Iterator[bytes]:
        self.reads.append(path.rpartition("/")[2])
        if path not in self.files:
            raise exception.NotFoundError(path)
        yield self.files[path][0]


@pytest.fixture
def volume() -> Volume:
    return Volume()


@pytest.fixture
def calls() -> RecordedCalls:
    return RecordedCalls()


def record(call: str, at: float, run: str = "r", task: str = "t", **changes: Any) -> Record:
    usual: dict[str, Any] = {"map_index": -1, "running": 5.0, "outcome": "success"}
    return Record(call, "ta-1", at, "d", task, run, **usual | changes)


def of_run(calls: RecordedCalls, volume: Volume, began: float = NOON, ended: float = NOON + HOUR) -> list[str]:
    return [call.record.function_call_id for call in calls.of_run(volume, "d", "r", began, ended)]


def test_the_calls_of_a_run_come_in_their_order(calls: RecordedCalls, volume: Volume) -> None:
    """From all containers, each with its timeline, and none of another run or DAG."""
    first = record("a", NOON).to_line(Timeline(number=1))
    volume.add("ta-1", NOON, record("c", NOON + 20).to_line() + "half a li" + "\n" + record("x", NOON, "r2").to_line())
    volume.add("ta-2", NOON, first)
    volume.add("ta-3", NOON, record("b", NOON + 10).to_line().replace('"dag_id":"d"', '"dag_id":"other"'))
    found = calls.of_run(volume, "d", "r", NOON, NOON + HOUR)
    assert [call.record.function_call_id for call in found] == ["a", "c"]
    assert [call.timeline for call in found] == [Timeline(number=1), NO_TIMELINE]
    assert all(call.samples is None for call in found)


def test_only_files_of_its_time_are_read(calls: RecordedCalls, volume: Volume) -> None:
    """The name says when a file was begun, and the Volume when it was written last."""
    line = record("a", NOON).to_line()
    within = volume.add("ta-1", NOON + 60, line)
    long = volume.add("ta-2", NOON - 6 * HOUR, line.replace('"a"', '"b"'), written_at=NOON + 6 * HOUR)
    volume.add("ta-3", NOON - HOUR, line)
    volume.add("ta-4", NOON + HOUR + SLACK + 1, line)
    volume.add("ta-5", NOON + 24 * HOUR, line)
    assert sorted(of_run(calls, volume)) == ["a", "b"]
    assert sorted(volume.reads) == [within, long]


def test_files_of_older_workers_are_read(calls: RecordedCalls, volume: Volume) -> None:
    """Their names do not show when they were begun."""
    volume.files[f"{USAGE_FOLDER}/2026-11-28/ta-1-0001.jsonl"] = record("a", NOON).to_line().encode(), NOON + 5 * HOUR
    volume.files[f"{USAGE_FOLDER}/2026-11-28/executor-w.jsonl"] = record("b", NOON).to_line().encode(), NOON + HOUR
    assert of_run(calls, volume) == ["a", "b"]


def test_a_file_is_read_once_for_many_questions(calls: RecordedCalls, volume: Volume) -> None:
    """Again only if it has grown: fifty open tabs cost no more than one."""
    name = volume.add("ta-1", NOON, record("a", NOON).to_line())
    for _ in range(5):
        assert of_run(calls, volume) == ["a"]
    assert volume.reads == [name]
    volume.add("ta-1", NOON, record("a", NOON).to_line() + record("b", NOON + 1).to_line())
    assert of_run(calls, volume) == ["a", "b"] and volume.reads == [name, name]


def test_what_is_kept_is_bounded(volume: Volume) -> None:
    """The files that were used last stay."""
    line = record("a", NOON).to_line()
    calls = RecordedCalls(kept=len(line) * 3)
    for number in range(9):
        volume.add("ta-1", NOON, line.replace('"a"', f'"{number}"'), number=number)
    assert len(of_run(calls, volume)) == len(of_run(calls, volume)) == 9
    assert calls._contents._size <= len(line) * 3


def test_all_tries_of_a_task_instance_come_with_their_samples(calls: RecordedCalls, volume: Volume) -> None:
    """Those of a short call and of other task instances are not read."""
    lines = [record("a", NOON, try_number=1), record("b", NOON + 9, try_number=2, running=0.1)]
    others = [record("c", NOON, task="t2"), record("d", NOON, map_index=0), record("e", NOON, "r2")]
    name = volume.add("ta-1", NOON, "".join(each.to_line() for each in [*lines, *others]))
    samples = Samples("a", "ta-1", NOON, 1.0, (0.5,), (100,))
    path = f"{USAGE_FOLDER}/2026-11-28/{SAMPLES_FOLDER}/{name}"
    content = samples.to_line() + Samples("d", "ta-1", NOON, 1.0, (0.1,), (1,)).to_line() + "{\n"
    volume.files[path] = content.encode(), NOON
    for _ in range(2):
        found = calls.of_instance(volume, "d", "t", "r", -1, NOON, NOON + HOUR)
        assert [(call.record.try_number, call.samples) for call in found] == [(1, samples), (2, None)]
    assert volume.reads == [name, name], "the records and the samples, once each"


def test_a_huge_file_of_samples_is_not_kept(calls: RecordedCalls, volume: Volume) -> None:
    """Only the size of the file of records beside it is known, and a task can write to the Volume."""
    name = volume.add("ta-1", NOON, record("a", NOON).to_line())
    samples = Samples("a", "ta-1", NOON, 1.0, (0.5,), (100,)).to_line()
    path = f"{USAGE_FOLDER}/2026-11-28/{SAMPLES_FOLDER}/{name}"
    volume.files[path] = samples.encode() + b"\n" * recorded_calls._LARGEST_FILE, NOON
    [found] = calls.of_instance(volume, "d", "t", "r", -1, NOON, NOON + HOUR)
    assert found.samples is None


def test_the_samples_of_running_calls_are_read_by_container(calls: RecordedCalls, volume: Volume) -> None:
    """One file for each, which may be absent; lines of other containers in it, and impossible starts, are nothing."""
    mine, other = (Samples(call, "ta-1", NOON, 1.0, (0.5,), (100,)) for call in "ab")
    foreign = Samples("a", "ta-2", NOON, 1.0, (9.0,), (9,))
    content = "".join(each.to_line() for each in (mine, foreign, other)) + "{half a li"
    volume.files[running_samples("ta-1", NOON - 60)] = content.encode(), NOON
    containers = [("ta-1", NOON - 60), ("ta-3", NOON), ("ta-4", 1e30), ("../../up", NOON)]
    found = calls.running_samples(volume, containers)
    assert found == {("a", "ta-1"): mine, ("b", "ta-1"): other}
    assert volume.reads[:2] == ["ta-1.jsonl", "ta-3.jsonl"] and len(volume.reads) == 3
    assert "/up" not in volume.reads[2]


def test_files_are_read_little_by_little(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read before it is searched stays in memory: a busy day has thousands of files."""
    monkeypatch.setattr(recorded_calls, "_AHEAD", 4)
    for number in range(12):
        volume.add(f"ta-{number}", NOON, record("a", NOON).to_line())
    files = [(path, 0) for path in volume.files]
    contents = RecordedCalls()._read(volume, files)
    next(contents)
    contents.close()  # type: ignore[attr-defined]  # It is a generator.
    assert len(volume.reads) <= 4


def test_a_killed_container_counts_once(calls: RecordedCalls, volume: Volume) -> None:
    """Its calls share its time, also with those of other runs; its own record counts before another one's."""
    lost: dict[str, Any] = {"outcome": LOST, "running": 10.0, "occupied": 10.0}
    lines = [record("a", NOON, **lost), record("z", NOON, "r2", **lost)]
    both = [record("b", NOON + 1, **lost), record("b", NOON + 1)]
    volume.add("ta-1", NOON, "".join(each.to_line() for each in [*lines, *both]))
    found = calls.of_run(volume, "d", "r", NOON, NOON + HOUR)
    assert [(call.record.function_call_id, call.record.outcome) for call in found] == [("a", LOST), ("b", "success")]
    assert 4 < found[0].record.occupied <= 5


def test_a_hostile_volume_is_not_read_without_limit(
    calls: RecordedCalls, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither files nor lines of any size, nor any number of files."""
    monkeypatch.setattr(recorded_calls, "FILES", 2)
    volume.add("ta-0", NOON, record("a", NOON, label="x" * 100_000).to_line() + record("b", NOON).to_line())
    volume.add("ta-1", NOON, record("c", NOON).to_line() + "\n" * (5 << 20))
    for number in range(4):
        volume.add(f"ta-x{number}", NOON - 1, record(f"x{number}", NOON).to_line())
    assert of_run(calls, volume)[0] == "b" and len(volume.reads) == 2


def test_no_records_are_no_calls(calls: RecordedCalls, volume: Volume) -> None:
    """Neither a deployment without work nor a run of a year is an error."""
    assert of_run(calls, volume) == of_run(calls, volume, NOON - 365 * 24 * HOUR, NOON) == []


def test_the_name_of_a_file_shows_when_it_was_begun() -> None:
    """To the second, in UTC; other names show nothing."""
    begun = datetime(2026, 11, 28, 23, 59, 59, tzinfo=UTC)
    assert usage_file_begun("2026-11-28", usage_file("ta-1-2", 12345, begun)) == begun
    assert usage_file_begun("2026-11-28", "ta-1-0001.jsonl") is None
    assert usage_file_begun("x", "ta-1-0001-235959.jsonl") is None
    assert usage_file_begun("2026-11-28", "ta-1-0001-999999.jsonl") is None
