"""A task's process is like a new one; and tasks that misbehave, all at once in one container, beside some that work."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from modalflow.protocol.messages import Entry, State
from modalflow.worker.zygote.protocol import STOP_NOTICE
from tests.command_line import CommandLine
from tests.hostile.comparing import ALLOWED, apart, in_an_interpreter_of_its_own, in_the_container
from tests.hostile.looking import alive_in, main_process_of, prepared_in, size_of, until_idle, zygote_of
from tests.inside import asked
from tests.integration.world import COLD, Work, World, deployed_worker
from tests.support import in_gvisor, wait_until

#: Function calls that the container runs at a time.
SIDE_BY_SIDE = 6

#: Lines that a neighbour prints, over some seconds.
LINES = 300

#: Of a container's main process: the runtime's, and a pool of the size that asyncio gives it.
MOST_THREADS = 5 + min(32, (os.cpu_count() or 1) + 4)

NEIGHBOURS = ("ada", "bob", "eve")


@dataclass(frozen=True)
class End:
    """How a task ends: the state that Airflow's API is told, and what is in its log."""

    final_state: str
    said: str = ""
    return_code: int | None = None


#: None of them keeps its supervisor from telling Airflow, so all are successes of the executor's.
ENDS = {
    "forks": End("success", return_code=0),
    "daemonizes": End("success", return_code=0),
    "storms": End("success", return_code=0),
    "never_stays": End("success", return_code=0),
    "closes_all": End("failed"),
    "exits_0": End("success", return_code=0),
    "exits_3": End("failed", return_code=3),
    "raises_exit": End("failed"),
    "raises_interrupt": End("failed"),
    "raises_base": End("failed", "neither an error nor an exit"),
    "crashes": End("failed", "SIGSEGV"),
    "aborts": End("failed", "SIGABRT"),
    "kills_itself": End("failed", "SIGKILL"),
    "forges": End("failed", "this failed"),
    "tells_secrets": End("success", "password ***"),
    "fills_its_disk": End("failed", "File too large"),
}

#: What a cancelled task says before.
CANCELLED = {"ignores_sigterm": "ignoring", "computes_in_c": "computing"}


@dataclass
class Day:
    """What ran, and the state of the container's disk after."""

    works: dict[str, Work]
    entries: dict[str, Entry]


@pytest.fixture(scope="module")
def world(modalflow_cli: CommandLine) -> Iterator[World]:
    """One container for all: what one task does there is what the next one might notice."""
    with deployed_worker(
        modalflow_cli, "hostile", "--max-containers", "1", "--concurrency", str(SIDE_BY_SIDE)
    ) as world:
        world.api.connections["guarded"] = {"conn_id": "guarded", "password": "pass-of-the-connection"}
        world.api.variables["api_secret"] = "value-of-the-variable"
        yield world


