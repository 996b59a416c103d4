"""The worker in real containers of Modal's runtime, on the local control plane, deployed by the real command."""

from __future__ import annotations

import base64
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modalflow.bundles.configured import LOCAL_BUNDLE
from modalflow.demo.programs.ports import free_port
from modalflow.names import BUNDLES_ROOT, TaskTry
from modalflow.protocol.messages import PROTOCOL, Kind, State
from modalflow.worker.environment import BUNDLE_LIST
from tests.airflows import needs_airflow
from tests.command_line import CommandLine
from tests.inside import processes_in, send_to, zygotes_in
from tests.integration import stalled
from tests.integration.stub_execution_api import (
    callback_workload,
    connection_test_workload,
    task_workload,
)
from tests.integration.stub_sentry import stub_sentry
from tests.integration.world import COLD, World, deployed_worker
from tests.support import in_gvisor, wait_until


@pytest.fixture(scope="module")
def world(modalflow_cli: CommandLine) -> Iterator[World]:
    with deployed_worker(modalflow_cli, "worker-under-test") as world:
        yield world


def test_a_command_tells_its_outcome_everywhere(world: World) -> None:
    """A command's success is returned, stored, announced, and its output is on the Volume."""
    work = world.command(("echo", "hello"))
    result, entry = work.result(), work.ended()
    assert result["state"] == "success" and result["return_code"] == 0
    assert entry == work.event()
    assert entry.state is State.SUCCESS and entry.return_code == 0 and entry.reason is None
    assert entry.function_call_id == work.calls[0].object_id and entry.container_id.startswith("ta-")
    assert entry.finished_at is not None and entry.finished_at >= entry.started_at > 0
    first, *rest, last = work.log().splitlines()
    assert json.loads(first)["function_call_id"] == entry.function_call_id
    assert [json.loads(line)["event"] for line in rest] == ["hello"]
    assert json.loads(last)["event"].startswith("Occupied ")


def test_a_container_has_its_zygote_before_a_workload_needs_one(world: World) -> None:
    """Airflow is imported from the container's start on, and the first workload runs in a fork of that very process."""
    container = world.command("true").ended().container_id
    (zygote,) = zygotes_in(container)
    entry = world.task(
        "hello", env={"AIRFLOW__CORE__EXECUTOR": "modalflow.executor.modal_executor.ModalExecutor"}
    ).ended()
    assert entry.container_id == container and entry.final_state == "success"
    assert zygotes_in(container) == [zygote]


def test_what_waits_in_vain_is_described(world: World) -> None:
    """A test that waits too long names the containers, what their processes wait for, and the log of the app."""
    work = world.command(("sleep", "600"))
    container = work.running().container_id
    wait_until(lambda: processes_in(container, "sleep 600"), COLD)
    report = stalled.report(world.app, world.faults, world.variables)
    work.calls[0].cancel()
    work.ended()
    assert all(part in report for part in (container, "zygote.server", "sleep 600", "log of the app:")), report
    assert "[select]" in report if in_gvisor() else " [S:" in report, report
    assert "Error(" not in report, report


#: Writes the name of every module that a process imports to a file of the container.
RECORD_IMPORTS = """
import sys

class Recorder:
    def find_spec(self, name, path=None, target=None):
        with open("/tmp/imported", "a") as file:
            file.write(name + "\\n")

sys.meta_path.insert(0, Recorder())
"""


def test_a_container_imports_nothing_that_only_deploys(world: World, tmp_path: Path) -> None:
    """No process of a container imports the code that deploys: not the main one, not the zygote, not a task's."""
    (tmp_path / "sitecustomize.py").write_text(RECORD_IMPORTS)
    file = tmp_path / "worker.py"
    # With a variable of the interpreter, the local control plane starts a new one, which imports sitecustomize.
    env = {"PYTHONPATH": str(tmp_path), "PYTHONHASHSEED": "1"}
    file.write_text(f"import modalflow\nworker = modalflow.Worker(env={env!r})\n")
    recorded = world.deploy(str(file), "--app", "recorded")
    assert recorded.task("hello").ended().final_state == "success"
    work = recorded.command(("cat", "/tmp/imported"))
    work.ended()
    imported = {json.loads(line)["event"] for line in work.log().splitlines()}
    assert {"modalflow.worker.call", "modalflow.worker.zygote.server", "modalflow.worker.run.supervised"} <= imported
    assert not [name for name in imported if name.startswith("modalflow.worker.deploy")]


