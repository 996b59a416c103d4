"""`modalflow status`, `logs` and `cancel` beside a real executor and the deployed worker."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import modal
import pytest
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.state import TaskInstanceState

from modalflow import control_plane
from modalflow.emulator.local import LocalModal
from modalflow.executor.workloads import log_path_of_key
from modalflow.names import CANCELLED_BY, Names
from modalflow.worker.deploy.deployment import deploy
from tests.command_line import CommandLine, variables
from tests.driving import Driver

NAMES = Names("operated")


@dataclass
class Desk:
    """An operator's terminal beside an executor that works."""

    driver: Driver
    command: CommandLine

    def run(self, *arguments: str, code: int = 0, **env: str) -> CompletedProcess[str]:
        """Run modalflow while the executor goes on; expect that exit code, and no traceback."""
        done: list[CompletedProcess[str]] = []
        thread = threading.Thread(target=lambda: done.append(self.command.run(*arguments, env=env)))
        thread.start()
        self.driver.until(lambda: not thread.is_alive())
        thread.join()
        assert done[0].returncode == code, done[0].stdout + done[0].stderr
        assert "Traceback" not in done[0].stderr
        return done[0]

    def status(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return told

    def work(self, key: Any, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """What status says of a key once a condition holds."""
        found: list[dict[str, Any]] = []

        def there() -> bool:
            found[:] = [each for each in self.status()["work"] if key.run_id in each["label"] and condition(each)]
            return bool(found)

        self.driver.until(there)
        return found[0]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalModal]:
    with LocalModal(max_containers=1) as running, pytest.MonkeyPatch.context() as environment:
        variables = running.env | {
            "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")),
            "AIRFLOW_CONN_MODAL_DEFAULT": "modal://",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://127.0.0.1:8080/execution/",
            "AIRFLOW__MODAL_EXECUTOR__EXECUTION_API": "direct",
            "AIRFLOW__MODAL_EXECUTOR__APP_NAME": NAMES.app,
            "AIRFLOW__MODAL_EXECUTOR__SWEEP_INTERVAL": "600",
            "AIRFLOW__MODAL_EXECUTOR__STATUS_INTERVAL": "0.2",
        }
        for name, value in variables.items():
            environment.setenv(name, value)
        environment.setattr(control_plane, "_known", {})
        deploy(NAMES, bundles={})
        yield running


@pytest.fixture(scope="module")
def command(local: LocalModal) -> Iterator[CommandLine]:
    with CommandLine({}, "modalflow") as command:
        yield command


@pytest.fixture
def desk(local: LocalModal, command: CommandLine) -> Iterator[Desk]:
    driver = Driver.started()
    yield Desk(driver, command)
    # The one container is shared: a test that fails must not leave it full for those that follow.
    for key in list(driver.executor.running):
        driver.executor.change_state(key, TaskInstanceState.FAILED)
    driver.executor.end()


def test_status_tells_what_runs_and_what_waits(desk: Desk) -> None:
    """Four share the one container, the fifth waits for it: each is listed with state, container and function call."""
    keys = [desk.driver.submit(f"running-{n}", "echo up; sleep 300") for n in range(4)]
    for key in keys:
        desk.driver.log_has(key, "up")
    late = desk.driver.submit("late", ["true"])
    running = desk.work(keys[0], lambda work: work["state"] == "running")
    assert running["container_id"].startswith("ta-") and running["function_call_id"].startswith("fc-")
    waiting = desk.work(late, lambda work: work["function_call_id"])
    assert (waiting["state"], waiting["profile"], waiting["container_id"]) == ("submitted", "default", "")
    told = desk.status()
    [executor] = told["executors"]
    assert executor["in_flight"] == 5 and executor["states"] == {"submitted": 5} and not executor["silent"]
    assert told["totals"] == {"default": {"running": 4, "submitted": 1}}
    assert told["profiles"] == [{"name": "default", "containers": 1, "backlog": 1, "problem": "", "hold": None}]
    page = desk.run("status").stdout
    assert "Work: 4 running (in a container), 1 submitted (on Modal, waiting for a container)" in page
    row = next(line for line in page.splitlines() if "late" in line)
    assert row.split()[0] == "submitted" and waiting["function_call_id"] in row
    assert "… and 4 more" in desk.run("status", "--limit", "1").stdout
    desk.run("cancel", "driven", "running-0", keys[0].run_id, "--yes")
    for key in [*keys, late]:
        desk.driver.executor.change_state(key, TaskInstanceState.FAILED)