@pytest.fixture(scope="module", params=["prepared", "beside another"])
def both(
    world: World, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The facts of a task in a container where another one has been, and one still is, that changed all it could; and
    those of the same workload in an interpreter of its own. Or of a task whose process was there before it."""
    secret = {"SECRET_OF_ANOTHER": "s3cret", "AIRFLOW_CONN_OTHER": "smtp://u:s3cret@h"}
    before = world.task("changes_everything", dag_file="hostile.py", env={"STAY": "0", **secret})
    container = before.ended().container_id
    if request.param == "prepared":
        prepared = wait_until(lambda: prepared_in(container), what="a supervisor and its task")
        ours = in_the_container(world)
        assert not alive_in(container, prepared), "it had these processes"
        return ours, in_an_interpreter_of_its_own(ours, tmp_path_factory.mktemp("prepared"))
    beside = world.task("changes_everything", dag_file="hostile.py", env={"STAY": "120", **secret})
    beside.log_with("all is changed")
    ours = in_the_container(world)
    beside.calls[0].cancel()
    assert "all is changed" in before.log()
    beside.ended()
    return ours, in_an_interpreter_of_its_own(ours, tmp_path_factory.mktemp("new"))


def test_a_tasks_process_is_like_a_new_one(both: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Environment, working directory, umask, signals, open files, limits, loggers, warnings, random numbers, locale,
    threads, title and Airflow's own state are those of an interpreter that was started for this task alone."""
    ours, theirs = both
    different = {name: apart(ours[name], value) for name, value in theirs.items() if ours[name] != value}
    assert {name: pair for name, pair in different.items() if name not in ALLOWED} == {}


def test_what_differs_is_harmless(both: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Of what may differ, each is as described."""
    ours, theirs = both
    missing = set(theirs["modules"]) - set(ours["modules"])
    assert {name.partition(".")[0] for name in missing} <= {"libcst"}, "a task that needs more would import it"
    assert not [name for name in ours["modules"] if "hostile" in name or "left_behind" in name]
    files = ours["supervisor: files"]
    assert files == theirs["supervisor: files"] | {"pipe": theirs["supervisor: files"]["pipe"] + 1}
    inherited = {"file": theirs["task: files"]["file"]}
    assert theirs["task: files"] in (ours["task: files"], ours["task: files"] | inherited)
    # gVisor does not report them.
    if not in_gvisor():
        caught = [int(each["supervisor: status SigCgt"], 16) for each in (ours, theirs)]
        assert caught[0] == caught[1] | 1 << (STOP_NOTICE - 1)
    assert len(ours["argv"]) == 1
    assert ours["handlers"] == theirs["handlers"] | {"SIGSEGV": ours["handlers"]["SIGHUP"]}
    assert (ours["dies with"], ours["subreaper"], ours["random"]) == (signal.SIGKILL, 0, "its own")


def test_no_secret_of_another_task_is_in_sight(both: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Neither the zygote's variables, which every fork shows, nor the task's process has what another one was given."""
    ours, _ = both
    assert "s3cret" not in json.dumps({name: value for name, value in ours.items() if name != "workload"})
    assert "secret-token" not in json.dumps({name: value for name, value in ours.items() if name != "workload"})


def test_nobody_is_left(world: World, both: object) -> None:
    """When the tasks have ended, the container runs its zygote and nothing else."""
    assert both
    container = world.task("works", dag_file="hostile.py", env={"NAME": "n", "LINES": "1"}).ended().container_id
    until_idle(container)


@pytest.fixture(scope="module")
def day(world: World) -> Day:
    """Everybody at once, as far as the container takes them: neighbours first, those that are cancelled next."""
    works = {
        name: world.task("works", dag_file="hostile.py", env={"NAME": name, "LINES": str(LINES)}) for name in NEIGHBOURS
    }
    works |= {name: world.task(name, dag_file="hostile.py") for name in [*CANCELLED, *ENDS]}
    for name, said in CANCELLED.items():
        works[name].log_with(said)
        works[name].calls[0].cancel()
    return Day(works, {name: work.ended() for name, work in works.items()})


@pytest.mark.parametrize("task_id", ENDS)
def test_a_hostile_task_ends_as_it_should(day: Day, task_id: str) -> None:
    """Whatever a task does to itself, Airflow hears of it from the supervisor, and the log says what happened."""
    end, entry = ENDS[task_id], day.entries[task_id]
    assert (entry.state, entry.final_state, entry.reason) == (State.SUCCESS, end.final_state, None)
    assert end.return_code is None or entry.return_code == end.return_code
    assert end.said in day.works[task_id].log()
    # Airflow itself would wait for a minute until what holds the task's channels has ended. Two hundred forks take
    # longer than that in gVisor on a busy machine.
    most = 150 if task_id == "storms" and in_gvisor() else 50
    assert (entry.finished_at or 0) - entry.started_at < most


@pytest.mark.parametrize("task_id", CANCELLED)
def test_a_task_that_cannot_be_asked_is_killed(day: Day, task_id: str) -> None:
    """A cancelled task that ignores SIGTERM, or hears nothing while it computes, is killed, and the reason is told."""
    entry = day.entries[task_id]
    assert entry.state is State.FAILED and "ancelled" in (entry.reason or "")
    assert "ancelled" in day.works[task_id].log()


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_a_neighbour_is_not_disturbed(day: Day, name: str) -> None:
    """A task beside all these succeeds, and its log has each line of its own, whole and in order, and nobody else's."""
    assert day.entries[name].final_state == "success"
    assert {entry.container_id for entry in day.entries.values()} == {day.entries[name].container_id}
    printed = [json.loads(line)["event"] for line in day.works[name].log().splitlines()]
    ours = [line for line in printed if re.match(r"(ada|bob|eve) \d+$", line)]
    assert ours == [f"{name} {number}" for number in range(LINES)]
    assert "ignoring" not in printed and "computing" not in printed


def test_nothing_is_left_of_them(world: World, day: Day) -> None:
    """Daemons, storms of processes, one that is another process each millisecond, and files: all are gone."""
    container = day.entries["forks"].container_id
    until_idle(container)
    folders = world.command("ls -d /tmp/modalflow-scratch-* | grep -v $TMPDIR; echo done")
    folders.ended()
    printed = [json.loads(line)["event"] for line in folders.log().splitlines()]
    assert "done" in printed and not [line for line in printed if line.startswith("/tmp/")]
    [folder] = re.findall(r"folder (/tmp/modalflow-scratch-\w+)", day.works["fills_its_disk"].log())
    assert folder


def test_secrets_stay_where_airflow_puts_them(world: World, day: Day) -> None:
    """What Airflow masks is masked in the log; tokens and secrets are in no log, ledger entry, event or result."""
    assert day.entries["tells_secrets"].final_state == "success"
    told = ""
    for name, work in day.works.items():
        told += work.log() + day.entries[name].to_json() + work.event().to_json() + repr(work.wire["label"])
        if name not in CANCELLED:
            told += json.dumps(work.result())
    assert "password ***" in told and "variable ***" in told
    for secret in ("pass-of-the-connection", "value-of-the-variable", "secret-token"):
        assert secret not in told


@pytest.mark.parametrize("number", [9, 19])
def test_a_task_that_takes_the_zygote_along(world: World, number: int) -> None:
    """Whoever kills the zygote fails, and the reason says so; who stops it can be cancelled; and the next task runs."""
    work = world.task("kills_the_zygote", dag_file="hostile.py", env={"SIGNAL": str(number)})
    work.log_with("about to kill")
    if number == 19:
        work.calls[0].cancel()
    entry = work.ended()
    assert entry.state is State.FAILED
    assert ("ancelled" if number == 19 else "SIGKILL") in (entry.reason or "")
    after = world.task("works", dag_file="hostile.py", env={"NAME": "after", "LINES": "1"}).ended()
    assert after.final_state == "success" and after.container_id == entry.container_id
    until_idle(entry.container_id)


@dataclass(frozen=True)
class Size:
    """What a process holds."""

    files: int
    threads: int
    children: int
    resident: int
    """Pages."""

    @classmethod
    def of(cls, container: str, pid: int) -> Size:
        return cls(*asked(container, size_of, pid))


def test_a_container_does_not_grow(world: World) -> None:
    """Many workloads later the zygote and the main process hold as much as before: files, threads, children, memory."""
    # A task costs several times as much in gVisor.
    container = run_many(world, 10 if in_gvisor() else 40)
    before = {pid: Size.of(container, pid) for pid in (zygote_of(container), main_process_of(container))}
    assert run_many(world, 40 if in_gvisor() else 200) == container
    for pid, size in before.items():
        now = Size.of(container, pid)
        assert now.children == size.children
        # A pool's threads are made when they are first wanted.
        assert now.threads <= max(size.threads, MOST_THREADS)
        assert now.files <= size.files
        assert (now.resident - size.resident) * os.sysconf("SC_PAGESIZE") < 8 << 20


def run_many(world: World, number: int) -> str:
    """Run tasks that Airflow forgoes, so that each costs a process and little else; return the container."""
    world.api.refuse_run = (409, {"detail": {"reason": "invalid_state", "message": "", "previous_state": "running"}})
    try:
        works = [world.task("works", dag_file="hostile.py") for _ in range(number)]
        [container] = {str(work.result(COLD * 2)["container_id"]) for work in works}
    finally:
        world.api.refuse_run = None
    until_idle(container)
    wait_until(lambda: prepared_in(container), 20, "the processes of the next task")
    return container