def test_a_failing_shell_command_keeps_its_exit_code(world: World) -> None:
    """A string runs in a shell; its exit code is the outcome, and the log ends with the reason."""
    work = world.command("echo to stdout; echo to stderr >&2; exit 3")
    entry = wait_until(work.ended)
    assert entry.state is State.FAILED and entry.return_code == 3
    _, out, err, _, reason = (json.loads(line) for line in work.log().splitlines())
    assert (out["event"], out["logger"], out["level"]) == ("to stdout", "task.stdout", "info")
    assert (err["event"], err["logger"], err["level"]) == ("to stderr", "task.stderr", "error")
    assert reason["level"] == "error" and "exit code 3" in reason["event"]


def test_a_command_that_does_not_exist(world: World) -> None:
    """A program that is not in the container fails like in a shell, with its name in the reason."""
    entry = world.command(("no-such-program",)).ended()
    assert entry.return_code == 127 and "no-such-program" in (entry.reason or "")


def test_environment_variables_reach_a_command(world: World) -> None:
    """Submitted variables are above the container's."""
    work = world.command("echo $GREETING from $MODAL_TASK_ID", env={"GREETING": "grüezi"})
    entry = work.ended()
    assert f"grüezi from {entry.container_id}" in work.log()


@pytest.mark.parametrize("kind", ["command", "task"])
def test_a_variable_that_no_process_can_have_is_named(world: World, kind: str) -> None:
    """A Secret's value is known in the container alone: the reason has its name and size, and not its value."""
    env = {"FROM_A_SECRET": "hidden" * 30_000}
    work = world.command("true", env=env) if kind == "command" else world.task("hello", env=env)
    entry = work.ended()
    assert entry.state is State.FAILED and entry.reason is not None
    assert "environment variable 'FROM_A_SECRET' is 180,014 bytes long" in entry.reason
    assert "put longer values into a file" in entry.reason and "hidden" not in entry.reason
    assert entry.reason in work.log_with("FROM_A_SECRET")


def test_a_note_of_the_executor_is_in_the_log(world: World) -> None:
    """What is noticed before submission is the second line of the log, a warning; the command runs all the same."""
    work = world.command(("echo", "hello"), note="'pod_override' has no effect here")
    assert work.ended().state is State.SUCCESS
    _, note, hello, *_ = map(json.loads, work.log().splitlines())
    assert (note["level"], note["event"]) == ("warning", "'pod_override' has no effect here")
    assert hello["event"] == "hello"


@pytest.mark.parametrize("is_uploaded", [False, True])
def test_a_task_of_long_names_runs_and_has_a_log(world: World, is_uploaded: bool) -> None:
    """Airflow takes ids of 250 characters, which are longer than a file name, in the container as on the Volume; also
    where the deployment's own remote logging uploads the log from the container's disk."""
    remote_logging = {
        "PYTHONPATH": f"{BUNDLES_ROOT}/tests",
        "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "remote_log.LOGGING_CONFIG",
        "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": f"{world.api.url}uploads",
    }
    task = TaskTry("d" * 250, "任务" * 45, "r" * 250)
    workload = json.loads(task_workload("hello", bundle="tests", dag_file="d.py")) | {"log_path": task.log_path}
    work = world.task(
        "hello", log_path=task.log_path, workload=json.dumps(workload), env=remote_logging if is_uploaded else {}
    )
    entry = work.ended()
    assert (entry.state, entry.final_state) == (State.SUCCESS, "success"), entry.reason
    assert "hello" in work.log_with("hello")


def test_a_repeated_spawn_runs_once(world: World) -> None:
    """The same submission spawned twice, at once and again after its end, runs a single time."""
    work = world.submission(kind=Kind.COMMAND, command="echo it ran; sleep 0.5")
    results = [call.get(timeout=COLD)["state"] for call in (work.spawn(), work.spawn())]
    assert sorted(results) == ["duplicate", "success"]
    work.spawn()
    assert work.result()["state"] == "success"
    assert work.log().count("it ran") == 1
    assert work.event() == work.event(), "the late spawn repeats the event"