def test_status_is_watched_until_it_is_interrupted(desk: Desk) -> None:
    """`--watch --json` says it again and again, a line each, and Ctrl-C ends it without a traceback."""
    command = [sys.executable, "-m", "modalflow.cli", "status", "--watch", "--interval", "0.5", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables({})
    ) as watch:
        assert watch.stdout is not None and watch.stderr is not None
        assert json.loads(watch.stdout.readline())["work"] == []
        key = desk.driver.submit("seen", "echo up; sleep 300")
        desk.driver.log_has(key, "up")
        while not any(work["state"] == "running" for work in json.loads(watch.stdout.readline())["work"]):
            desk.driver.beat()
        watch.send_signal(signal.SIGINT)
        assert watch.wait(30) == 130
        assert "Traceback" not in watch.stderr.read()
    desk.driver.executor.change_state(key, TaskInstanceState.FAILED)


def test_a_stopped_executor_is_no_longer_told_of(local: LocalModal, desk: Desk) -> None:
    """A clean stop removes the snapshot; what it left running is told to have no executor."""
    other = Driver.started()
    key = other.submit("left", "echo up; sleep 300")
    other.log_has(key, "up")
    assert len(desk.status()["executors"]) == 2
    other.executor.end()
    told = desk.status()
    assert len(told["executors"]) == 1
    [left] = [work for work in told["work"] if key.run_id in work["label"]]
    assert left["executor"] == ""
    assert "1 task marked * have no living executor" in desk.run("status").stdout
    desk.run("cancel", left["work_id"], "--yes")


def test_cancel_ends_what_runs_and_says_who_did_it(desk: Desk) -> None:
    """The command ends within seconds; the executor's event and the log name the user, and nothing runs it again."""
    key = desk.driver.submit("runs", "echo up; sleep 300")
    desk.driver.log_has(key, "up")
    said = desk.run("cancel", "driven", "runs", key.run_id, "--yes").stdout
    assert f"driven.runs run {key.run_id} try 1 ended after " in said
    state, info = desk.driver.outcome(key)
    assert state is TaskInstanceState.FAILED
    assert "was ended by hand: cancelled by " in info and "with modalflow cancel" in info
    desk.driver.log_has(key, "with modalflow cancel")
    work_id = desk.driver.stored_id(key).partition("/")[2]
    desk.driver.until(lambda: desk.driver.ledger.get(work_id) is None)
    assert desk.driver.ledger.get(CANCELLED_BY + work_id) is None


def test_cancel_ends_no_task_whose_name_reads_the_same(desk: Desk) -> None:
    """`etl` with task `load.orders`, and `etl.load` with task `orders`, in one run: only the named one ends."""
    run = uuid.uuid4().hex
    grouped = desk.driver.submit(TaskInstanceKey("etl", "load.orders", run, 1, -1), "echo up; sleep 300")
    other = desk.driver.submit(TaskInstanceKey("etl.load", "orders", run, 1, -1), "echo up; sleep 300")
    for key in (grouped, other):
        desk.driver.log_has(key, "up")
    told = [each["task"] for each in desk.status()["work"] if each["task"] and each["task"]["run_id"] == run]
    assert {each["dag_id"]: each["task_id"] for each in told} == {"etl": "load.orders", "etl.load": "orders"}
    said = desk.run("cancel", "etl", "load.orders", run, "--yes").stdout
    assert said.count(" ended after ") == 1
    assert desk.driver.outcome(grouped)[0] is TaskInstanceState.FAILED
    assert other in desk.driver.executor.running
    desk.driver.executor.change_state(other, TaskInstanceState.FAILED)


@pytest.mark.parametrize(
    ("dag", "task", "run"),
    [
        ("d" * 250, "t" * 250, "r" * 250),
        ("ж" * 100, "任务" * 45, "manual__2026-01-01T00:00:00+00:00"),
        ("x5_uni_é", "задача", "a/b with spaces"),
        ("dots...", "t.", "a/../b"),
    ],
)
def test_names_that_airflow_takes_have_a_log(desk: Desk, dag: str, task: str, run: str) -> None:
    """Ids of 250 characters, in any script, are longer than a file name: their logs are written, read and followed."""
    key = desk.driver.submit(TaskInstanceKey(dag, task, run, 1, -1), "echo it ran")
    assert desk.driver.outcome(key)[0] is TaskInstanceState.SUCCESS
    assert "it ran" in desk.run("logs", dag, task, run).stdout
    assert "it ran" in "".join(desk.driver.executor._log_volume.read(log_path_of_key(key))[1])
    assert "There is no log of" in desk.run("logs", dag, f"{task[:-1]}x", run, code=1).stderr


