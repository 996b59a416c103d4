"""The usage records of a container, with real files and a clock that the test sets."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path

import pytest

from modalflow.cost.recorded_call import RecordedCall
from modalflow.cost.samples import Samples, Series
from modalflow.cost.usage import LOST, Record, Reserved
from modalflow.names import SAMPLES_FOLDER, USAGE_FOLDER, TaskTry, running_samples
from modalflow.protocol.messages import Entry, Kind, State, Submission
from modalflow.worker.usage import usage_recorder
from modalflow.worker.usage.call_sampler import CallSampler
from modalflow.worker.usage.usage_recorder import PUBLISHED_EVERY, CallUsage, UsageRecorder, age_of_this_process
from modalflow.worker.zygote.protocol import ForkResult, Moments, Outcome, ProcessUsage

DONE = Outcome(State.SUCCESS, 0, "success")

PLACE = {"MODAL_IMAGE_ID": "im-1", "MODAL_REGION": "us-east", "MODAL_CLOUD_PROVIDER": "CLOUD_PROVIDER_AWS"}


def granted(submission: Submission) -> dict[str, object]:
    return {"profile": submission.profile, "cpu": 2}


class World:
    """A container that has been there for some seconds."""

    def __init__(self, root: Path, age: float = 3.0) -> None:
        self.now = 1000.0
        self.root = root
        self.recorder = UsageRecorder(root, "ta-1", age=age, variables=PLACE, clock=lambda: self.now)

    def open(self, wall: float = 5000.0) -> CallUsage:
        usage = self.recorder.begin_call("fc-1")
        usage.taken_at = wall
        return usage

    def calls(self) -> list[RecordedCall]:
        files = sorted((self.root / USAGE_FOLDER).glob("*/*.jsonl"))
        return [RecordedCall.from_line(line) for file in files for line in file.read_text().splitlines()]

    def records(self) -> list[Record]:
        files = sorted((self.root / USAGE_FOLDER).glob("*/*.jsonl"))
        return [Record.from_line(line) for file in files for line in file.read_text().splitlines()]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def submission(**changes: object) -> Submission:
    ti = {"dag_id": "d", "task_id": "t", "run_id": "r", "try_number": 2, "map_index": 5}
    known = {
        "workload": json.dumps({"ti": ti, "token": "secret-token"}),
        "submitted_at": 4990.0,
    }
    return Submission("w", Kind.WORKLOAD, "log", "p", "the task", **known | changes)  # type: ignore[arg-type]


def test_a_call_is_recorded_with_all_that_it_occupied(world: World) -> None:
    """Taken ten seconds after submission, three of which the container needed to start; there for two seconds."""
    usage = world.open()
    world.now += 2.0
    usage.processes = ProcessUsage(seconds=1.5, cpu_seconds=0.5, peak_mib=200)
    line = usage.record(submission(), DONE, granted)
    [record] = world.records()
    assert (record.queued, record.starting, record.running, record.idle) == (7.0, 3.5, 1.5, 0.0)
    # The start of the container came before it took the call.
    assert (record.ready_at - record.taken_at, record.ended_at - record.taken_at) == (0.5, 2.0)
    assert record.occupied == 5.0 and record.cpu_seconds >= 0.5 and record.peak_mib == 200 and record.worker_mib > 0
    assert (record.dag_id, record.task_id, record.run_id, record.map_index, record.try_number) == ("d", "t", "r", 5, 2)
    assert record.reserved == Reserved(cpu=2) and record.outcome == "success"
    assert "Occupied 2 cores, 128 MiB for 5.0 s" in line and "$" in line


def test_a_call_has_the_moments_of_its_try(world: World) -> None:
    """From the executor to Airflow's answer, with what the task asked for: a container that started for it."""
    now = float(int(time.time()))
    usage = world.open(wall=now)
    usage.claimed()
    ended = Outcome(State.FAILED, 1, "failed", "why", "api-unreachable", Moments(now + 1, now + 2, now + 3, now + 4))
    usage.ended(ForkResult("f", 1, ended, ProcessUsage(1.5, 0.5, 200)))
    submitted = submission(submitted_at=now - 10, spawned_at=now - 9, asked={"cpu": 2}, sized={"memory": 3})
    usage.record(submitted, ended, granted)
    [call] = world.calls()
    timeline = call.timeline
    assert (timeline.submitted_at, timeline.spawned_at) == (now - 10, now - 9)
    assert timeline.claimed_at == pytest.approx(usage.claimed_at, abs=0.001)
    assert timeline.container_started_at == pytest.approx(now - 3, abs=60)
    assert (timeline.started_at, timeline.first_line_at) == (now + 1, now + 2)
    assert (timeline.task_ended_at, timeline.reported_at) == (now + 3, now + 4)
    assert (timeline.is_cold_start, timeline.number) == (True, 1)
    assert (timeline.image, timeline.region, timeline.cloud) == ("im-1", "us-east", "aws")
    assert (timeline.asked, timeline.sized) == ({"cpu": 2}, {"memory": 3})
    assert (timeline.cause, timeline.reason) == ("api-unreachable", "why")