def test_an_executor_of_another_protocol_is_told_what_to_do(world: World) -> None:
    """A submission of another protocol version fails at once, naming both versions and the command."""
    work = world.submission(kind=Kind.COMMAND, command=("true",), protocol=PROTOCOL + 1, executor_version="9.9")
    work.spawn()
    event = work.event()
    reason = event.reason or ""
    assert event.cause == "incompatible"
    assert "9.9" in reason and f"protocol {PROTOCOL + 1}" in reason and "modalflow deploy" in reason
    assert work.result()["state"] == "failed"
    assert reason in work.log()


def test_cancelling_ends_a_command_that_ignores_sigterm(world: World) -> None:
    """A cancelled command and its children are dead when the ledger says so, whatever they do with SIGTERM."""
    work = world.command("trap '' TERM; sleep 601 & echo ready; wait; sleep 601")
    work.log_with("ready")
    container = work.running().container_id
    assert len(processes_in(container, "sleep 601")) == 2
    work.calls[0].cancel()
    entry = work.ended()
    assert entry.state is State.FAILED and "ancelled" in (entry.reason or "")
    assert not processes_in(container, "sleep 601")
    assert "ancelled" in work.log()


def test_a_lost_container_fails_its_work_and_nothing_runs_twice(world: World) -> None:
    """When a container dies, Modal gives the input to another one: that reports the loss and does not run it again."""
    work = world.command("echo it ran; sleep 602")
    work.log_with("it ran")
    lost = work.running()
    world.faults.now("kill", container=lost.container_id)
    entry = work.ended()
    assert entry.state is State.FAILED and entry.container_id != lost.container_id
    assert lost.container_id in (entry.reason or "")
    assert work.log().count("it ran") == 1
    assert entry == work.event()
    assert lost.container_id in work.log()


def test_a_preempted_container_fails_its_work_with_the_reason(world: World) -> None:
    """A container that Modal asks to end (SIGINT) ends what it runs; the work fails, and does not run again."""
    work = world.command("echo it ran; sleep 606")
    work.log_with("it ran")
    container = work.running().container_id
    world.faults.now("preempt", container=container)
    entry = work.ended()
    assert entry.state is State.FAILED and entry.reason
    assert not processes_in(container, "sleep 606")
    assert work.log().count("it ran") == 1


@pytest.mark.parametrize("left", [False, True])
def test_a_stopped_container_leaves_a_failure_to_the_executor(world: World, left: bool) -> None:
    """If the executor says so, Airflow is not told of the failure of a task that was asked to end, and no callback of
    one runs: the executor may run the task again."""
    before = len(world.api.states())
    work = world.task("docile", executor_reports_stop=left)
    work.log_with("stubborn is running")
    world.faults.now("preempt", container=work.running().container_id)
    entry = work.ended()
    assert (entry.state, entry.cause) == (State.FAILED, "container-stopped")
    assert world.api.states()[before:] == ([] if left else ["failed"])
    assert "on_kill was called" in work.log()
    assert ("a callback of the failure ran" in work.log()) is not left


def test_a_container_of_one_task_knows_a_stop_from_a_cancellation(world: World) -> None:
    """Modal's runtime cancels the same asyncio task for both there: only a stop may run a task again."""
    alone = world.deploy("--app", "alone", "--concurrency", "1")
    for cause in ("cancelled", "container-stopped"):
        work = alone.command("echo it ran; sleep 606")
        work.log_with("it ran")
        container = work.running().container_id
        if cause == "cancelled":
            work.calls[0].cancel()
        else:
            world.faults.now("preempt", container=container)
        assert work.ended().cause == cause


def test_function_calls_share_a_container(world: World) -> None:
    """With a concurrency above 1, commands run in one container at the same time."""
    crowded = world.deploy("--app", "crowded", "--max-containers", "1", "--concurrency", "2")
    # Each waits for the other, in a folder that only this container has: one after the other they would never end.
    meet = "touch /tmp/{here}; for i in $(seq 400); do [ -e /tmp/{there} ] && exit 0; sleep 0.05; done; exit 1"
    works = [
        crowded.command(meet.format(here="a", there="b")),
        crowded.command(meet.format(here="b", there="a")),
    ]
    assert [work.ended().state for work in works] == [State.SUCCESS, State.SUCCESS]