def test_cancel_bars_what_waits(desk: Desk) -> None:
    """What no container has begun never begins; the executor hears of it at once, without waiting for its sweep."""
    crowd = [desk.driver.submit(f"crowd-{n}", "echo up; sleep 300") for n in range(4)]
    for key in crowd:
        desk.driver.log_has(key, "up")
    key = desk.driver.submit("waits", "echo it ran")
    waiting = desk.work(key, lambda work: work["function_call_id"])
    said = desk.run("cancel", waiting["function_call_id"], "--yes").stdout
    assert "had not begun, and will not" in said
    state, info = desk.driver.outcome(key)
    assert state is TaskInstanceState.FAILED and "with modalflow cancel" in info
    for other in crowd:
        desk.driver.executor.change_state(other, TaskInstanceState.FAILED)
    log = desk.driver.log_has(key, "with modalflow cancel")
    assert "it ran\n" not in log
    call = modal.FunctionCall.from_id(waiting["function_call_id"], client=desk.driver.scope["client"])
    with pytest.raises(modal.exception.Error):
        call.get(timeout=10)


def test_cancelled_by_hand_is_not_run_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """`lost_command_policy = retry` is for what was lost, not for what somebody ended."""
    monkeypatch.setenv("AIRFLOW__MODAL_EXECUTOR__LOST_COMMAND_POLICY", "retry")
    driver = Driver.started()
    try:
        key = driver.submit("stubborn", "echo up; sleep 300")
        driver.log_has(key, "up")
        Desk(driver, desk.command).run("cancel", "driven", "stubborn", key.run_id, "--yes")
        assert driver.outcome(key)[0] is TaskInstanceState.FAILED
    finally:
        driver.executor.end()


def test_cancel_asks_and_names_the_nearest(desk: Desk) -> None:
    """Nothing is ended without a yes; a name that is not quite right is answered with the one that is there."""
    key = desk.driver.submit("precious", "echo up; sleep 300")
    desk.driver.log_has(key, "up")
    assert "Cancel 1 task?" in desk.run("cancel", "driven", "precious", key.run_id, code=1).stdout
    said = desk.run("cancel", "driven", "precous", key.run_id, "--yes", code=1).stderr
    assert f"The nearest: driven.precious run {key.run_id} try 1" in said
    assert (
        "No running or waiting work on Modal matches 'fc-nobody'"
        in desk.run("cancel", "fc-nobody", "--yes", code=1).stderr
    )
    assert "expected DAG TASK RUN" in desk.run("cancel", "a", "b", "--yes", code=2).stderr
    assert key in desk.driver.executor.running
    desk.driver.executor.change_state(key, TaskInstanceState.FAILED)


def test_logs_are_readable_and_followed_to_the_end(desk: Desk, tmp_path: Path) -> None:
    """Structured lines read as one, with time and level; --follow ends with the try and says how it ended."""
    key = desk.driver.submit("talks", "for i in 1 2 3; do echo line $i; sleep 0.4; done; exit 3")
    followed = desk.run("logs", "driven", "talks", key.run_id, "--follow")
    lines = followed.stdout.splitlines()
    assert " INFO    Started on Modal, profile default, on a local control plane  function_call_id=fc-" in lines[0]
    assert [line.partition(" INFO    ")[2] for line in lines[1:4]] == ["line 1", "line 2", "line 3"]
    assert " INFO    Occupied " in lines[4]
    assert " ERROR   The command ended with exit code 3." in lines[5]
    assert "This try has ended: failed." in followed.stderr
    assert desk.run("logs", "driven", "talks", key.run_id).stdout == followed.stdout
    raw = desk.run("logs", "driven", "talks", key.run_id, "--try", "1", "--json").stdout
    assert json.loads(raw.splitlines()[0])["event"].startswith("Started on Modal")


def test_a_triggers_lines_are_shown_where_they_were_written(desk: Desk) -> None:
    """The triggerer copies its log beside those of the function calls: both are one story, by time."""
    key, _ = desk.driver.run("defers", "echo before; sleep 0.1; echo after")
    path = f"{log_path_of_key(key)}.trigger.7.log"
    before, after = (
        json.loads(line)["timestamp"]
        for line in desk.driver.log(key).splitlines()
        if json.loads(line)["event"] in {"before", "after"}
    )
    assert before < after
    waits = f'{{"timestamp": "{before}", "level": "info", "event": "waits"}}\nno time\n'
    desk.driver.executor._log_volume.add_local_file(path, waits.encode(), "host")
    for words in ((), ("--follow",)):
        shown = desk.run("logs", "driven", "defers", key.run_id, *words).stdout
        places = [shown.index(text) for text in ("before", "waits", "no time", "after", "Occupied ")]
        assert places == sorted(places), shown