def test_only_a_container_that_starts_for_a_call_is_cold(tmp_path: Path) -> None:
    """Neither its later calls are cold starts, nor the first one of a container that waited for work."""
    waiting, restored = World(tmp_path / "waiting", age=60.0), World(tmp_path / "restored", age=0.0)
    for world in (waiting, restored):
        for _ in range(2):
            world.open().record(submission(submitted_at=4999.0), DONE, granted)
    assert [(call.timeline.is_cold_start, call.timeline.number) for call in waiting.calls()] == [(False, 1), (False, 2)]
    assert [call.timeline.is_cold_start for call in restored.calls()] == [True, False]


def test_samples_are_beside_the_record(world: World) -> None:
    """In a file of its own that readers of costs do not open; a call without samples has none."""
    world.open().record(submission(), DONE, granted)
    usage = world.open()
    usage.sampler = sampler = CallSampler()
    sampler._series = Series.begin(time.monotonic() - 2, 0.0)
    sampler._series.add(time.monotonic(), 1.0, 300.0)
    usage.record(submission(), DONE, granted)
    [file] = (world.root / USAGE_FOLDER).glob(f"*/{SAMPLES_FOLDER}/*")
    [line] = file.read_text().splitlines()
    samples = Samples.from_line(line)
    assert (samples.function_call_id, samples.mib) == ("fc-1", (300.0,)) and 0.3 < samples.cpu[0] <= 0.5
    assert (file.parent.parent / file.name).exists() and len(world.records()) == 2


def sampled(usage: CallUsage, seconds: float, mib: float = 300.0) -> None:
    """Give a call samples that cover this time."""
    now = time.monotonic()
    usage.sampler._series = Series.begin(now - seconds, 0.0)
    for part in (0.5, 1.0):
        usage.sampler._series.add(now - seconds * (1 - part), seconds * part, mib)


def running_file(world: World) -> Path:
    return world.root / running_samples("ta-1", world.recorder.container_started_at)


async def test_samples_of_running_calls_are_written_with_a_commit(world: World) -> None:
    """Those of long calls, rarely, in one small file, which goes with the last of them."""
    long, short = world.open(), world.recorder.begin_call("fc-2")
    with long.sampling(os.getpid):
        with short.sampling(os.getpid):
            sampled(long, 12.0)
            sampled(short, 3.0)
            world.recorder.write_running()
            [line] = running_file(world).read_text().splitlines()
            first = Samples.from_line(line)
            assert (first.function_call_id, first.container_id, first.mib) == ("fc-1", "ta-1", (300.0, 300.0))
            assert first.seconds == pytest.approx(12.0, abs=0.5)
            sampled(short, 11.0)
            world.now += PUBLISHED_EVERY - 1
            world.recorder.write_running()
            assert running_file(world).read_text().splitlines() == [line], "not so soon again"
            world.now += 1
            world.recorder.write_running()
            assert len(running_file(world).read_text().splitlines()) == 2
        assert running_file(world).exists(), "another call still runs"
    assert not running_file(world).exists()
    assert not world.records(), "nothing of it is a record"