def test_a_log_can_be_read_while_the_command_runs(world: World) -> None:
    """What a running command printed is on the Volume about a second later."""
    work = world.command("trap 'echo late; exit' USR1; echo early; while :; do sleep 0.05; done")
    work.log_with("early")
    running = work.running()
    assert running.state is State.RUNNING
    [shell] = processes_in(running.container_id, "echo early")
    send_to(running.container_id, shell, signal.SIGUSR1)
    assert work.ended().state is State.SUCCESS
    assert "late" in work.log()


def test_a_task_runs_under_airflows_supervisor(world: World) -> None:
    """A task of a baked bundle runs, tells Airflow's API itself, and logs lines that Airflow can read."""
    work = world.task("hello", env={"GREETING": "grüezi"})
    entry = work.ended()
    assert (entry.state, entry.return_code, entry.final_state) == (State.SUCCESS, 0, "success")
    assert world.api.states()[-1] == "success"
    assert world.api.hostnames()[-1] == entry.container_id
    events = [json.loads(line)["event"] for line in work.log().splitlines()]
    assert "hello from the task, grüezi" in events
    # The command that older versions have for this prints the workload with it.
    assert "secret-token" not in work.log()


@pytest.mark.parametrize(
    ("task_id", "return_code"), [("fails", 0), ("exits", 7), ("closes_everything", None), ("prints_garbage", 0)]
)
def test_a_task_that_misbehaves_is_airflows_to_judge(world: World, task_id: str, return_code: int | None) -> None:
    """Whatever becomes of the task, the supervisor told Airflow, so the workload itself succeeded."""
    work = world.task(task_id)
    entry = work.ended()
    assert entry.state is State.SUCCESS
    assert entry.final_state == world.api.states()[-1]
    assert return_code is None or entry.return_code == return_code
    for line in work.log().splitlines():
        json.loads(line)


BROKEN_DAGS = {
    "needs.py": ("import acme_ops", "a module that this container does not have: 'acme_ops'"),
    "syntax.py": ("def broken(:", "not valid for this container's Python"),
    "slow.py": ("import time; time.sleep(60)", "[core] dagbag_import_timeout allows (1"),
    "ends.py": ("raise SystemExit(3)", "ends the process at its import"),
    "other.py": ("from airflow.sdk import DAG\ndag = DAG('other')", "defines no DAG 'd' here, but: other"),
    "none.py": ("x = 1", "defines no DAG at all"),
    "no_task.py": ("from airflow.sdk import DAG\ndag = DAG('d')", "without task 'hello'"),
    "absent.py": (None, "has no file absent.py"),
}


@pytest.mark.parametrize("name", BROKEN_DAGS)
def test_a_dag_that_is_missing_says_why(world: World, tmp_path: Path, name: str) -> None:
    """After Airflow's own line the task's log says which of the causes it was, an import's traceback included."""
    code, why = BROKEN_DAGS[name]
    (tmp_path / "there.py").touch()
    if code is not None:
        (tmp_path / name).write_text(code)
    bundles = [{"name": "broken", "classpath": LOCAL_BUNDLE, "kwargs": {"path": str(tmp_path)}}]
    env = {BUNDLE_LIST: json.dumps(bundles)}
    if name == "slow.py":
        env["AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT"] = "1"
    work = world.task("hello", bundle="broken", dag_file=name, env=env)
    work.ended()
    events = [json.loads(line)["event"] for line in work.log().splitlines()]
    airflows = next(number for number, event in enumerate(events) if event.endswith("during start up"))
    told = [event for event in events[airflows:] if why in event]
    assert len(told) == 1, events
    assert "Traceback" in told[0] or name not in ("needs.py", "syntax.py", "slow.py", "ends.py")


def test_a_bundle_that_is_not_configured_says_so(world: World) -> None:
    """With the names of those that are."""
    work = world.task("hello", bundle="nowhere")
    assert work.ended().final_state == "failed"
    assert "DAG bundle 'nowhere' is not configured in this container" in work.log()