def test_logs_that_are_not_there(desk: Desk) -> None:
    """No log yet: where the task is. No such try, run or DAG: what there is."""
    done = desk.driver.submit("done", ["true"])
    desk.driver.outcome(done)
    crowd = [desk.driver.submit(f"crowd-{n}", "echo up; sleep 300") for n in range(4)]
    for key in crowd:
        desk.driver.log_has(key, "up")
    waits = desk.driver.submit("waits", ["true"])
    desk.work(waits, lambda work: work["function_call_id"])
    said = desk.run("logs", "driven", "waits", waits.run_id, code=1).stderr
    assert "was submitted" in said and "and waits for a container" in said
    for key in [*crowd, waits]:
        desk.driver.executor.change_state(key, TaskInstanceState.FAILED)
    assert "Tries with a log: 1." in desk.run("logs", "driven", "done", done.run_id, "--try", "7", code=1).stderr
    wrong = done.run_id[:-1] + "x"
    assert (
        f"Nearest runs of driven with a log: {done.run_id}" in desk.run("logs", "driven", "done", wrong, code=1).stderr
    )
    assert "DAGs with a log: driven" in desk.run("logs", "drivn", "done", done.run_id, code=1).stderr


def test_what_tasks_occupied_is_summed_and_priced(desk: Desk) -> None:
    """By DAG run or otherwise, on a page and as JSON: what was asked for, whose rates, and that it is an estimate."""
    key, _ = desk.driver.run("adds", "sleep 0.3", cpu=2, memory=1024)
    other, _ = desk.driver.run("in_a_region", ["true"], region="us-east")
    told = json.loads(desk.run("cost", "--dag", "driven", "--run", key.run_id, "--json").stdout)
    [run] = told["groups"]
    assert (run["dag"], run["run"], run["tasks"], run["function_calls"]) == ("driven", key.run_id, 1, 1)
    assert run == {"dag": "driven", "run": key.run_id} | told["total"]
    assert run["running_seconds"] >= 0.3 and run["core_seconds"] >= 2 * run["running_seconds"]
    assert run["gib_seconds"] >= run["running_seconds"] and run["memory_asked_mib"] == 1024 > run["memory_used_mib"] > 0
    assert float(run["dollars"]) > 0 and not run["without_a_rate"]
    assert told["estimate"] and not told["rates"]["live"] and "WorkspaceBillingRates" in told["rates"]["why_not_live"]
    page = desk.run("cost", "--by", "try", "--since", "1h").stdout
    row = next(line for line in page.splitlines() if key.run_id in line).split()
    assert row[:5] == ["driven", key.run_id, "adds", "1", "1"] and row[-1].startswith("$0.0")
    assert other.run_id in page and page.splitlines()[0].startswith("operated: work that ended since ")
    assert "The dollars are an estimate, from Modal's rates of 2026-10.\n(Modal did not report its own: " in page
    footer = json.loads(desk.driver.log(key).splitlines()[-1])["event"]
    assert footer.startswith("Occupied 2 cores, 1 GiB for ") and "(an estimate)" in footer
    assert "No records: no matching task ended" in desk.run("cost", "--dag", "nobody").stdout
    assert "expected for example 24h, 7d or 2026-11-01" in desk.run("cost", "--since", "yesterday", code=2).stderr


@pytest.mark.parametrize("words", [("status",), ("logs", "d", "t", "r"), ("cancel", "fc-1", "--yes"), ("cost",)])
def test_what_is_in_the_way_is_told(desk: Desk, words: tuple[str, ...]) -> None:
    """No app, no Modal, a wrong option: one line that says so and what to do."""
    assert "`modalflow deploy --app nobody`" in desk.run(*words, "--app", "nobody", code=1).stderr
    volumes = [volume.name for volume in modal.Volume.objects.list()]
    assert Names("nobody").logs not in volumes, "a command that reads creates nothing"
    away = {"MODAL_SERVER_URL": "http://127.0.0.1:1", "AIRFLOW__MODAL_EXECUTOR__CONNECT_TIMEOUT": "1"}
    assert "http://127.0.0.1:1 did not answer" in desk.run(*words, code=1, **away).stderr
    wrong = {"AIRFLOW__MODAL_EXECUTOR__TASK_TIMEOUT": "1h"}
    assert "task_timeout is '1h'" in desk.run(*words, code=1, **wrong).stderr