async def test_short_calls_write_no_samples_while_they_run(world: World) -> None:
    """They have ended before a page could show them."""
    usage = world.open()
    with usage.sampling(os.getpid):
        world.recorder.write_running()
        sampled(usage, 9.0)
        world.recorder.write_running()
    assert not (world.root / USAGE_FOLDER).exists()


async def test_samples_of_running_calls_fail_no_work(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A full disk, for example."""
    (world.root / USAGE_FOLDER).write_text("in the way")
    usage = world.open()
    with usage.sampling(os.getpid):
        sampled(usage, 12.0)
        world.recorder.write_running()
    assert "could not be written" in caplog.text


async def test_samples_of_a_write_that_failed_half_way_go_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise, pages would show the calls as running forever."""

    def half(path: Path, text: str) -> int:
        with path.open("w") as file:
            file.write(text[:10])
        raise OSError("no space left")

    usage = world.open()
    with usage.sampling(os.getpid):
        sampled(usage, 12.0)
        with monkeypatch.context() as patched:
            patched.setattr(Path, "write_text", half)
            world.recorder.write_running()
        assert running_file(world).exists()
    assert not running_file(world).exists()


def test_a_container_that_was_there_before_the_work_did_not_start_for_it(tmp_path: Path) -> None:
    """A minute of waiting for work is idleness, whichever work ends it."""
    world = World(tmp_path, age=60.0)
    usage = world.open()
    world.now += 1.0
    usage.record(submission(submitted_at=4999.0), DONE, granted)
    [record] = world.records()
    assert (record.queued, record.starting, record.idle, record.occupied) == (0.0, 1.0, 59.0, 61.0)


def test_a_scheduler_whose_clock_is_ahead_makes_nothing_negative(world: World) -> None:
    """Clocks differ; a wait is never less than nothing."""
    usage = world.open()
    usage.record(submission(submitted_at=9e9), DONE, granted)
    assert min(getattr(world.records()[0], name) for name in ("queued", "starting", "running", "idle")) >= 0


@pytest.mark.parametrize(
    ("log_path", "task"),
    [
        ("dag_id=d/run_id=r 1/task_id=a.b/attempt=3.log", ("d", "r 1", "a.b", -1, 3)),
        ("dag_id=d/run_id=r/task_id=t/map_index=0/attempt=1.log", ("d", "r", "t", 0, 1)),
        ("something/else.log", ("", "", "", -1, 0)),
    ],
)
def test_a_command_is_summed_with_its_dag_run(world: World, log_path: str, task: tuple[object, ...]) -> None:
    """A raw command tells its task by where its log is; one that has no task is recorded all the same."""
    command = Submission("w", Kind.COMMAND, log_path, "p", "the command", command=("true",))
    world.open().record(command, DONE, granted)
    [r] = world.records()
    assert (r.dag_id, r.run_id, r.task_id, r.map_index, r.try_number) == task
    assert r.label == "the command" and r.reserved == Reserved(cpu=2)


def test_a_command_names_its_task_itself(world: World) -> None:
    """A path can be read in two ways where a run is called like a part of it; what the submission says counts."""
    task = TaskTry("d", "t", "a/task_id=x", 0, 2)
    command = Submission("w", Kind.COMMAND, task.log_path, "p", "the command", command=("true",))
    for submitted in (dataclasses.replace(command, task=task), command):
        world.open().record(submitted, DONE, granted)
    named, unnamed = world.records()
    assert (named.dag_id, named.task_id, named.run_id, named.map_index, named.try_number) == task
    assert (unnamed.dag_id, unnamed.task_id, unnamed.run_id) == ("", "", "")


def test_work_of_a_lost_container_is_recorded_by_the_next_one(world: World) -> None:
    """With the times that are known, as occupied by the container that is gone."""
    usage = world.open(wall=5060.0)
    found = Entry("w", State.RUNNING, "fc-1", "ta-0", "owner", started_at=5000.0, container_started_at=4999.0)
    line = usage.record_lost(submission(), found, granted, Outcome(State.FAILED, reason="why", cause="container-lost"))
    [record] = world.records()
    assert (record.container_id, record.outcome, record.running, record.occupied) == ("ta-0", LOST, 60.0, 60.0)
    assert "for 60.0 s" in line
    [call] = world.calls()
    assert (call.timeline.container_started_at, call.timeline.claimed_at) == (4999.0, 5000.0)
    assert (call.timeline.submitted_at, call.timeline.cause) == (4990.0, "container-lost")


def test_samples_of_a_lost_container_go_with_its_record(world: World) -> None:
    """It could not remove them itself. Those of other containers stay."""
    lost, other = (world.root / running_samples(name, 4999.0) for name in ("ta-0", "ta-2"))
    lost.parent.mkdir(parents=True)
    lost.touch()
    other.touch()
    found = Entry("w", State.RUNNING, "fc-1", "ta-0", "owner", started_at=5000.0, container_started_at=4999.0)
    for _ in range(2):
        assert world.open(wall=5060.0).record_lost(submission(), found, granted, Outcome(State.FAILED, reason="why"))
    assert not lost.exists() and other.exists()


def test_nothing_secret_is_recorded(world: World) -> None:
    """A submission holds a token; a record must not."""
    world.open().record(submission(), DONE, granted)
    assert "secret" not in "".join(file.read_text() for file in world.root.rglob("*.jsonl"))


def test_a_file_does_not_grow_for_ever(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit uploads what changed: a long file would be uploaded again and again."""
    monkeypatch.setattr(usage_recorder, "FILE_SIZE", 600)
    for _ in range(5):
        world.open().record(submission(), DONE, granted)
    names = [file.name for file in sorted((world.root / USAGE_FOLDER).glob("*/*"))]
    assert len(names) > 1 and names[0].startswith("ta-1-0001-") and len(world.records()) == 5


@pytest.mark.parametrize("workload", ["{", "[]", '{"ti": {}}', '{"ti": {"dag_id": "d", "try_number": "x"}}'])
def test_a_workload_that_cannot_be_read_is_recorded_without_its_task(world: World, workload: str) -> None:
    """What it occupied is paid for all the same."""
    assert world.open().record(submission(workload=workload), DONE, granted)
    [record] = world.records()
    assert (record.dag_id, record.label) == ("", "the task")


def test_nothing_of_it_fails_the_work(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A Volume that cannot be written costs the record and no more."""
    (world.root / USAGE_FOLDER).write_text("in the way")
    assert world.open().record(submission(), DONE, granted) == ""
    assert "could not be recorded" in caplog.text and "secret" not in caplog.text
    # The container still records the next call.
    (world.root / USAGE_FOLDER).unlink()
    assert world.open().record(submission(), DONE, granted)


def test_a_call_that_had_nothing_to_do_is_not_recorded(world: World) -> None:
    """A repeated spawn occupies nothing of its own."""
    usage = world.open()
    usage.drop()
    usage.drop()
    assert not world.records() and not (world.root / USAGE_FOLDER).exists()


def test_the_age_of_a_process_is_the_kernels() -> None:
    """This one is older than this test, and younger than the machine."""
    assert 0 < age_of_this_process() <= time.clock_gettime(time.CLOCK_BOOTTIME)
    child = os.fork()
    if child == 0:
        os._exit(0 if age_of_this_process() < 5 else 1)
    assert os.waitpid(child, 0)[1] == 0