def test_a_short_task_is_not_held_back(world: World) -> None:
    """The supervisor does not wait out its heartbeat interval of 5 s after a task has ended."""
    world.task("hello").ended()
    durations = []
    for _ in range(4):
        entry = world.task("closes_everything").ended()
        durations.append((entry.finished_at or 0) - entry.started_at)
    assert max(durations) < 4


def test_a_killed_supervisor_fails_the_workload(world: World) -> None:
    """A supervisor that cannot report is reported on, with the signal, and takes its task along."""
    work = world.task("kills_its_supervisor")
    entry = work.ended()
    assert entry.state is State.FAILED and "SIGKILL" in (entry.reason or "")
    assert json.loads(work.log().splitlines()[-1])["level"] == "error"
    assert world.task("hello").ended().state is State.SUCCESS


def test_what_a_task_leaves_behind_ends_with_it(world: World) -> None:
    """A daemon that a task started does not stay in the container."""
    work = world.task("leaves_a_daemon")
    entry = work.ended()
    assert entry.final_state == "success" and "daemon" in work.log()
    wait_until(lambda: not processes_in(entry.container_id, "sleep 600"), what="the daemon to end")


def test_cancelling_a_task_runs_its_on_kill(world: World) -> None:
    """A cancelled task is asked first: its on_kill() runs, and its output is in the log."""
    work = world.task("stubborn")
    work.log_with("stubborn is running")
    work.calls[0].cancel()
    entry = work.ended()
    assert entry.state is State.FAILED and "ancelled" in (entry.reason or "")
    assert "on_kill was called" in work.log()


def test_a_dead_zygote_fails_what_it_ran_and_is_replaced(world: World) -> None:
    """When the process that forks workloads is killed, its workloads fail with the reason and the next one runs."""
    work = world.task("stubborn")
    work.log_with("stubborn is running")
    container = work.running().container_id
    for zygote in zygotes_in(container):
        send_to(container, zygote, signal.SIGKILL)
    entry = work.ended()
    assert entry.state is State.FAILED and "SIGKILL" in (entry.reason or "")
    assert entry.cause == "zygote-killed"
    assert world.task("hello").ended().state is State.SUCCESS


def test_a_task_that_runs_elsewhere_is_left_alone(world: World) -> None:
    """Airflow's refusal to start a running task a second time is no failure: it says that the task is running."""
    world.api.refuse_run = (409, {"detail": {"reason": "invalid_state", "message": "…", "previous_state": "running"}})
    try:
        entry = world.task("hello").ended()
    finally:
        world.api.refuse_run = None
    assert (entry.state, entry.final_state) == (State.SUCCESS, "running")


@needs_airflow("3.2")
def test_a_start_with_an_expired_token_names_the_setting(world: World) -> None:
    """A task that waited for longer than its token lives ends with a reason that says so, in ledger and log."""
    claims = base64.urlsafe_b64encode(json.dumps({"exp": time.time() - 60}).encode()).decode().rstrip("=")
    world.api.refuse_run = (403, {"detail": "Invalid auth token"})
    try:
        workload = task_workload("hello", bundle="tests", dag_file="d.py", token=f"e30.{claims}.e30")
        work = world.task("hello", workload=workload)
        entry = work.ended()
    finally:
        world.api.refuse_run = None
    assert (entry.state, entry.cause) == (State.FAILED, "token-expired")
    assert "[scheduler] task_queued_timeout" in (entry.reason or "") and entry.function_call_id in (entry.reason or "")
    assert "[scheduler] task_queued_timeout" in work.log() and claims not in work.log()


def test_a_task_that_cannot_reach_airflow_has_not_begun(world: World) -> None:
    """An API server that is away is no failure of the task's: the outcome says where, and that nothing has run."""
    url = f"http://127.0.0.1:{free_port()}/execution/"
    env = {"AIRFLOW__CORE__EXECUTION_API_SERVER_URL": url, "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "1"}
    work = world.task("hello", env=env)
    entry = work.ended()
    assert (entry.state, entry.cause) == (State.FAILED, "api-unreachable")
    assert url in (entry.reason or "") and "No code of the task has run" in work.log()


def test_a_slow_api_server_is_waited_for(world: World) -> None:
    """A worker does not repeat a request that Airflow's own default gives up after 5 s."""
    asked = len(world.api.hostnames())
    world.api.run_takes = 5.5
    try:
        entry = world.task("hello").ended()
    finally:
        world.api.run_takes = 0.0
    assert (entry.state, entry.final_state) == (State.SUCCESS, "success")
    assert len(world.api.hostnames()) == asked + 1


def test_the_hosts_settings_of_the_api_client_count(world: World) -> None:
    """They come with the workload, and the process that has imported Airflow applies them without another import."""
    (zygote,) = zygotes_in(world.task("hello").ended().container_id)
    asked = len(world.api.hostnames())
    settings = {
        "TIMEOUT": "0.2",
        "RETRIES": "2",
        "RETRY_WAIT_MIN": "0",
        "RETRY_WAIT_MAX": "0.1",
    }
    world.api.run_takes = 2.0
    try:
        env = {f"AIRFLOW__WORKERS__EXECUTION_API_{name}": value for name, value in settings.items()}
        entry = world.task("hello", env=env).ended()
    finally:
        world.api.run_takes = 0.0
    assert (entry.state, entry.cause) == (State.FAILED, "api-unreachable")
    assert len(world.api.hostnames()) == asked + 2
    assert zygotes_in(entry.container_id) == [zygote]


def test_a_setting_of_the_api_client_that_is_no_number_is_named(world: World) -> None:
    """The task fails with a reason that lists the settings that one of them is."""
    entry = world.task("hello", env={"AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "many"}).ended()
    assert entry.state is State.FAILED and "[workers] execution_api_retries" in (entry.reason or "")


def test_a_task_of_a_burst_waits_for_its_turn(world: World) -> None:
    """It stays behind the first one for as long as the executor asks for, and its log explains a long wait."""
    work = world.task("hello", burst_began_at=time.time(), start_after=2.0)
    late = work.ended()
    assert "the tasks of a burst ask Airflow's API server one after the other" in work.log()
    assert late.finished_at is not None and late.finished_at - late.started_at >= 1.5
    assert late.final_state == "success"


def test_a_task_of_a_burst_can_be_cancelled_while_it_waits(world: World) -> None:
    """Its wait ends at once, and nothing of it has run."""
    asked = len(world.api.hostnames())
    work = world.task("hello", burst_began_at=time.time(), start_after=60.0)
    work.running()
    work.calls[0].cancel()
    entry = work.ended()
    assert (entry.state, entry.cause) == (State.FAILED, "cancelled")
    assert len(world.api.hostnames()) == asked


def test_a_task_that_was_marked_meanwhile_is_not_run(world: World) -> None:
    """It does not run, it is no failure, and its log says why."""
    world.api.refuse_run = (409, {"detail": {"reason": "invalid_state", "message": "…", "previous_state": "failed"}})
    try:
        work = world.task("hello")
        entry = work.ended()
    finally:
        world.api.refuse_run = None
    assert (entry.state, entry.cause) == (State.SUCCESS, "not-wanted")
    assert "no longer wanted this task to run" in work.log()


@needs_airflow("3.2")
@pytest.mark.parametrize(("path", "state"), [("json.dumps", State.SUCCESS), ("json.loads", State.FAILED)])
def test_a_callback_runs(world: World, path: str, state: State) -> None:
    """A callback's own success or failure is the workload's: nobody else tells Airflow of it."""
    work = world.task("", workload=callback_workload(path, bundle="tests", dag_file="d.py", **_ARGUMENT[path]))
    entry = work.ended()
    assert entry.state is state
    assert ("executed successfully" in work.log()) == (state is State.SUCCESS)
    assert ("JSONDecodeError" in (entry.reason or "")) == (state is State.FAILED)
    assert ("JSONDecodeError" in (entry.reason or "")) == (state is State.FAILED)


@needs_airflow("3.2")
@pytest.mark.parametrize(
    ("callback", "said"),
    [
        ("fails_with_nul", "RuntimeError: bad field: A\\x00B"),
        ("fails_with_surrogate", "RuntimeError: no such file: caf\\udce9.csv"),
        ("fails_with_separators", "RuntimeError: one\\u2028two\\x85three\\x0bfour\\x1b[2J"),
        ("fails_at_length", "RuntimeError: it begins here éééé"),
        pytest.param("fails_without_words", "Silent: its text cannot be read", marks=needs_airflow("3.3")),
    ],
)
def test_a_callbacks_reason_arrives_whatever_is_in_it(world: World, callback: str, said: str) -> None:
    """What it failed with is the reason, in a form that every database takes, and is in its log."""
    path = f"unusual_prefix_0_strange.{callback}"
    work = world.task("", workload=callback_workload(path, bundle="tests", dag_file="strange.py"))
    entry = work.ended()
    assert entry.state is State.FAILED
    assert said in (entry.reason or ""), work.log()[-3000:]
    assert is_storable(entry.reason or "")
    assert is_storable(str(work.result()["reason"]))
    last = json.loads(work.log().splitlines()[-1])
    assert (last["level"], said in last["event"]) == ("error", True)


@pytest.mark.parametrize(
    ("task_id", "said"),
    [
        ("prints", ["nul \x00 in log", "surrogate \\udce9 in log", "nul \x00 in print", "the end of it"]),
        ("raises_nul", ["bad \x00 value"]),
        ("raises_surrogate", ["no such file: caf\\udce9.csv"]),
        ("raises_from_surrogate", ["the cause knows more", "no such file: caf\\udce9.csv"]),
    ],
)
def test_a_task_may_print_and_raise_any_text(world: World, task_id: str, said: list[str]) -> None:
    """It ends as it would with other words, and its log says what they were, one JSON object a line."""
    work = world.task(task_id, dag_file="strange.py")
    entry = work.ended()
    assert (entry.state, entry.final_state) == (State.SUCCESS, "success" if task_id == "prints" else "failed")
    lines = [json.loads(line) for line in work.log().split("\n") if line]
    told = [text for line in lines for text in (line["event"], *_values_of(line.get("error_detail")))]
    assert [text for text in said if not any(text in each for each in told)] == [], told


def _values_of(errors: list[dict[str, Any]] | None) -> list[str]:
    return [str(error["exc_value"]) for error in errors or []]


def is_storable(text: str) -> bool:
    """Whether PostgreSQL takes a text, and MySQL with it."""
    text.encode("utf-8")
    return len(text) <= 8000 and not any(character < " " and character not in "\t\n" for character in text)


SENSITIVE = {"AIRFLOW__CORE__SENSITIVE_VAR_CONN_NAMES": "door_pin,kennwort"}


def test_what_the_host_calls_sensitive_is_masked(world: World) -> None:
    """The names that came with a workload hold from its first line on, in a process that was there before them."""
    world.api.variables["door_pin"] = "pin-of-the-door"
    world.api.connections["gate"] = {"extra": json.dumps({"kennwort": "word-of-the-gate"})}
    zygotes = zygotes_in(world.task("hello").ended().container_id)
    work = world.task("shows_what_is_sensitive", dag_file="strange.py", env=SENSITIVE)
    entry = work.ended()
    log = work.log()
    assert entry.final_state == "failed"
    assert "pin ***" in log and "extra ***" in log and "no door opens to ***" in log
    assert "pin-of-the-door" not in log + entry.to_json() and "word-of-the-gate" not in log + entry.to_json()
    assert zygotes_in(entry.container_id) == zygotes
    # The next one's settings are its own.
    unmasked = world.task("shows_what_is_sensitive", dag_file="strange.py")
    assert unmasked.ended().final_state == "failed"
    assert "pin pin-of-the-door" in unmasked.log()


@pytest.mark.parametrize(
    ("env", "shown"),
    [
        ({"AIRFLOW__LOGGING__MIN_LENGTH_MASKED_SECRET": "16"}, "pin pin-of-the-door"),
        ({"AIRFLOW__CORE__HIDE_SENSITIVE_VAR_CONN_FIELDS": "False"}, "pin pin-of-the-door"),
        ({"AIRFLOW__LOGGING__SECRET_MASK_ADAPTER": "urllib.parse.quote"}, "pin ***"),
    ],
)
def test_every_setting_of_the_masker_counts(world: World, env: dict[str, str], shown: str) -> None:
    """As under any executor: which secrets are too short, whether names count at all, and what else is a secret."""
    world.api.variables["door_pin"] = "pin-of-the-door"
    world.api.connections["gate"] = {"extra": json.dumps({"kennwort": "word-of-the-gate"})}
    work = world.task("shows_what_is_sensitive", dag_file="strange.py", env=SENSITIVE | env)
    assert work.ended().final_state == "failed"
    assert shown in work.log(), work.log()


def test_a_masker_that_cannot_be_had_runs_nothing(world: World) -> None:
    """Without the adapter that the host masks with, secrets would be in the log: the task fails, and says why."""
    env = SENSITIVE | {"AIRFLOW__LOGGING__SECRET_MASK_ADAPTER": "no_such_module.adapt"}
    entry = world.task("shows_what_is_sensitive", dag_file="strange.py", env=env).ended()
    assert (entry.state, entry.final_state) == (State.FAILED, None)
    assert "[logging] secret_mask_adapter" in (entry.reason or "") and "no_such_module" in (entry.reason or "")


_ARGUMENT: dict[str, dict[str, Any]] = {"json.dumps": {"obj": 1}, "json.loads": {"s": "not json"}}


@needs_airflow("3.3")
def test_a_connection_is_tested_in_the_container(world: World) -> None:
    """A connection test tells Airflow its result itself, and its log says what happened."""
    work = world.task("", workload=connection_test_workload())
    assert work.ended().state is State.SUCCESS
    results = [body for method, path, body in world.api.requests if "/connection-tests/" in path and method == "PATCH"]
    assert results[-1]["state"] == "failed"
    assert "Connection test finished" in work.log()


@needs_airflow("3.3")
def test_the_result_of_a_connection_test_can_be_stored(world: World) -> None:
    """What the hook says arrives at Airflow's API in a form that its database takes, and in its length."""
    path = "/no\x00such" + "x" * 3000
    world.api.connections["tested"] = {"conn_type": "fs", "extra": json.dumps({"path": path})}
    try:
        work = world.task("", workload=connection_test_workload())
        assert work.ended().state is State.SUCCESS
    finally:
        del world.api.connections["tested"]
    results = [body for method, path, body in world.api.requests if "/connection-tests/" in path and method == "PATCH"]
    assert results[-1]["state"] == "failed"
    message = results[-1]["result_message"]
    assert message.startswith("Path /no\\x00suchxxx"), message
    assert message.endswith(" more characters)") and len(message) <= 2000


def test_a_workload_that_cannot_be_read_keeps_its_token(world: World) -> None:
    """An unreadable workload fails with the fields at fault; its token is in neither reason nor log."""
    workload = json.loads(task_workload("hello", bundle="tests", dag_file="d.py", token="very-secret"))
    del workload["ti"]["dag_id"]
    work = world.task("hello", workload=json.dumps(workload))
    entry = work.ended()
    assert entry.state is State.FAILED and "dag_id" in (entry.reason or "")
    assert "very-secret" not in (entry.reason or "") + work.log()


def test_a_setting_that_airflow_reads_at_import_is_honoured(world: World) -> None:
    """A task with Airflow settings of its own does not run in a process that imported Airflow without them."""
    started = time.time()
    work = world.task("hello", env={"AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"})
    assert work.ended().final_state == "success"
    assert "Filling up the DagBag" not in work.log()
    assert work.ended().started_at >= started


@needs_airflow("3.3")
def test_a_tasks_error_reaches_sentry(world: World) -> None:
    """With ``[sentry]`` among the variables that workloads get, and Sentry's SDK in the image, the error arrives with
    the tags that Airflow gives it."""
    with stub_sentry() as sentry:
        env = {"AIRFLOW__SENTRY__SENTRY_ON": "True", "AIRFLOW__SENTRY__SENTRY_DSN": sentry.dsn}
        assert world.task("fails", env=env).ended().state is State.SUCCESS, "the supervisor's, whose task failed"
        (told,) = wait_until(lambda: [each for each in sentry.envelopes if "ValueError" in each], 20.0, "the error")
        assert "a failure of the user's own" in told and '"task_id":"fails"' in told
